"""A model that says whether x1 is larger than x2, as a source that a server loads it from."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelyard.errors import NotFound
from modelyard.schema import Columns, Field, Signature
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle

SIGNATURE = Signature(
    inputs=(Field(name="x1", dtype="float64"), Field(name="x2", dtype="float64")),
    outputs=(
        Field(name="prediction", dtype="string", categories=("no", "yes")),
        Field(name="probabilities", dtype="float64", shape=(2,), categories=("no", "yes")),
    ),
)


def predict(columns: Columns) -> dict[str, Any]:
    """``yes`` where x1 is larger than x2."""
    yes = 1 / (1 + np.exp(columns["x2"] - columns["x1"]))
    labels = np.where(yes > 0.5, "yes", "no").astype(object)
    return {"prediction": labels, "probabilities": np.stack([1 - yes, yes], axis=1)}


class Source:
    """The model ``m``."""

    bundle = MemoryBundle(SIGNATURE, predict, {"x1": [0.0], "x2": [1.0]})

    def marker(self) -> int:
        return 0

    def versions(self, model: str) -> list[str]:
        return ["1"]

    def forget(self, reference: str) -> None: ...

    def resolve(self, reference: str) -> Wanted:
        if reference != "m":
            raise NotFound.among("model", reference, ["m"])
        return Wanted(model="m", version="1", digest=self.bundle.digest, aliases=(), open=lambda: self.bundle)
