"""KServe's clients, as they come, against a running server: its first protocol, its second, and gRPC."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import interpreter
from modelyard.schema import Columns, Field, Signature
from modelyard.serving.server import Server
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle

SCRIPT = Path(__file__).parents[1] / "clients" / "kserve_client.py"

SIGNATURE = Signature(
    inputs=(
        Field(name="x1", dtype="float64"), Field(name="x2", dtype="int64"), Field(name="city", dtype="string"),
    ),
    outputs=(
        Field(name="prediction", dtype="float64"),
        Field(name="probabilities", dtype="float64", shape=(2,), categories=("first", "second")),
    ),
)  # fmt: skip


def predict(columns: Columns) -> dict[str, Any]:
    """prediction = x1 + 10 x2 + 100 * letters of city"""
    answer = columns["x1"] + 10 * columns["x2"] + 100 * np.array([len(city) for city in columns["city"]])
    return {"prediction": answer, "probabilities": np.stack([answer, -answer], axis=1)}


class Source:
    bundle = MemoryBundle(SIGNATURE, predict, {"x1": [0.0], "x2": [1], "city": ["Rome"]})

    def marker(self) -> int:
        return 0

    def forget(self, reference: str) -> None: ...

    def resolve(self, reference: str) -> Wanted:
        bundle = self.bundle
        return Wanted(model="m", version="1", digest=bundle.digest, aliases=(), open=lambda: bundle)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(["m"], source=Source, port=0, access_log="off", wires=["kserve", "oip"]) as server:
        yield server


def test_kserve(server: Server) -> None:
    command = [str(interpreter("kserve")), str(SCRIPT), str(server.port)]  # once: the client takes seconds to import
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
