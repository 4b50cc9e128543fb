"""Versions on the wire: a real registry, real ONNX models, a server that is told what to serve while it serves."""

from __future__ import annotations

import gc
import http.client
import json
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from modelyard.bundle import Bundle, pack
from modelyard.errors import BadBundle, NotFound, Refused
from modelyard.registry import Registry
from modelyard.serving.server import Server
from receivers import until

RNG = np.random.default_rng(11)
FRAME = pd.DataFrame({"x1": RNG.normal(size=80), "x2": RNG.normal(size=80)})
ROW = {"x1": 0.5, "x2": 0.25}


def line(folder: Path, scale: float) -> Bundle:
    """prediction = scale * (x1 + 2 x2 + 1): for ROW, 2 * scale"""
    return pack(LinearRegression().fit(FRAME, scale * (FRAME.x1 + 2 * FRAME.x2 + 1)), folder, sample=FRAME)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Models that tell by their answer which they are: the first says 2, the second 4 ..."""
    folder = tmp_path_factory.mktemp("lines")
    return [line(folder / str(number), number) for number in (1, 2, 3)]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "home")


@pytest.fixture
def serve(registry: Registry) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*references: str, **options: Any) -> Server:
        options = {"port": 0, "poll_seconds": 0.05, "access_log": "off", "control": True, **options}
        started.append(Server(references, registry=registry, **options).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


def ask(server: Server, path: str = "/predict", body: Any = ROW) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("POST" if body is not None else "GET", path, body and json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text[:1] in (b"{", b"[") else text.decode()
    finally:
        connection.close()


def prediction(server: Server, path: str) -> float:
    status, answer = ask(server, path)
    assert status == 200, answer
    return round(answer["prediction"], 6)


def versions(server: Server) -> list[str]:
    return [loaded.version for loaded in server.catalog.models()]


def test_the_newest_two_are_served_and_the_third_goes(
    registry: Registry, serve: Callable[..., Server], lines: list[Bundle]
) -> None:
    for bundle in lines[:2]:
        registry.register(bundle, "line")
    server = serve("line:latest-2")
    assert versions(server) == ["2", "1"]
    assert prediction(server, "/models/line/versions/1/predict") == 2.0
    registry.register(lines[2], "line")
    until(lambda: versions(server) == ["3", "2"])
    assert prediction(server, "/models/line/versions/3/predict") == 6.0
    assert prediction(server, "/models/line/versions/2/predict") == 4.0
    assert ask(server, "/models/line/versions/1/predict")[0] == 404
    fates = {"3": "ready", "2": "ready", "1": "unloaded"}
    until(lambda: {state.version: state.state for state in server.catalog.states()} == fates)


def test_a_reference_that_is_no_policy_does_not_start(registry: Registry, lines: list[Bundle]) -> None:
    registry.register(lines[0], "line")
    with pytest.raises(Exception, match=r"latest-2 \(the newest two\)"):
        Server(["line:newest"], registry=registry, port=0).start()
    with pytest.raises(NotFound, match="no such model: lime"):
        Server(["lime:latest"], registry=registry, port=0).start()


def test_models_come_and_go_while_it_serves(
    registry: Registry, serve: Callable[..., Server], lines: list[Bundle], tmp_path: Path
) -> None:
    registry.register(lines[0], "line")
    registry.register(lines[1], "other")
    server = serve("line")
    server.catalog.load("other")
    assert prediction(server, "/models/other/predict") == 4.0
    server.catalog.load(f"third={lines[2].folder}")
    assert prediction(server, "/models/third/predict") == 6.0
    server.catalog.unload("line")
    assert ask(server, "/models/line/predict")[0] == 404
    assert ask(server, "/health/ready", None)[0] == 200
    damaged = tmp_path / "damaged"
    lines[0].write_file(tmp_path / "line.zip")
    shutil.copytree(lines[0].folder, damaged)
    graph = damaged / "model" / "model.onnx"
    graph.chmod(0o644)
    graph.write_bytes(b"garbage")
    before = server.catalog.table
    with pytest.raises(BadBundle):
        server.catalog.load(f"damaged={damaged}")
    assert server.catalog.table is before
    server.catalog.replace(["line", f"zipped={tmp_path / 'line.zip'}"])
    assert prediction(server, "/models/zipped/predict") == prediction(server, "/models/line/predict") == 2.0
    assert ask(server, "/models/other/predict")[0] == 404


def test_clients_change_nothing_where_they_may_not(
    registry: Registry, serve: Callable[..., Server], lines: list[Bundle]
) -> None:
    registry.register(lines[0], "line")
    server = serve("line", control=False)
    with pytest.raises(Refused, match="clients may not choose"):
        server.catalog.unload("line")
    assert prediction(server, "/predict") == 2.0


def test_a_failed_promotion_is_told_and_the_alias_is_no_longer_listed(
    registry: Registry, serve: Callable[..., Server], lines: list[Bundle], tmp_path: Path
) -> None:
    registry.register(lines[0], "line")
    registry.register(lines[1], "line")
    server = serve("line@production")
    graph = (lines[1].folder / "model" / "model.onnx").read_bytes()
    (blob,) = [path for path in tmp_path.rglob("*") if path.is_file() and graph in path.read_bytes()]
    blob.chmod(0o644)
    blob.write_bytes(b"garbage")
    registry.promote("line", 2)
    until(lambda: bool(server.catalog.faults()))
    status, told = ask(server, "/health/ready", None)
    assert status == 200
    assert told["models"] == [
        {"name": "line", "version": "1", "aliases": [], "digest": lines[0].digest},
    ]
    assert "version 1 goes on serving" in told["faults"]["line@production"]
    assert prediction(server, "/models/line/aliases/production/predict") == 2.0


def test_nobody_is_dropped_and_nobody_misled_by_changes(
    registry: Registry, serve: Callable[..., Server], lines: list[Bundle]
) -> None:
    for bundle in lines[:2]:
        registry.register(bundle, "line")
    server = serve("line@production", "line:2")
    answers: list[tuple[int, Any]] = []
    stop = threading.Event()

    def keep_asking() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while not stop.is_set():
            connection.request("POST", "/models/line/aliases/production/predict", json.dumps(ROW))
            answer = connection.getresponse()
            answers.append((answer.status, json.loads(answer.read()).get("prediction")))
        connection.close()

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(10):
        registry.promote("line", 2 - turn % 2)
        server.catalog.load("line")
        if turn % 3 == 0:
            server.catalog.replace(["line@production"])
        else:
            server.catalog.load("line:2")
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200}
    assert {round(value, 6) for _, value in answers} == {2.0, 4.0}


def test_an_unloaded_model_gives_its_memory_back(
    registry: Registry, serve: Callable[..., Server], lines: list[Bundle], tmp_path: Path
) -> None:
    model = HistGradientBoostingRegressor(max_iter=60, early_stopping=False).fit(FRAME, FRAME.x1)
    registry.register(pack(model, tmp_path / "trees", sample=FRAME), "trees")
    registry.register(lines[0], "line")
    server = serve("line", "trees")
    for _ in range(20):
        assert ask(server, "/models/trees/predict")[0] == 200
    assert ask(server, "/models/trees/predict", [ROW] * 300)[0] == 200
    page = ask(server, "/metrics", None)[1]
    (told,) = [text for text in page.splitlines() if text.startswith('modelyard_model_memory_bytes{model="trees"')]
    size = server.catalog.stats(server.catalog.find("trees", None, None)).memory
    assert size and float(told.split()[-1]) == size
    idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for headers in ({}, {"x-other": "1"}):  # the head that is not remembered last
        idle.request("POST", "/models/trees/predict", json.dumps(ROW), headers)
        assert idle.getresponse().read()
    gc.collect()
    gc.disable()  # it must not take the collector, which a server lets run rarely
    try:
        held = weakref.ref(server.catalog.find("trees", None, None).predict)
        server.catalog.unload("trees")
        assert held() is None
    finally:
        gc.enable()
        idle.close()
    assert 'modelyard_model_memory_bytes{model="trees"' not in ask(server, "/metrics", None)[1]
