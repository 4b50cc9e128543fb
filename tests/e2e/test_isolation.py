"""A server with models in processes of their own: what one does wrong, its neighbours and its callers hardly notice."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="models are packed")

from sklearn.linear_model import LinearRegression

import faulty
from modelyard.bundle import Bundle, Trust, pack
from modelyard.serving.isolation import remote
from modelyard.serving.server import Server
from receivers import until


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a replacement takes to start, here it is waited for."""
    monkeypatch.setattr(remote, "PATIENCE", 120.0)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    made = np.random.default_rng(0)
    rows = {"x1": made.normal(size=50), "x2": made.normal(size=50)}
    line = LinearRegression().fit(np.column_stack(list(rows.values())), rows["x1"] + 2 * rows["x2"])
    orders = {"order": np.zeros(20), "value": np.arange(20.0)}
    return {
        "faulty": pack(faulty.Faulty().fit(), folder / "faulty", sample=orders),
        "line": pack(line, folder / "line", sample=rows),
        "kept": pack(line, folder / "kept", sample=rows, convert=False),
    }


@pytest.fixture(scope="module")
def server(bundles: dict[str, Bundle]) -> Iterator[Server]:
    trust = Trust.of(bundles["faulty"].digest)
    names = [str(bundle.path) for bundle in bundles.values()]
    with Server(names, trust=trust, port=0, model_seconds=3.0, log_stream=io.StringIO()) as running:
        yield running


def ask(server: Server, model: str, body: Any, method: str = "POST", path: str = "predict") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        target = f"/models/{model}/{path}" if model else path
        connection.request(method, target, json.dumps(body) if method == "POST" else None)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def predict(server: Server, order: int, value: float = 1.0) -> tuple[int, Any]:
    return ask(server, "faulty", {"order": order, "value": value})


def is_ready(server: Server) -> bool:
    return ask(server, "", None, "GET", "/health/ready")[0] == 200


def remote_of(server: Server, model: str) -> Any:
    return server.catalog.find(model, None, None).remote


def process_of(server: Server, model: str) -> int:
    (process,) = remote_of(server, model).processes
    return int(process)


def test_only_models_that_need_python_have_processes(server: Server) -> None:
    assert remote_of(server, "line") is None
    assert {process_of(server, name) for name in ("faulty", "kept")} & {os.getpid()} == set()
    assert process_of(server, "faulty") != process_of(server, "kept")
    expected = ask(server, "line", {"x1": 1.0, "x2": 2.0})
    assert expected[0] == 200
    assert ask(server, "kept", {"x1": 1.0, "x2": 2.0})[1]["prediction"] == pytest.approx(expected[1]["prediction"])


@pytest.mark.parametrize(
    ("order", "status", "message"),
    [
        (faulty.RAISES, 500, "these rows are not to my taste"),
        (faulty.SHORT, 500, "shape [0]: expected [1]"),
        (faulty.LEAVES, 500, "SystemExit: 4"),
        (faulty.HANGS, 500, "did not answer within 3 s"),
        (faulty.EXITS, 500, "the model's process ended under this call, and so did its replacement"),
        (faulty.SEGFAULTS, 500, "the model's process ended under this call, and so did its replacement"),
    ],
    ids=["raises", "too few rows", "sys.exit", "hangs", "os._exit", "segfault"],
)
def test_a_fault_is_told_and_neighbours_answer_meanwhile(server: Server, order: int, status: int, message: str) -> None:
    until(lambda: is_ready(server))
    neighbour = process_of(server, "kept")
    told: list[tuple[int, Any]] = []
    caller = threading.Thread(target=lambda: told.append(predict(server, order)))
    caller.start()
    while caller.is_alive():
        for model in ("line", "kept"):
            assert ask(server, model, {"x1": 1.0, "x2": 2.0})[0] == 200
        time.sleep(0.02)
    assert told[0][0] == status
    assert message in json.dumps(told[0][1])
    until(lambda: is_ready(server))
    assert predict(server, faulty.FINE)[0] == 200
    assert process_of(server, "kept") == neighbour


def pipelined(line: socket.socket, orders: list[int]) -> None:
    """Requests that arrive in one moment, and so become one call."""
    bodies = [json.dumps({"order": order, "value": float(value)}).encode() for value, order in enumerate(orders)]
    head = b"POST /models/faulty/predict HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b"
    line.sendall(b"".join(head % (len(body), body) for body in bodies))


def answers(line: socket.socket, count: int) -> list[Any]:
    """For each the prediction, or else the code of the error."""
    found = []
    with line.makefile("rb") as stream:
        for _ in range(count):
            size = 0
            while (text := stream.readline()) not in (b"\r\n", b""):
                if text.startswith(b"content-length:"):
                    size = int(text.partition(b":")[2])
            told = json.loads(stream.read(size))
            found.append(told["error"]["code"] if "error" in told else told["prediction"])
    return found


