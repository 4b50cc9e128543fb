"""MLServer's stubs, with typed and raw contents, and its own service for the repository, against a running server."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from clients import interpreter
from modelyard.errors import NotFound
from modelyard.schema import Columns, Field, Signature
from modelyard.serving.server import Server
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle

SCRIPT = Path(__file__).parents[1] / "clients" / "mlserver_client.py"

SIGNATURE = Signature(
    inputs=(
        Field(name="x1", dtype="float64"), Field(name="x2", dtype="int64"), Field(name="city", dtype="string"),
    ),
    outputs=(Field(name="prediction", dtype="float64"), Field(name="pair", dtype="float64", shape=(2,))),
)  # fmt: skip


def predict(columns: Columns) -> dict[str, Any]:
    """prediction = x1 + 10 x2 + 100 * letters of city"""
    answer = columns["x1"] + 10 * columns["x2"] + 100 * np.array([len(city) for city in columns["city"]])
    return {"prediction": answer, "pair": np.stack([answer, -answer], axis=1)}


class Source:
    bundle = MemoryBundle(SIGNATURE, predict, {"x1": [0.0], "x2": [1], "city": ["Rome"]})

    def marker(self) -> int:
        return 0

    def forget(self, reference: str) -> None: ...

    def resolve(self, reference: str) -> Wanted:
        if reference not in ("m", "spare"):
            raise NotFound.among("model", reference, ["m", "spare"])
        bundle = self.bundle
        return Wanted(model=reference, version="1", digest=bundle.digest, aliases=(), open=lambda: bundle)


def test_mlserver() -> None:
    python = interpreter("mlserver")
    with Server(["m"], source=Source, port=0, access_log="off", control=True, wires=["oip"]) as server:
        done = subprocess.run([str(python), str(SCRIPT), str(server.port)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
