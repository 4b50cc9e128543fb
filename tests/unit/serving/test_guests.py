"""The application as a bare WSGI or ASGI app: forks, ends, bodies, prefixes, callers that leave."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faulty
import modelyard
from modelyard.bundle import Trust, pack
from modelyard.errors import RemoteFailed
from modelyard.schema import Field, Signature
from modelyard.serving import wsgi
from modelyard.serving.asgi import AsgiApp
from modelyard.serving.guests import id_of
from modelyard.serving.limits import is_request_id
from modelyard.serving.wsgi import WsgiApp
from modelyard.testing.memory import MemoryBundle
from receivers import until

from .conftest import INPUTS, MemorySource, classifier, linear

BODY = b'{"x1": 1.5, "x2": 2}'


def test_models_may_load_beside(source: MemorySource) -> None:
    source.add("m", classifier(), "production")
    app = WsgiApp(["m"], wait=False, source=lambda: source, access_log="off")
    try:
        said: list[bytes] = []

        def is_loaded() -> bool:
            said.append(post(app))
            assert said[-1][:3] in (b"200", b"503"), said[-1]
            return said[-1].startswith(b"200")

        until(is_loaded)
        assert b'"probabilities"' in said[-1]
    finally:
        app.stop()


def in_a_fork(function: Callable[[], bytes]) -> bytes:
    """What a function returns in a process that is forked from this one."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, function())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        said = told.read()
    os.waitpid(child, 0)
    return said


def post(app: WsgiApp, body: bytes = BODY) -> bytes:
    status, _, answer = app.answer("POST", "/predict", "", {}, lambda most: body)
    return b"%d %b" % (status, answer)


def test_a_fork_loads_anew(source: MemorySource) -> None:
    source.add("m", linear(), "production")
    app = WsgiApp(["m"], source=lambda: source, access_log="off")
    try:
        assert in_a_fork(lambda: post(app)).startswith(b'200 {"prediction":6.5')
        assert post(app).startswith(b"200")
    finally:
        app.stop()


def test_a_fork_leaves_the_model_processes_of_its_parent_alone(tmp_path: Path) -> None:
    bundle = pack(faulty.Faulty().fit(), tmp_path / "m", sample={"order": np.zeros(20), "value": np.arange(20.0)})
    app = WsgiApp([str(bundle.path)], trust=Trust((bundle.digest,)), isolation="auto", access_log="off")
    body = b'{"order": 0, "value": 4}'
    try:

        def child() -> bytes:
            said = post(app, body)
            app.stop()
            gc.collect()
            return said

        before = post(app, body)
        assert before.startswith(b'200 {"prediction":8')
        assert in_a_fork(child).startswith(b'200 {"prediction":8')
        (loaded,) = app._live().catalog.models()
        assert loaded.remote is not None and all(Path(socket).exists() for socket in loaded.remote.address.sockets)
        assert post(app, body).startswith(b"200")
        processes = loaded.remote.processes
    finally:
        app.stop()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_fork_that_cannot_load_says_so_and_tries_again_later(source: MemorySource) -> None:
    source.add("m", linear(), "production")
    tries: list[int] = []

    def opened() -> MemorySource:
        tries.append(os.getpid())
        return source

    app = WsgiApp(["m"], source=opened, access_log="off")
    try:

        def child() -> bytes:
            source.gone = RemoteFailed("the registry is away")
            first, again = post(app), post(app)
            source.gone, app._retry_at = None, 0.0
            return b"\n".join([first, again, post(app), b"%d" % tries.count(os.getpid()), app_threads()])

        def app_threads() -> bytes:
            return b"%d" % sum(thread.name == "modelyard-loop" for thread in threading.enumerate())

        first, again, later, count, threads = in_a_fork(child).split(b"\n")
    finally:
        app.stop()
    assert first.startswith(b"503") and b"the registry is away" in first
    assert again.startswith(b"503") and later.startswith(b"200")
    assert (count, threads) == (b"2", b"1")


def test_what_was_stopped_answers_no_more(source: MemorySource) -> None:
    source.add("m", linear(), "production")
    app = WsgiApp(["m"], source=lambda: source, access_log="off")
    app.stop()
    app.stop()
    assert post(app).startswith(b"503") and b"stopped" in post(app)


def test_reasons_are_not_told_in_production(source: MemorySource) -> None:
    async def ask() -> Any:
        app = AsgiApp(["secret-name"], source=lambda: source, access_log="off", production=True, log_stream=log)
        return await converse(app)

    log = io.StringIO()
    sent = asyncio.run(ask())
    assert sent[0]["status"] == 503 and b"secret-name" not in sent[1]["body"]
    assert "secret-name" in log.getvalue()


