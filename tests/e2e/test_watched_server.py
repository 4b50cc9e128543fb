"""From a request to an alert: a served model whose inputs change their unit is told of by the process beside it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from commands import Place, environment, type_in
from modelyard.registry import Registry
from receivers import Receiver, receiving, waited

#: A window a second, and a look as soon as it has 200 rows: nobody waits minutes for a test.
QUICK = {"MODELYARD_WINDOW_SECONDS": "1", "MODELYARD_PORT": "0"}
RULES = ("drift.seconds=0.5", "drift.rows=200", "drift.ks=0.2")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def test_a_changed_unit_is_told_while_the_model_serves(place: Place, receiver: Receiver) -> None:
    home, folder = place
    sinks = ("sinks.ops.kind=webhook", f"sinks.ops.url={receiver.url}/hook", "alerts.all.sinks=log,ops")
    done = type_in(home, folder, "monitor", "rules", *(word for rule in (*RULES, *sinks) for word in ("--set", rule)))
    assert done.code == 0, done.err
    command = [sys.executable, "-m", "modelyard", "serve", "line", "--record", "--json"]
    given = environment(home) | QUICK
    server = subprocess.Popen(command, cwd=folder, env=given, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        traffic = Traffic(url)
        assert waited(lambda: traffic.sent > 40 and not traffic.error), traffic.error
        traffic.factor = 1000.0
        assert waited(lambda: receiver.got)
    finally:
        traffic.stop()
        server.terminate()
        server.communicate(timeout=120)
    told = json.loads(receiver.got[0][2])["alert"]
    assert told["title"].startswith("line:1: x1 looks like another unit: times 1000")
    assert "live against 60 reference" in told["text"]
    registry = Registry.open(home)
    found = {finding.subject: finding for finding in registry.findings.find("line")}
    assert found["x1"].kind == "unit"
    assert found["x1"].evidence.more["factor"] == 1000.0
    # the server went on all the while
    assert not traffic.error
    # and the process beside it ends with it, leaving the lease to others
    assert waited(lambda: registry.holder("control") == "")
    registry.close()


class Traffic:
    """Requests of twenty rows, one after the other, of which one input is multiplied by a factor."""

    def __init__(self, url: str) -> None:
        self.factor = 1.0
        self.sent = 0
        self.error = ""
        self._url = f"{url}/predict"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        rng = np.random.default_rng(1)
        while not self._stop.wait(0.02):
            rows: list[dict[str, Any]] = [
                {"x1": a * self.factor, "x2": b} for a, b in rng.normal(size=(20, 2)).tolist()
            ]
            try:
                with urllib.request.urlopen(self._url, json.dumps(rows).encode(), timeout=60) as answer:
                    answer.read()
            except OSError as error:
                self.error = str(error)
                return
            self.sent += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
