"""A small shop whose predictions are recorded: calls as a server notes them, without a server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.messages import Message, Request
from modelyard.profile import Profile
from modelyard.recording.places import Places
from modelyard.schema import Columns, Field, Signature
from modelyard.serving.calls import Exchange
from modelyard.serving.metrics import Meter
from modelyard.serving.noting import Book, Notes
from modelyard.telemetry import Log

SIGNATURE = Signature(
    inputs=(
        Field(name="age", dtype="int64"),
        Field(name="income", dtype="float64", nullable=True),
        Field(name="city", dtype="string", nullable=True),
        Field(name="visits", dtype="float32", shape=(3,)),
    ),
    outputs=(
        Field(name="prediction", dtype="string"),
        Field(name="probabilities", dtype="float64", shape=(2,), categories=("no", "yes")),
    ),
)

CITIES = ("Aachen", "Bonn", "Celle", None)


class Sample(msgspec.Struct):
    """Rows and what was predicted for them."""

    inputs: Columns
    outputs: Columns


def some_rows(count: int, seed: int = 0) -> Sample:
    """Ordinary rows."""
    random = np.random.default_rng(seed)
    yes = random.uniform(size=count)
    inputs = SIGNATURE.input_layout.from_arrays(
        {
            "age": random.integers(18, 90, count),
            "income": np.where(random.uniform(size=count) < 0.1, np.nan, random.normal(3000, 500, count)),
            "city": random.choice(np.array(CITIES, dtype=object), count),
            "visits": random.uniform(size=(count, 3)).astype("float32"),
        }
    )
    labels = np.where(yes > 0.5, "yes", "no").astype(object)
    outputs = SIGNATURE.output_layout.from_arrays(
        {"prediction": labels, "probabilities": np.stack([1 - yes, yes], axis=1)}
    )
    return Sample(inputs, outputs)


def reference() -> Profile:
    """The profile of the rows that the model was trained on."""
    rows = some_rows(2000, seed=1)
    return Profile.of(rows.inputs, SIGNATURE.inputs, rows.outputs, SIGNATURE.outputs)


class Bundle:
    """As much of a bundle as notes need."""

    def __init__(self, profile: Profile | None) -> None:
        self._profile = profile

    def profile(self) -> Profile:
        return self._profile or Profile()


class Served:
    """As much of a loaded version as notes need."""

    def __init__(
        self, name: str = "churn", version: str = "1", signature: Signature = SIGNATURE, profile: Profile | None = None
    ) -> None:
        self.name = name
        self.version = version
        self.digest = f"sha256:{name}{version}"
        self.signature = signature
        self.bundle = Bundle(profile)


class Asked(Exchange, gc=False, kw_only=True, eq=False):
    """A request whose answer nobody waits for."""

    def answer(self, message: Message) -> None:
        pass


def asked(id: str, rows: int = 1, *, seconds: float = 0.002, arm: str = "", client: str = "") -> Asked:
    """A request of so many rows that was received so long ago."""
    received = perf_counter() - seconds
    return Asked(
        id=id, received=received, decoded=received + seconds / 4, request=Request(rows), endpoint=None,  # type: ignore[arg-type]
        arm=arm, client=client,
    )  # fmt: skip


class Shop:
    """A server of one version that notes what it is told to have predicted."""

    def __init__(self, records: Path, served: Served | None = None) -> None:
        self.places = Places(records)
        self.notes = Notes(self.places, Log("error"))
        self.notes.open()
        self.served = served or Served(profile=reference())
        self.meter = Meter(self.served.name, self.served.version)
        self.book: Book = self.notes.book(self.served, self.meter)  # type: ignore[arg-type]

    def sell(
        self, ids: Sequence[str], rows: Sequence[int] | None = None, sample: Sample | None = None,
        codes: Sequence[str] = (), *, seconds: float = 0.002, arms: Sequence[str] = (), clients: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """One call of the model, for a request of each id."""
        sizes = list(rows or [1] * len(ids))
        sample = sample or some_rows(sum(sizes), seed=len(ids))
        self.book.is_routed = bool(arms)
        exchanges = [
            asked(
                id, size, seconds=seconds, arm=arms[i] if arms else "", client=clients[i] if clients else "",
            )
            for i, (id, size) in enumerate(zip(ids, sizes, strict=True))
        ]  # fmt: skip
        messages = [Message(b"", code=code) for code in codes or ["ok"] * len(ids)]
        now = perf_counter()
        outputs = None if codes and all(code != "ok" for code in codes) else sample.outputs
        self.book.note(exchanges, messages, now - seconds / 2, now - seconds / 4, sample.inputs, outputs)

    def close(self) -> None:
        self.notes.close()


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Path]:
    """An empty records folder; the memory of its rings is given back."""
    folder = tmp_path / "records"
    yield folder
    remove_rings(folder)


@pytest.fixture
def shop(records: Path) -> Iterator[Shop]:
    made = Shop(records)
    yield made
    made.close()


def remove_rings(folder: Path) -> None:
    """Give back the memory of a records folder's rings."""
    import shutil

    rings = folder / "rings"
    if rings.is_symlink():
        shutil.rmtree(rings.readlink(), ignore_errors=True)


def some_ids(count: int) -> list[str]:
    return [secrets.token_hex(8) for _ in range(count)]


def plain(value: Any) -> Any:
    """Arrays as lists, NaN as the text ``nan``, so that they can be compared."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [plain(each) for each in value]
    return "nan" if isinstance(value, float) and value != value else value