async def converse(app: Any, *coming: Any, **scope: Any) -> list[Any]:
    """What an ASGI app sends, when ``coming`` is what it receives: then nothing more."""
    sent: list[Any] = []
    waiting = list(coming or [{"type": "http.request", "body": BODY}])

    async def receive() -> Any:
        if waiting:
            return waiting.pop(0)
        return await asyncio.Future()

    async def send(message: Any) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b"", **scope}
    await app(whole, receive, send)
    return sent


@pytest.mark.parametrize(
    ("path", "root", "outer"),
    [
        ("/predict", "", None), ("/ml/predict", "/ml", ""), ("/ml/predict", "/ml/", None),
        ("/api/ml/predict", "/api/ml", "/api"), ("/ml/predict", "/api/ml", "/api"), ("/predict", "/api", None),
    ],
)  # fmt: skip
def test_the_path_below_a_root(source: MemorySource, path: str, root: str, outer: str | None) -> None:
    async def ask() -> Any:
        app = AsgiApp(["m"], source=lambda: source, access_log="off")
        sent = await converse(app, path=path, root_path=root, **({} if outer is None else {"app_root_path": outer}))
        app.stop()
        return sent

    source.add("m", linear(), "production")
    assert asyncio.run(ask())[0]["status"] == 200


def test_a_body_in_chunks_one_that_is_too_large_and_one_that_ends_early(source: MemorySource) -> None:
    async def ask() -> list[Any]:
        app = AsgiApp(["m"], source=lambda: source, access_log="off", max_body=100)
        part = {"type": "http.request", "more_body": True}
        chunks = [{**part, "body": BODY[:5]}, {**part, "body": b""}, {"type": "http.request", "body": BODY[5:]}]
        sent = [
            await converse(app, *chunks),
            await converse(app, {**part, "body": b" " * 101}),
            await converse(app, headers=[(b"content-length", b"101")]),
            await converse(app, {**part, "body": BODY}, {"type": "http.disconnect"}),
            await converse(app, {"type": "http.disconnect"}),
        ]
        app.stop()
        return sent

    source.add("m", linear(), "production")
    whole, large, declared, *left = asyncio.run(ask())
    assert whole[0]["status"] == 200
    assert (large[0]["status"], declared[0]["status"]) == (413, 413)
    assert left == [[], []]


def test_a_wsgi_body_that_is_too_large_is_not_read(source: MemorySource) -> None:
    source.add("m", linear(), "production")
    app = WsgiApp(["m"], source=lambda: source, access_log="off", max_body=100)
    told: list[str] = []

    def status_of(stream: Any, **more: Any) -> str:
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/predict", "wsgi.input": stream, **more}
        app(environ, lambda status, headers: told.append(status))
        return told[-1]

    try:
        stream = io.BytesIO(b" " * 101)
        assert status_of(stream, CONTENT_LENGTH="101").startswith("413") and stream.tell() == 0
        assert status_of(stream, **{"wsgi.input_terminated": True}).startswith("413")
        assert status_of(io.BytesIO(BODY), **{"wsgi.input_terminated": True}) == "200 OK"
        assert status_of(io.BytesIO(BODY), CONTENT_LENGTH=str(len(BODY))) == "200 OK"
        assert status_of(io.BytesIO(BODY), CONTENT_LENGTH="99").startswith("400")
        assert status_of(io.BytesIO(BODY), CONTENT_LENGTH="-1").startswith("400")
    finally:
        app.stop()


def test_headers_of_a_wsgi_environment() -> None:
    environ = {
        "PATH_INFO": "/predict", "HTTP_X_REQUEST_ID": "a", "HTTP_ACCEPT": "", "CONTENT_TYPE": "", "CONTENT_LENGTH": "3",
        "wsgi.input": io.BytesIO(),
    }  # fmt: skip
    for _ in range(2):
        assert wsgi.headers_of(environ) == {"x-request-id": "a", "content-length": "3"}
    assert wsgi.headers_of({**environ, "CONTENT_TYPE": "text/csv"})["content-type"] == "text/csv"


def test_clients_cannot_have_a_server_remember_without_end() -> None:
    for i in range(2 * wsgi.MOST_KEYS):
        assert wsgi.headers_of({f"HTTP_X_{i}": "a"}) == {f"x-{i}": "a"}
        assert len(wsgi._KNOWN) <= wsgi.MOST_KEYS
    long = "HTTP_" + "X" * wsgi.LONGEST_KEYS
    assert wsgi.headers_of({long: "a"}) == {"x" * wsgi.LONGEST_KEYS: "a"}
    assert (long,) not in wsgi._KNOWN


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        ("a", True), ("A-z_0.9:/+=@~", True), ("x" * 128, True), ("x" * 129, False), ("", False), ("a b", False),
        ("é", False), ("٣", False), ("a\n", False), ("\na", False),
    ],
)  # fmt: skip
def test_ids_of_callers_are_taken_over_where_they_are_harmless(given: str, is_taken: bool) -> None:
    assert is_request_id(given) is is_taken
    assert (id_of({"x-request-id": given}) == given) is is_taken
    assert id_of({}) != id_of({})


