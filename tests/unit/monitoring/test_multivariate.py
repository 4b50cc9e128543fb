"""A classifier tells whether columns go together otherwise than before, though each of them is as it was."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="a classifier learns")
pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from modelyard.monitoring.multivariate import auc, compare  # noqa: E402


def write(segments: Path, *, rows: int = 3_000, turned: bool = True, version: str = "5", kept: bool = True) -> None:
    """Rows of yesterday, in which x and y rise together, and of today, in which one falls if it is ``turned``."""
    rng = np.random.default_rng(1)
    folder = segments / "model=churn" / f"version={version}"
    folder.mkdir(parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    for name, age, sign in (("old", 30, 1), ("new", 1, -1 if turned else 1)):
        x = rng.normal(size=rows)
        table = pa.table({
            "request_id": [f"{name}-{i // 3}" for i in range(rows)],
            "time": pa.array([now - dt.timedelta(hours=age)] * rows, pa.timestamp("us", "UTC")),
            "kept": pa.array(["sample" if kept else None] * rows, pa.string()),
            "in.x": x, "in.y": sign * x + rng.normal(0, 0.5, rows), "in.city": rng.choice(["Bern", "Oslo"], rows),
        })  # fmt: skip
        pq.write_table(table, folder / f"20261130T120000-{name}.parquet")


def test_what_goes_together_otherwise_is_told_with_the_inputs(tmp_path: Path) -> None:
    write(tmp_path)
    found = compare(tmp_path, "churn", "5")
    assert found["auc"] > 0.8
    assert found["p"] < 1e-6
    assert set(list(found["inputs"])[:2]) == {"x", "y"}
    assert abs(found["inputs"]["city"]) < 0.02
    assert "AUC 0." in found["told"]


def test_rows_like_those_before_cannot_be_told_from_them(tmp_path: Path) -> None:
    write(tmp_path, turned=False)
    found = compare(tmp_path, "churn", "5")
    assert abs(found["auc"] - 0.5) < 0.05
    assert found["p"] > 0.001


@pytest.mark.parametrize(
    ("options", "lacking"),
    [
        ({"rows": 60}, "60 recorded rows of the last 24 hours and 60 before: it takes 200 of each"),
        ({"kept": False}, "0 recorded rows of the last 24 hours"),
        ({"version": "4"}, "no inputs of churn:5 are recorded in"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, options: dict[str, object], lacking: str) -> None:
    write(tmp_path, **options)  # type: ignore[arg-type]
    assert compare(tmp_path, "churn", "5")["lacking"].startswith(lacking)


def test_files_that_are_damaged_and_inputs_that_became_hashes_are_left_out(tmp_path: Path) -> None:
    write(tmp_path)
    (old, _) = sorted(tmp_path.rglob("*.parquet"), reverse=True)
    table = pq.read_table(old, partitioning=None)
    place = table.schema.get_field_index("in.city")
    pq.write_table(table.set_column(place, "in.city", pa.array(range(len(table)), pa.int64())), old)
    old.with_name("0.parquet").write_bytes(old.read_bytes()[:-50])
    found = compare(tmp_path, "churn", "5")
    assert found["auc"] > 0.8
    assert set(found["inputs"]) == {"x", "y"}


def test_auc_is_the_chance_of_a_higher_score() -> None:
    labels = np.array([True, True, False, False])
    assert auc(np.array([3.0, 2.0, 1.0, 0.0]), labels) == 1.0
    assert auc(np.array([1.0, 1.0, 1.0, 1.0]), labels) == 0.5
    assert auc(np.array([3.0, 0.0, 1.0, 2.0]), labels) == 0.5
