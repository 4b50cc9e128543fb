"""Predictions as a recorder leaves them, and bundles of which they could be."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.bundle import Bundle
from modelyard.bundle.manifest import Environment, FileEntry, Manifest, digest_of
from modelyard.interfaces import ModelSpec
from modelyard.profile import Profile
from modelyard.recording.checkpoint import Checkpoint, write_checkpoint
from modelyard.recording.places import Places
from modelyard.recording.spool import SUFFIX, Spool, to_parquet
from modelyard.schema import Field, Signature

NOON = dt.datetime(2026, 1, 5, 12, tzinfo=dt.UTC)
CITIES = ("Oslo", "Rome")


class Prediction(NamedTuple):
    """One recorded row."""

    id: str
    #: A number, or the probabilities of the classes.
    answer: Any
    moment: dt.datetime = NOON
    arm: str = ""
    code: str = "ok"
    city: str | None = "Oslo"
    kept: str | None = "sample"
    predicted: Any = None


def bundle_of(
    folder: Path,
    classes: Sequence[str] = ("no", "yes"),
    *,
    text: str = "one",
    metrics: Any = None,
    dtype: str = "string",
) -> Bundle:
    """A complete bundle that nothing can load: of a classifier, or where there are no classes, of a regression."""
    inputs = (Field(name="city", dtype="string", nullable=True, categories=CITIES), Field(name="x", dtype="float64"))
    prediction = Field(name="prediction", dtype=dtype if classes else "float64")
    probabilities = Field(name="probabilities", dtype="float64", shape=(len(classes),), categories=tuple(classes))
    outputs = (prediction, probabilities) if classes else (prediction,)
    rows = 200
    cities = np.array([*(CITIES * (rows // 2)), None], dtype=object)[:-1]
    columns = {"city": cities, "x": np.arange(rows, dtype="float64")}
    shown = {"prediction": np.linspace(-100, 100, rows)} if not classes else None
    profile = Profile.of(columns, inputs, shown, outputs[:1] if shown else ())
    contents = {"model/model.onnx": text.encode(), "profile.json": profile.to_json(), "golden.json": b"{}"}
    files = {}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        files[name] = FileEntry(digest_of(content), len(content))
    manifest = Manifest(
        format=1,
        task="classification" if classes else "regression",
        signature=Signature(inputs=inputs, outputs=outputs),
        model=ModelSpec(runtime="onnx", options={"file": "model.onnx"}),
        environment=Environment(python="3.11.7", implementation="CPython", platform="linux", machine="x86_64"),
        metrics=metrics or {},
        files=files,
    )
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return Bundle.open(folder)


def table_of(rows: Iterable[Prediction], classes: Sequence[str] = ("no", "yes")) -> pa.Table:
    """Rows as columns of a segment."""
    found = list(rows)
    answers = [None if row.code != "ok" else row.answer for row in found]
    columns: dict[str, Any] = {
        **{name: pa.array([row.id for row in found], pa.string()) for name in ("prediction_id", "request_id")},
        "time": pa.array([row.moment for row in found], pa.timestamp("us", "UTC")),
        "arm": pa.array([row.arm or None for row in found], pa.string()),
        "alias": pa.array(["production" if row.arm else None for row in found], pa.string()),
        "revision": pa.array([3 if row.arm else None for row in found], pa.int32()),
        "client": pa.nulls(len(found), pa.string()),
        "code": pa.array([row.code for row in found], pa.string()),
        "kept": pa.array([row.kept for row in found], pa.string()),
        "in.city": pa.array([row.city if row.kept else None for row in found], pa.string()),
    }
    if classes:
        chosen = [None if a is None else classes[int(np.argmax(a))] for a in answers]
        predicted = [row.predicted or name for row, name in zip(found, chosen, strict=True)]
        columns["out.prediction"] = pa.array(predicted, pa.string())
        columns["out.probabilities"] = pa.array(answers, pa.list_(pa.float64()))
    else:
        columns["out.prediction"] = pa.array(answers, pa.float64())
    return pa.table(columns)


def write_segment(
    records: Path, rows: Iterable[Prediction], *, model: str = "m", version: str = "1",
    name: str = "20260105T120000000-a", classes: Sequence[str] = ("no", "yes"),
) -> Path:  # fmt: skip
    folder = records / "segments" / f"model={model}" / f"version={version}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    pq.write_table(table_of(rows, classes), path, compression="zstd")
    return path


class SpoolFile:
    """A spool that grows, and the checkpoint that says how much of it is kept for good."""

    def __init__(
        self, records: Path, *, model: str = "m", version: str = "1", name: str = "20260105T130000000-a",
        classes: Sequence[str] = ("no", "yes"),
    ) -> None:  # fmt: skip
        self._classes = classes
        self._places = Places(records)
        path = self._places.segments / f"model={model}" / f"version={version}" / f"{name}{SUFFIX}"
        self.spool = Spool(path, table_of([], classes).schema)
        self._places.state.mkdir(parents=True, exist_ok=True)

    def append(self, rows: Iterable[Prediction], *, keep: bool = True) -> None:
        self.spool.append(table_of(rows, self._classes).combine_chunks().to_batches()[0])
        if keep:
            name = str(self.spool.path.relative_to(self._places.segments))
            write_checkpoint(self._places.state / "checkpoint", Checkpoint(spools={name: self.spool.size}))

    def convert(self) -> None:
        """Make a Parquet file of it, as a recorder does."""
        self.spool.close()
        to_parquet(self.spool.path, self.spool.path.with_suffix(".parquet"))
        self.spool.path.unlink()
        write_checkpoint(self._places.state / "checkpoint", Checkpoint())


def truth_of(prediction: Prediction, seed: int, classes: Sequence[str] = ("no", "yes")) -> str:
    """A label that fits how sure the model was: drawn from its probabilities, or near its number."""
    drawn = random.Random(f"{seed} {prediction.id}")
    if not classes:
        return repr(prediction.answer + drawn.gauss(0, 5))
    return drawn.choices(list(classes), prediction.answer)[0]


def csv_of(labels: Iterable[tuple[str, str]]) -> str:
    return "prediction_id,label\n" + "".join(f"{id},{label}\n" for id, label in labels)


def lines_of(labels: Iterable[tuple[str, Any]]) -> str:
    return "".join(json.dumps({"prediction_id": id, "label": label}) + "\n" for id, label in labels)
