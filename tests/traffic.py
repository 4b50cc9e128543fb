"""Traffic without a server: rows are drawn, predicted and counted as a recorder counts them, a window a minute."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.bundle import Bundle
from modelyard.profile import Profile
from modelyard.registry.records import stamp
from modelyard.registry.stages import STAGE_BOUNDS, STAGES
from modelyard.registry.windows import Counted, Window, bins_of, magnitudes, parts_of
from modelyard.schema import Array, Field
from registries import tiny_bundle

FIELDS = (
    Field(name="age", dtype="float64"), Field(name="weight", dtype="float64", nullable=True),
    Field(name="fixed", dtype="float64"), Field(name="city", dtype="string", nullable=True),
)  # fmt: skip
OUTPUTS = (Field(name="prediction", dtype="string"), Field(name="score", dtype="float64"))
CITIES = ["Bern", "Kyiv", "Lima", "Oslo"]
START = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)


class Traffic:
    """Rows like those of the reference, but for what a test changes: ``change(columns, outputs)`` in place."""

    def __init__(self, seed: int = 0, rows: int = 5_000) -> None:
        self.rng = np.random.default_rng(seed)
        columns, outputs = self.draw(rows)
        self.reference = Profile.of(columns, FIELDS, outputs, OUTPUTS)
        self.moment = START
        self.ids = 0

    def bundle(self, folder: Path) -> Bundle:
        """A bundle whose reference profile is this one; another folder's name is another digest."""
        return tiny_bundle(folder, folder.name, profile=self.reference.to_json())

    def draw(self, rows: int) -> tuple[dict[str, Array], dict[str, Array]]:
        rng = self.rng
        age = np.round(rng.gamma(9, 4.5, rows), 1)
        columns: dict[str, Array] = {
            "age": age, "weight": np.where(rng.random(rows) < 0.12, np.nan, rng.normal(75, 12, rows)),
            "fixed": np.full(rows, 3.0), "city": rng.choice(np.array(CITIES, object), rows, p=[0.4, 0.3, 0.2, 0.1]),
        }  # fmt: skip
        score = 1 / (1 + np.exp(-(age - 40) / 8 - rng.normal(0, 0.5, rows)))
        outputs: dict[str, Array] = {"prediction": np.where(score > 0.5, "yes", "no").astype(object), "score": score}
        return columns, outputs

    def count(self, rows: int, change: Any = None, **more: Any) -> Counted:
        """What a window counts of so many rows."""
        columns, outputs = self.draw(rows)
        if change is not None:
            change(columns, outputs)
        return counted_of(self.reference, columns, outputs, self.stages(rows, more.pop("slower", 1.0)), **more)

    def stages(self, requests: int, slower: float = 1.0) -> dict[str, list[int]]:
        """Latencies: half a millisecond in all, most of it in the model."""
        made = {}
        shares = {"decode": 0.1, "queue": 0.05, "predict": 0.75 * slower, "encode": 0.1}
        total = np.zeros(requests)
        for stage, share in shares.items():
            times = share * 5e-4 * self.rng.lognormal(0, 0.4, requests)
            total += times
            made[stage] = histogram(times)
        return {**made, "total": histogram(total)}

    def window(
        self, rows: int = 1_500, change: Any = None, *, arm: str = "", version: str = "1", **more: Any
    ) -> Window:
        """The window of the next minute."""
        opened = self.moment
        self.moment += dt.timedelta(seconds=60)
        self.ids += 1
        return Window(
            id=self.ids, model="churn", version=version, arm=arm, opened=stamp(opened), closed=stamp(self.moment),
            source="here", counted=self.count(rows, change, **more),
        )  # fmt: skip

    def windows(self, count: int, rows: int = 1_500, change: Any = None, **more: Any) -> list[Window]:
        return [self.window(rows, change, **more) for _ in range(count)]


def counted_of(
    reference: Profile, columns: dict[str, Array], outputs: dict[str, Array], stages: dict[str, list[int]], **more: Any
) -> Counted:
    """Rows, counted on the bins of a reference."""
    seen = reference.empty()
    seen.add(columns, outputs)
    unseen: dict[str, dict[str, int]] = {}
    outside: dict[str, dict[str, int]] = {}
    for part in reference.inputs:
        values = columns[part.field]
        if part.kind == "category":
            odd = Counter(v for v in values.tolist() if isinstance(v, str) and v not in part.values)
            unseen |= {part.name: dict(odd.most_common(20))} if odd else {}
        elif part.maximum is not None:
            numbers = values[np.isfinite(values)]
            far = numbers[(numbers < part.edges[0]) | (numbers > part.maximum)]
            outside |= {part.name: magnitudes(far)} if len(far) else {}
    counted = Counted(
        requests=seen.rows, rows=seen.rows, inputs=parts_of(seen.inputs), outputs=parts_of(seen.outputs), stages=stages,
        unseen=unseen, outside=outside, bins=bins_of(reference),
    )  # fmt: skip
    for name, value in more.items():
        setattr(counted, name, value)
    return counted


def histogram(seconds: Array) -> list[int]:
    """Times on the bounds of windows."""
    places = np.searchsorted(STAGE_BOUNDS, seconds, side="left")
    return np.bincount(places, minlength=len(STAGE_BOUNDS) + 1).tolist()


assert set(STAGES) == {"decode", "queue", "predict", "encode", "total"}
