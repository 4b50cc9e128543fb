"""MLflow's scoring client, as it comes, against a running server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import interpreter
from modelyard import __version__
from modelyard.serving.server import Server
from yes_or_no import Source

SCRIPT = Path(__file__).parents[1] / "clients" / "mlflow_client.py"


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
