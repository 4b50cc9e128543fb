"""Triton's clients, as they come, against a running server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import interpreter
from modelyard.errors import ModelFailed, NotFound
from modelyard.schema import Columns, Field, Signature
from modelyard.serving.server import Server
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle

SCRIPT = Path(__file__).parents[1] / "clients" / "triton_client.py"

SIGNATURE = Signature(
    inputs=(
        Field(name="x1", dtype="float64"), Field(name="x2", dtype="int64"), Field(name="city", dtype="string"),
    ),
    outputs=(
        Field(name="prediction", dtype="float64"),
        Field(name="probabilities", dtype="float64", shape=(2,), categories=("first", "second")),
        Field(name="label", dtype="string"),
    ),
)  # fmt: skip


def predict(columns: Columns) -> dict[str, Any]:
    """prediction = x1 + 10 x2 + 100 * letters of city"""
    letters = np.array([len(city) for city in columns["city"]])
    answer = columns["x1"] + 10 * columns["x2"] + 100 * letters
    labels = np.where(columns["x2"] % 2, "odd", "even").astype(object)
    return {"prediction": answer, "probabilities": np.stack([answer, -answer], axis=1), "label": labels}


class Broken(MemoryBundle):
    def check_golden(self, predict: Any) -> None:
        raise ModelFailed("golden rows differ in output: prediction")


class Source:
    """The models ``m`` and ``spare``, and one that cannot be loaded."""

    sample: dict[str, Any] = {"x1": [0.0], "x2": [1], "city": ["Rome"]}  # noqa: RUF012  # never changed
    bundles = {  # noqa: RUF012
        "m": MemoryBundle(SIGNATURE, predict, sample, digest="sha256:" + "1" * 64),
        "spare": MemoryBundle(SIGNATURE, predict, sample, digest="sha256:" + "2" * 64),
        "broken": Broken(SIGNATURE, predict, sample, digest="sha256:" + "3" * 64),
    }

    def marker(self) -> int:
        return 0

    def forget(self, reference: str) -> None: ...

    def resolve(self, reference: str) -> Wanted:
        bundle = self.bundles.get(reference)
        if bundle is None:
            raise NotFound.among("model", reference, self.bundles)
        return Wanted(model=reference, version="1", digest=bundle.digest, aliases=(), open=lambda: bundle)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(["m"], source=Source, port=0, access_log="off", control=True, wires=["oip"]) as server:
        yield server


@pytest.mark.parametrize("case", ["http", "http_loop", "grpc", "grpc_loop", "stream", "repository"])
def test_triton(server: Server, case: str) -> None:
    done = subprocess.run(
        [str(interpreter("triton")), str(SCRIPT), str(server.port), case], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