@pytest.mark.parametrize(
    ("order", "place"), [(faulty.EXITS, 0), (faulty.KILLED, 11), (faulty.HANGS, 5), (faulty.EATS, 0)]
)
def test_a_request_that_ends_its_process_costs_its_neighbours_nothing(
    bundles: dict[str, Bundle], order: int, place: int
) -> None:
    said, bundle = io.StringIO(), bundles["faulty"]
    options: dict[str, Any] = {"port": 0, "model_seconds": 3.0 if order == faulty.HANGS else 60.0, "log_stream": said}
    if order == faulty.EATS:
        options["memory"] = 1 << 30
    orders = [faulty.FINE] * 12
    orders[place] = order
    expected: list[Any] = [2.0 * value for value in range(12)]
    expected[place] = "model_failed"
    with (
        Server([str(bundle.path)], trust=Trust.of(bundle.digest), **options) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as line,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as late,
    ):
        pipelined(line, orders)
        lanes = server.application._lanes
        until(lambda: any(lane._running or lane.history.reasons for lane in lanes.values()))
        pipelined(late, [faulty.FINE] * 3)  # these wait behind them
        assert answers(line, 12) == expected
        assert answers(late, 3) == [0.0, 2.0, 4.0]
        fatal = server.metrics.meter("faulty", "").fatal
        server.log.flush()
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    assert sum(line["event"] == "model process ended" for line in lines) == 2  # with the others, and alone
    (failed,) = [line["request_id"] for line in lines if line["event"] == "model failed"]
    if order != faulty.EATS:  # which told what was wrong before it ended
        (suspected,) = [line for line in lines if line["event"].startswith("a model process ended under several")]
        assert (fatal, suspected["requests"], failed in suspected["request_ids"]) == (1, 12, True)


def test_gaps_in_an_answer_are_null(server: Server) -> None:
    assert predict(server, faulty.NAN)[1]["prediction"] is None


def test_readiness_is_false_while_a_model_has_no_process(server: Server) -> None:
    until(lambda: is_ready(server))
    os.kill(process_of(server, "kept"), signal.SIGKILL)
    until(lambda: not is_ready(server))
    status, told = ask(server, "kept", {"x1": 1.0, "x2": 2.0})
    assert status == 200 or (status, told["error"]["code"]) == (503, "not_ready")  # 200 where it is quick
    assert ask(server, "line", {"x1": 1.0, "x2": 2.0})[0] == 200
    until(lambda: is_ready(server))
    assert ask(server, "kept", {"x1": 1.0, "x2": 2.0})[0] == 200


def test_each_request_is_answered_while_its_process_is_killed(server: Server) -> None:
    until(lambda: is_ready(server))
    answers: Counter[int] = Counter()
    wrong: list[Any] = []
    stopping = threading.Event()
    sent = [0] * 8

    def caller(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while not stopping.is_set():
            body = json.dumps({"order": faulty.SLOW, "value": float(number)})
            connection.request("POST", "/models/faulty/predict", body)
            sent[number] += 1
            answer = connection.getresponse()
            told = json.loads(answer.read())
            answers[answer.status] += 1
            if answer.status == 503:
                time.sleep(0.05)  # leave the machine to the replacement
            elif answer.status == 500:  # a call under way at both kills is told so
                if "ended under this call, and so did its replacement" not in told["error"]["message"]:
                    wrong.append(told)
            elif told["prediction"] != 2.0 * number:
                wrong.append(told)
        connection.close()

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in callers:
        thread.start()
    for _ in range(2):
        before = answers[200]
        until(lambda before=before: answers[200] > before + 8)  # type: ignore[misc]
        process = process_of(server, "faulty")
        os.kill(process, signal.SIGKILL)
        until(lambda gone=process: not Path(f"/proc/{gone}").exists())
        until(lambda: remote_of(server, "faulty").is_alive)
    before = answers[200]
    until(lambda: answers[200] > before)
    stopping.set()
    for thread in callers:
        thread.join()
    assert not wrong
    assert answers.total() == sum(sent)
    assert answers[200] > 8
    assert set(answers) <= {200, 500, 503}


def test_unloading_ends_the_process(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    bundle = bundles["kept"]
    with Server([str(bundle.path)], port=0, control=True, log_stream=io.StringIO()) as server:
        process = process_of(server, "kept")
        assert server.catalog.stats(server.catalog.find("kept", None, None)).memory
        server.catalog.unload("kept")
        until(lambda: not Path(f"/proc/{process}").exists())


def test_all_and_off(bundles: dict[str, Bundle]) -> None:
    for mode, line, kept in (("all", True, True), ("off", False, False)):
        names = [str(bundles[name].path) for name in ("line", "kept")]
        with Server(names, port=0, isolation=mode, log_stream=io.StringIO()) as server:
            assert (remote_of(server, "line") is not None, remote_of(server, "kept") is not None) == (line, kept)
            assert ask(server, "line", {"x1": 1.0, "x2": 2.0})[0] == 200


def test_workers_share_the_processes_of_a_model(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    words = [sys.executable, "-m", "modelyard", "serve", str(bundles["kept"].path), "--port", "0", "--workers", "2"]
    with subprocess.Popen([*words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            port = int(json.loads(serving.stdout.readline())["url"].rpartition(":")[2])
            connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(8)]
            for connection in connections:
                connection.request("POST", "/models/kept/predict", json.dumps({"x1": 1.0, "x2": 2.0}))
                assert json.loads(connection.getresponse().read())["prediction"] == pytest.approx(5.0)
                connection.close()
        finally:
            serving.terminate()
            said = serving.communicate(timeout=120)[1]
    events = [json.loads(line) for line in said.splitlines()]
    assert sum(event["event"] == "model process ready" for event in events) == 1
    (process,) = [event["process"] for event in events if event["event"] == "model process ready"]
    assert {event.get("worker") for event in events if event["event"] == "model loaded"} == {0, 1}
    until(lambda: not Path(f"/proc/{process}").exists())