@pytest.mark.parametrize("prefix", ["/ml", "ml/", "/été", "/", ""])
def test_prefixes_of_the_fast_form(source: MemorySource, prefix: str) -> None:
    source.add("m", linear(), "production")
    inner = WsgiApp(["m"], source=lambda: source, access_log="off")
    app = modelyard.wsgi.mounted(lambda environ, start_response: [b"outer"], prefix, inner)
    told: list[str] = []
    try:
        path = f"/{prefix.strip('/')}".rstrip("/").encode().decode("latin-1")
        environ = {"REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO()}
        answer = app({**environ, "PATH_INFO": f"{path}/health/live"}, lambda status, headers: told.append(status))
        assert told == ["200 OK"] and list(answer) != [b"outer"]
        if path:
            assert app({**environ, "PATH_INFO": f"{path}x/health/live"}, told.append) == [b"outer"]
    finally:
        inner.stop()


def test_what_a_caller_that_left_asked_for_is_dropped(source: MemorySource) -> None:
    began, leaving = threading.Event(), threading.Event()
    calls: list[int] = []

    def predict(columns: Any) -> Any:
        calls.append(len(columns["x1"]))
        if columns["x1"][0] == 7:
            began.set()
            assert leaving.wait(60)
        return {"prediction": columns["x1"]}

    signature = Signature(inputs=INPUTS, outputs=(Field(name="prediction", dtype="float64"),))
    source.add("m", MemoryBundle(signature, predict, {"x1": [1.0], "x2": [1.0]}), "production")

    async def ask() -> tuple[list[Any], list[Any], int]:
        app = AsgiApp(["m"], source=lambda: source, access_log="off")
        application = await app.start()
        (loaded,) = application.catalog.models()
        for _ in range(100):
            loaded.cost.learn(1, 1.0)  # it takes long, and so runs in a thread
        application._slots = 1
        application._lanes.clear()
        application._forget()
        slow = asyncio.create_task(converse(app, {"type": "http.request", "body": b'{"x1": 7, "x2": 0}'}))
        while not began.is_set():
            await asyncio.sleep(0.01)
        calls.clear()
        left = await converse(app, {"type": "http.request", "body": BODY}, {"type": "http.disconnect"})
        leaving.set()
        first = await slow
        meter = application.metrics.meter("m", "1")
        app.stop()
        return left, first, meter.refused["cancelled"]

    left, first, cancelled = asyncio.run(ask())
    assert left == [] and first[0]["status"] == 200
    assert (calls, cancelled) == ([], 1)


def test_a_loop_for_each_request_follows_a_promotion(source: MemorySource) -> None:
    source.add("m", linear(), "production")
    app = AsgiApp(["m"], source=lambda: source, access_log="off", poll_seconds=0.01)
    try:
        assert b"6.5" in asyncio.run(converse(app))[1]["body"]
        source.promote("m", source.add("m", linear(10.0)))
        until(lambda: b"65.0" in asyncio.run(converse(app))[1]["body"])  # no loop runs in between
    finally:
        app.stop()


def test_requests_of_one_turn_share_a_call_of_the_model(source: MemorySource) -> None:
    source.add("m", linear(), "production")
    app = AsgiApp(["m"], source=lambda: source, access_log="off")

    async def one(i: int) -> bytes:
        body = b'{"x1": %d, "x2": 0}' % i
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b""}
        await app(scope, receive, send)
        return bytes(sent[1]["body"])

    async def live() -> list[bytes]:
        application = await app.start()
        answers = await asyncio.gather(*[one(i) for i in range(20)])
        calls = application.metrics.meter("m", "1").calls
        assert calls == 1, calls
        app.stop()
        return answers

    answers = asyncio.run(live())
    assert [json.loads(answer)["prediction"] for answer in answers] == [i + 1.0 for i in range(20)]


def test_a_life_and_a_websocket(source: MemorySource) -> None:
    source.add("m", linear(), "production")
    app = AsgiApp(["m"], source=lambda: source, access_log="off")

    async def live() -> list[str]:
        told: list[str] = []
        coming = asyncio.Queue[Any]()

        async def send(message: Any) -> None:
            told.append(message["type"])

        for kind in ("lifespan.startup", "lifespan.shutdown", "websocket.connect"):
            coming.put_nowait({"type": kind})
        await app({"type": "lifespan"}, coming.get, send)
        await app({"type": "websocket", "path": "/"}, coming.get, send)
        return told

    assert asyncio.run(live()) == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
