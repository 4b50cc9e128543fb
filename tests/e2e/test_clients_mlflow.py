"""MLflow's scoring client, as it comes, against a running server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import interpreter
from modelyard import __version__
from modelyard.errors import NotFound
from modelyard.schema import Columns, Field, Signature
from modelyard.serving.server import Server
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle

SCRIPT = Path(__file__).parents[1] / "clients" / "mlflow_client.py"

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


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(["m"], source=Source, port=0, access_log="off", wires=["mlflow", "native"]) as server:
        yield server


def test_the_scoring_client(server: Server) -> None:
    command = [str(interpreter("mlflow")), str(SCRIPT), str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    for name in ("frame", "reordered", "matrix", "list", "params", "csv"):
        assert told[name] == ["yes", "no", "no"], name
    assert told["text"] == ["no"] and told["many"] == 3000 and told["version"] == __version__
    assert "error code 400" in told["missing"] and "the column x2, got none of that name" in told["missing"]
    assert "BAD_REQUEST" in told["missing"]
    assert "dataframe_split.data[0][0]: expected a number (float64), got null" in told["gap"]
