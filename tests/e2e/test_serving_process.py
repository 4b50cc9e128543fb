"""A server as a process of its own: what it loads, how it stops, what a second one on its port is told."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from modelyard.bundle import pack
from receivers import until

PROGRAM = """
import sys, json
from modelyard.errors import ModelyardError
from modelyard.serving.server import serve

def told(server):
    heavy = [name for name in ("sklearn", "pandas", "scipy", "onnx", "pyarrow", "matplotlib") if name in sys.modules]
    print(json.dumps({"port": server.port, "heavy": heavy}), flush=True)

try:
    serve([sys.argv[1]], port=int(sys.argv[2]), on_ready=told, drain_seconds=10)
except ModelyardError as error:
    print(error, file=sys.stderr)
    sys.exit(4)
"""
ROW = {"x1": 1.5, "x2": 2.0}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process") / "line"
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x1": rng.normal(size=50), "x2": rng.normal(size=50)})
    pack(LinearRegression().fit(frame, frame.x1 + 2 * frame.x2 + 1), folder, sample=dict(frame.items()))
    return folder


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(bundle: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(port: int = 0) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(bundle), str(port)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    told: dict[str, Any] = json.loads(line)
    return told


def ask(port: int) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/predict", json.dumps(ROW))
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    return answer.status, told


def test_a_server_of_an_onnx_bundle_loads_no_training_library(start: Start) -> None:
    process = start()
    told = ready(process)
    assert told["heavy"] == []
    status, answer = ask(told["port"])
    assert (status, answer["prediction"]) == (200, pytest.approx(6.5))
    if Path("/proc").is_dir():
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        assert "onnxruntime" in mapped
        assert not [name for name in ("/sklearn/", "/pandas/", "/scipy/", "/pyarrow/") if name in mapped]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told_to_and_loses_nothing(start: Start, number: int) -> None:
    process = start()
    port = ready(process)["port"]
    outcomes: list[str] = []
    asking: set[int] = set()

    def call() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            connection.request("POST", "/predict", json.dumps(ROW))
            answer = connection.getresponse()
            body = json.loads(answer.read())
            good = answer.status == 200 and abs(body["prediction"] - 6.5) < 1e-6
            outcomes.append("ok" if good else f"{answer.status}")
            asking.add(threading.get_ident())
            if answer.getheader("connection") == "close":
                outcomes.append("told to close")
                connection.close()
                return

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(asking) == 4)
    process.send_signal(number)
    for thread in threads:
        thread.join(120)
    assert process.wait(120) == 0
    assert set(outcomes) == {"ok", "told to close"}
    assert outcomes.count("told to close") == 4
    with pytest.raises(OSError):
        ask(port)
    assert process.stderr is not None
    lines = [json.loads(line) for line in process.stderr.read().splitlines()]
    assert [line["event"] for line in lines][-2:] == ["stopping", "stopped"]


def test_a_second_server_on_the_port_is_told_so_and_the_first_serves_on(start: Start) -> None:
    first = start()
    port = ready(first)["port"]
    second = start(port)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 4
    assert f"port {port}" in errors and "--port" in errors
    assert "Traceback" not in errors
    assert ask(port)[0] == 200


def test_the_port_is_free_again_at_once(start: Start) -> None:
    first = start()
    port = ready(first)["port"]
    ask(port)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(120) == 0
    second = start(port)
    assert ready(second)["port"] == port
    assert ask(port)[0] == 200
