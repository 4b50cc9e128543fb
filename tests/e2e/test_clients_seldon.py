"""Seldon's own client, as it comes, against a running server, over REST and gRPC."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import interpreter
from modelyard.serving.server import Server
from yes_or_no import Source

SCRIPT = Path(__file__).parents[1] / "clients" / "seldon_client.py"

#: The probabilities of the two rows that the client sends.
ROWS = [[0.37754067, 0.62245933], [0.92414182, 0.07585818]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(["m"], source=Source, port=0, access_log="off", wires=["seldon", "native"]) as server:
        yield server


@pytest.fixture(scope="module")
def told(server: Server) -> Any:
    command = [str(interpreter("seldon")), str(SCRIPT), str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("names", ["plain", "named"])
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_data(told: Any, transport: str, names: str) -> None:
    data = told[f"{transport} tensor {names}"]["data"]
    assert data["names"] == ["no", "yes"] and data["tensor"]["shape"] == [2, 2]
    assert data["tensor"]["values"] == pytest.approx([cell for row in ROWS for cell in row])
    found = told[f"{transport} ndarray {names}"]["data"]["ndarray"]
    assert [pytest.approx(row) for row in ROWS] == found


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_other_calls(told: Any, transport: str) -> None:
    assert told[f"{transport} json"]["jsonData"]["predictions"][0]["prediction"] == "yes"
    assert [pytest.approx(row) for row in ROWS] == told[f"{transport} gateway"]["data"]["ndarray"]
    assert told[f"{transport} feedback"] is True
    wrong = told[f"{transport} wrong"]
    assert wrong.startswith("False") and "data.tensor.shape: expected [rows, 2] (x1, x2), got [2, 1]" in wrong


def test_through_a_gateway_that_leaves_its_prefix(told: Any) -> None:
    assert told["rest ambassador"]["data"]["tensor"]["shape"] == [2, 2]


def test_tensors_of_tensorflow(server: Server) -> None:
    command = [str(interpreter("tfs")), str(SCRIPT.with_name("tftensor_client.py")), str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
