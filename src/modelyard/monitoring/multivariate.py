"""Whether all inputs together changed: a classifier tries to tell new rows from old ones (Lopez-Paz, Oquab 2017).

What no single column shows, a change of how columns go together, shows here. The rows are recorded inputs: those of the
last hours beside those before. A classifier learns on half of the requests and is judged on the other half, so that the
chance of its AUC is that of a rank test. It is a report, not an alarm: that rows can be told apart is no harm as such.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from modelyard.errors import MissingDependency
from modelyard.registry.records import stamp
from modelyard.schema import Array
from modelyard.statistics.special import normal_sf

#: Rows of each side that are looked at, at most and at least.
MOST_ROWS, LEAST_ROWS = 20_000, 200
_ROUNDS = 5


def compare(segments: Path, model: str, version: str, hours: float = 24.0, seed: int = 0) -> dict[str, Any]:
    """How well new rows can be told from old ones, and by which inputs; ``lacking`` says what is missing for that.

    ``segments``: the folder of recorded predictions. Raises MissingDependency without scikit-learn or pyarrow.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
        from sklearn.ensemble import HistGradientBoostingClassifier
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types
    except ImportError as error:
        raise MissingDependency.extra(error.name or "scikit-learn", "train", "comparing all inputs together") from None
    folder = segments / f"model={quote(model, safe='')}" / f"version={quote(version or '0', safe='')}"
    tables = [table for file in sorted(folder.glob("*.parquet")) if (table := _kept(file)) is not None]
    # What is kept of an input may have changed, from its values to their hashes: then it cannot be compared.
    types = [{field.name: field.type for field in table.schema} for table in tables]
    inputs = [name for name in (types[-1] if types else ()) if name.startswith("in.") and _is_one(name, types)]
    if not inputs:
        return {"lacking": f"no inputs of {model}:{version} are recorded in {segments}: it takes those of single rows"}
    frame = pa.concat_tables([table.select(["request_id", "time", *inputs]) for table in tables]).to_pandas()
    border = np.datetime64(stamp(dt.datetime.now(dt.UTC) - dt.timedelta(hours=hours)).rstrip("Z"))
    is_new = frame["time"].to_numpy() > border
    counts = {"new": int(is_new.sum()), "old": int((~is_new).sum())}
    if min(counts.values()) < LEAST_ROWS:
        return {
            "lacking": f"{counts['new']:,} recorded rows of the last {hours:g} hours and {counts['old']:,} before: it "
            f"takes {LEAST_ROWS} of each"
        }
    rng = np.random.default_rng(seed)
    chosen = np.concatenate([
        rng.choice(np.flatnonzero(side), min(int(side.sum()), MOST_ROWS), replace=False) for side in (is_new, ~is_new)
    ])  # fmt: skip
    matrix = np.column_stack([_codes(frame[name].to_numpy()) for name in inputs])[chosen]
    labels, requests = is_new[chosen], frame["request_id"].to_numpy()[chosen]
    # Rows of one request are alike: they are all learnt from, or all judged.
    half = {request: bool(rng.integers(2)) for request in dict.fromkeys(requests.tolist())}
    learns = np.array([half[request] for request in requests.tolist()])
    with threadpool_limits(1):  # as in training: the same result whatever the number of cores, and sooner on few
        learnt = HistGradientBoostingClassifier(max_iter=60, random_state=seed).fit(matrix[learns], labels[learns])
        return _told(learnt, matrix[~learns], labels[~learns], [name[3:] for name in inputs], hours, rng)


def _kept(file: Path) -> Any:
    """The rows of a file whose inputs are kept, times without their zone; None where it is damaged, or gone."""
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(file) as opened:
            names = [name for name in opened.schema_arrow.names if name.startswith("in.")]
            table = opened.read(columns=["request_id", "time", "kept", *names])
    except (OSError, pa.ArrowInvalid):
        return None
    table = table.filter(pa.compute.is_valid(table["kept"]))
    place = table.schema.get_field_index("time")
    return table.set_column(place, "time", table["time"].cast(pa.timestamp("us")))


def _is_one(name: str, types: Sequence[Mapping[str, Any]]) -> bool:
    return all(each.get(name) == types[-1][name] for each in types)


def _told(
    classifier: Any, matrix: Array, labels: Array, inputs: Sequence[str], hours: float, rng: np.random.Generator
) -> dict[str, Any]:
    found = auc(classifier.predict_proba(matrix)[:, 1], labels)
    new, old = int(labels.sum()), int((~labels).sum())
    error = np.sqrt((new + old + 1) / (12 * new * old))  # of an AUC of 1/2 (Mann and Whitney 1947)
    p = normal_sf((found - 0.5) / error)
    worse = {}
    for column, name in enumerate(inputs):
        drops = []
        for _ in range(_ROUNDS):
            shuffled = matrix.copy()
            shuffled[:, column] = rng.permutation(shuffled[:, column])
            drops.append(found - auc(classifier.predict_proba(shuffled)[:, 1], labels))
        worse[name] = float(np.mean(drops))
    ranked = dict(sorted(worse.items(), key=lambda item: -item[1])[:20])
    reach = 1.96 * float(error)
    told = (
        f"A classifier tells rows of the last {hours:g} hours from those before with AUC {found:.3f} "
        f"({found - reach:.3f} to {found + reach:.3f}; 0.5 is guessing), judged on {new:,} new and {old:,} old rows "
        f"(p = {p:.2g})."
    )
    return {"auc": float(found), "p": float(p), "new": new, "old": old, "inputs": ranked, "told": told}


def auc(scores: Array, labels: Array) -> float:
    """The chance that a labelled row has a higher score than one that is not, ties for half."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    new, old = int(labels.sum()), int((~labels).sum())
    return float((ranks[labels].sum() - new * (new + 1) / 2) / (new * old))


def _codes(values: Array) -> Array:
    """Numbers as they are; texts as the order in which they first come."""
    if values.dtype.kind in "biuf":
        return values.astype("float64")
    if values.dtype.kind in "mM":
        return values.astype("int64").astype("float64")
    known: dict[Any, int] = {}
    codes = [
        np.nan if value is None or value != value else float(known.setdefault(str(value), len(known)))
        for value in values.tolist()
    ]
    return np.array(codes)
