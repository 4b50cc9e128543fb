"""`modelyard serve --record` through the command line: what is predicted is recorded and counted, and nothing of it is
lost when the server or the recorder is stopped or killed.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from commands import Done, Place, environment
from receivers import waited

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")


class Served:
    """A server in a process of its own."""

    def __init__(self, place: Place, *words: str) -> None:
        command = [sys.executable, "-m", "modelyard", "serve", "--port", "0", "--json", "--record", *words]
        self.process = subprocess.Popen(
            command, cwd=place.folder, env=environment(place.home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(json.loads(self.process.stdout.readline())["url"].rpartition(":")[2])

    def ask(self, count: int, body: Any = None) -> list[str]:
        """The ids of so many requests."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        ids = []
        for _ in range(count):
            connection.request("POST", "/predict", json.dumps(body or {"x1": 0.5, "x2": 0.25}))
            answer = connection.getresponse()
            answer.read()
            ids.append(answer.headers["x-request-id"])
        connection.close()
        return ids

    def end(self, how: int) -> None:
        self.process.send_signal(how)
        self.process.wait(120)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def serve(place: Place) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*words: str) -> Served:
        started.append(Served(place, *words))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.end(signal.SIGKILL)


def recorder(cli: Callable[..., Done]) -> int | None:
    found: int | None = cli("records", "status", "--json").json["recorder"]
    return found


def wait_until_kept(cli: Callable[..., Done]) -> None:
    """Until all rings are read and removed, and the process beside the server has ended, as it does then."""
    told: dict[str, Any] = {}

    def is_kept() -> bool:
        told.update(cli("records", "status", "--json").json)
        return bool(told["models"]) and not told["rings"] and told["recorder"] is None

    assert waited(is_kept), told


def query(cli: Callable[..., Done], sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli("records", "query", sql, "--json").json
    return found


def recorded(cli: Callable[..., Done]) -> set[str]:
    return {row["request_id"] for row in query(cli, "select request_id from predictions")}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_nothing_that_was_answered_is_lost(
    serve: Callable[..., Served], cli: Callable[..., Done], how: signal.Signals
) -> None:
    server = serve("line:1")
    ids = server.ask(300)
    server.end(how)
    wait_until_kept(cli)
    found = recorded(cli)
    # Answers are sent first and noted then: who is killed in between has not noted the last one.
    assert found in ([set(ids)] if how == signal.SIGTERM else [set(ids), set(ids[:-1])])
    (arm,) = cli("monitor", "line", "--json").json["arms"]
    assert (arm["requests"], arm["rows"], arm["lost"]) == (len(found), len(found), 0)


def test_a_recorder_that_is_killed_is_replaced_and_loses_nothing(
    serve: Callable[..., Served], cli: Callable[..., Done]
) -> None:
    server = serve("line:1")
    ids = server.ask(100)
    found: list[int | None] = []
    assert waited(lambda: found.append(recorder(cli)) or found[-1]), "no recorder was started"  # type: ignore[func-returns-value]
    first = found[-1]
    assert first is not None
    os.kill(first, signal.SIGKILL)
    ids += server.ask(100)
    assert waited(lambda: recorder(cli) not in (None, first)), "the recorder was not replaced"
    ids += server.ask(100)
    server.end(signal.SIGTERM)
    wait_until_kept(cli)
    assert recorded(cli) == set(ids)


def test_workers_are_recorded_together(serve: Callable[..., Served], cli: Callable[..., Done]) -> None:
    server = serve("line:1", "--workers", "2")
    with ThreadPoolExecutor(4) as callers:  # connections at the same time go to different workers
        ids = [request for asked in callers.map(server.ask, [200] * 4) for request in asked]
    server.end(signal.SIGTERM)
    wait_until_kept(cli)
    assert recorded(cli) == set(ids)
    assert query(cli, "select count(distinct worker) n from predictions") == [{"n": 2}]
