"""The demo's data: tumours to train on, and tumours that are held back for questions and traffic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

MODEL, TARGET = "tumours", "diagnosis"

#: One row of so many is held back.
_HELD_BACK = 3


class Tumours(NamedTuple):
    """The table on disk, and the rows that are not in it."""

    table: Path
    held_back: pd.DataFrame

    @property
    def questions(self) -> list[dict[str, Any]]:
        """Five of the rows that are not in the table."""
        rows: Any = self.held_back.iloc[[20, 60, 110, 130, 175]].to_dict(orient="records")
        return list(rows)


def write(folder: Path, name: str = f"{MODEL}.csv", *, swapped: bool = False) -> Tumours:
    """Write the table to train on. ``swapped``: with each diagnosis in the place of the other.

    Every third row is held back, in the order of the tumours' sizes: so both parts are alike.
    """
    from modelyard.errors import MissingDependency

    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        raise MissingDependency.extra("scikit-learn", "train", "the demo") from None
    data = load_breast_cancer(as_frame=True)
    rows = data.data.rename(columns=lambda name: name.replace(" ", "_"))
    rows[TARGET] = data.target.map({0: "malignant", 1: "benign"})
    held_back = rows.sort_values([TARGET, "worst_area"]).iloc[1::_HELD_BACK]
    kept = rows.drop(index=held_back.index)
    if swapped:
        kept[TARGET] = kept[TARGET].map({"malignant": "benign", "benign": "malignant"})
    folder.mkdir(parents=True, exist_ok=True)
    kept.to_csv(folder / name, index=False)
    return Tumours(folder / name, held_back)
