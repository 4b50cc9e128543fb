"""The application inside Flask, Django, FastAPI and bare WSGI and ASGI, by the frameworks' own test clients."""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

import faulty
import modelyard
from modelyard.bundle import Trust, pack
from modelyard.errors import NotFound, RemoteFailed
from modelyard.registry import Registry
from modelyard.schema import Field, Signature
from modelyard.serving.asgi import AsgiApp
from modelyard.serving.wsgi import WsgiApp
from modelyard.testing.memory import MemoryBundle

from .conftest import INPUTS, MemorySource, classifier, linear

BODY = b'{"x1": 1.5, "x2": 2}'

#: Method, path, headers, body -> status, headers, body.
Ask = Callable[..., tuple[int, dict[str, str], bytes]]


def _flask(source: MemorySource, stops: list[Callable[[], None]], **options: Any) -> Ask:
    import flask

    app = flask.Flask("host")
    blueprint = modelyard.flask.blueprint("m", source=lambda: source, **options)
    stops.append(blueprint.modelyard.stop)
    app.register_blueprint(blueprint, url_prefix="/ml")
    app.add_url_rule("/own", view_func=lambda: "mine")
    return _wsgi_client(app)


def _flask_in_front(source: MemorySource, stops: list[Callable[[], None]], **options: Any) -> Ask:
    import flask

    app = flask.Flask("host")
    app.add_url_rule("/own", view_func=lambda: "mine")
    stops.append(modelyard.flask.mount(app, "/ml", "m", source=lambda: source, **options).stop)
    return _wsgi_client(app)


def _wsgi_client(app: Any) -> Ask:
    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        answer = app.test_client().open(path, method=method, data=body, headers=named)
        return answer.status_code, {key.lower(): value for key, value in answer.headers}, answer.data

    return ask


def _django(source: MemorySource, stops: list[Callable[[], None]], **options: Any) -> Ask:
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.test import Client
    from django.test.utils import override_settings
    from django.urls import include, path

    if not settings.configured:
        settings.configure(DEBUG=False, ALLOWED_HOSTS=["*"], SECRET_KEY="test", MIDDLEWARE=[
            "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
        ])  # fmt: skip
        django.setup()

    class Urls:
        patterns = modelyard.django.urls("m", source=lambda: source, **options)
        urlpatterns = (path("ml/", include(patterns)), path("own", lambda request: HttpResponse("mine")))

    stops.append(Urls.patterns[0].callback.modelyard.stop)
    overriding = override_settings(ROOT_URLCONF=Urls)
    overriding.enable()
    stops.append(overriding.disable)

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        kind = named.pop("content-type", "application/json")
        client = Client(raise_request_exception=False, enforce_csrf_checks=True)
        answer = client.generic(method, path, body, content_type=kind, headers=named)
        return answer.status_code, {key.lower(): value for key, value in answer.items()}, answer.content

    return ask


def _fastapi(source: MemorySource, stops: list[Callable[[], None]], **options: Any) -> Ask:
    import fastapi

    app = fastapi.FastAPI()
    app.include_router(modelyard.fastapi.router("m", source=lambda: source, **options), prefix="/ml")
    app.add_api_route("/own", lambda: fastapi.Response("mine"))
    return _asgi_client(app, stops)


def _fastapi_mounted(source: MemorySource, stops: list[Callable[[], None]], **options: Any) -> Ask:
    import fastapi

    app = fastapi.FastAPI()
    inner = modelyard.asgi.app("m", source=lambda: source, **options)
    stops.append(inner.stop)
    app.mount("/ml", inner)
    app.add_api_route("/own", lambda: fastapi.Response("mine"))
    return _asgi_client(app, stops)


def _asgi_client(app: Any, stops: list[Callable[[], None]]) -> Ask:
    from fastapi.testclient import TestClient

    client = TestClient(app)
    client.__enter__()
    stops.insert(0, lambda: client.__exit__(None, None, None))

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        named = {"accept-encoding": "identity"} | {key.replace("_", "-"): value for key, value in headers.items()}
        answer = client.request(method, path, content=body, headers=named)
        return answer.status_code, dict(answer.headers), answer.content

    return ask


HOSTS = {
    "flask": _flask, "flask in front": _flask_in_front, "django": _django, "fastapi": _fastapi,
    "fastapi mounted": _fastapi_mounted,
}  # fmt: skip


@pytest.fixture
def stops() -> Iterator[list[Callable[[], None]]]:
    found: list[Callable[[], None]] = []
    yield found
    for stop in found:
        stop()


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest, stops: list[Callable[[], None]]) -> Callable[..., Ask]:
    def make(source: MemorySource, **options: Any) -> Ask:
        return HOSTS[request.param](source, stops, poll_seconds=0.02, access_log="off", **options)

    return make


@pytest.fixture
def ask(host: Callable[..., Ask], source: MemorySource) -> Ask:
    source.add("m", linear(), "production")
    return host(source)


def test_every_wire_below_the_prefix(ask: Ask) -> None:
    status, headers, body = ask("POST", "/ml/predict", BODY, x_request_id="mine")
    assert status == 200 and json.loads(body)["prediction"] == 6.5
    assert headers["content-type"] == "application/json" and headers["x-request-id"] == "mine"
    tensor = {"name": "t", "shape": [1, 2], "datatype": "FP64", "data": [1.5, 2]}
    status, _, body = ask("POST", "/ml/v2/models/m/infer", json.dumps({"inputs": [tensor]}).encode())
    assert status == 200 and json.loads(body)["outputs"][0]["data"] == [6.5]
    status, _, body = ask("POST", "/ml/v1/models/m:predict", b'{"instances": [{"x1": 1.5, "x2": 2}]}')
    assert status == 200 and json.loads(body) == {"predictions": [6.5]}
    assert ask("GET", "/ml/health/ready")[0] == 200
    assert b'modelyard_requests_total{code="ok"' in ask("GET", "/ml/metrics")[2].replace(b'model="m",version="1",', b"")


def test_the_host_goes_on_as_it_was(ask: Ask) -> None:
    assert ask("GET", "/own")[::2] == (200, b"mine")
    assert ask("GET", "/mlx/predict")[0] == 404


def test_refusals_are_those_of_the_wires(ask: Ask) -> None:
    status, _, body = ask("POST", "/ml/predict", b'{"x1": "one", "x2": 2}')
    assert status == 400 and json.loads(body)["error"]["problems"][0]["path"] == "x1"
    status, _, body = ask("POST", "/ml/models/n/predict", BODY)
    assert status == 404 and "known: m" in json.loads(body)["error"]["message"]
    status, _, body = ask("GET", "/ml/v2/models/n")
    assert status == 404 and isinstance(json.loads(body)["error"], str)
    status, headers, _ = ask("GET", "/ml/models/m/predict")
    assert status == 405 and headers["allow"] == "POST"
    assert ask("POST", "/ml/predict", b"")[0] == 400


def test_paths_and_names_that_need_encoding(host: Callable[..., Ask], source: MemorySource) -> None:
    source.add("m", linear(), "production")
    ask = host(source)
    for name, shown in (("a%20b", "a b"), ("%C3%A9t%C3%A9", "été"), ("50%25", "50%"), ("a%3Fb%23c", "a?b#c")):
        status, _, body = ask("POST", f"/ml/models/{name}/predict", BODY)
        assert status == 404 and shown in json.loads(body)["error"]["message"], body
    assert ask("GET", "/ml/metrics?x=%C3%A9&y=a%20b")[0] == 200


def test_a_trace_goes_on(ask: Ask) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    _, headers, _ = ask("POST", "/ml/predict", BODY, traceparent=f"00-{trace}-b7ad6b7169203331-01")
    assert headers["traceresponse"].split("-")[1] == trace
    assert "traceresponse" not in ask("POST", "/ml/predict", BODY)[1]


def test_options_are_told(ask: Ask) -> None:
    status, headers, _ = ask("OPTIONS", "/ml/models/m/predict")
    assert status in (200, 405) and "POST" in headers["allow"]


def test_a_head_has_no_body(ask: Ask) -> None:
    status, _, body = ask("HEAD", "/ml/health/live")
    assert (status, body) == (200, b"")


def test_encoded_bodies_and_limits(host: Callable[..., Ask], source: MemorySource) -> None:
    source.add("m", linear(), "production")
    ask = host(source, max_body=1000, max_rows=3, batch_rows=2)
    assert ask("POST", "/ml/predict", gzip.compress(BODY), content_encoding="gzip")[0] == 200
    assert ask("POST", "/ml/predict", b"x", content_encoding="gzip")[0] == 400
    assert ask("POST", "/ml/predict", b"x", content_encoding="zip")[0] == 415
    assert ask("POST", "/ml/predict", b" " * 1001)[0] == 413
    assert ask("POST", "/ml/predict", gzip.compress(b" " * 5000), content_encoding="gzip")[0] == 413
    assert ask("POST", "/ml/predict", BODY, x_request_timeout="0")[0] in (200, 504)
    status, _, body = ask("POST", "/ml/predict", b'{"x1": [1, 2, 3], "x2": [0, 0, 0]}')
    assert status == 200 and json.loads(body)["prediction"] == [2.0, 3.0, 4.0]
    assert ask("POST", "/ml/predict", b'{"x1": [1, 2, 3, 4], "x2": [0, 0, 0, 0]}')[0] == 400


def test_keys_are_asked_for(host: Callable[..., Ask], source: MemorySource, tmp_path: Path) -> None:
    source.add("m", linear(), "production")
    registry = Registry.open(tmp_path / "home")
    _, key = registry.keys.create("shop")
    ask = host(source, keys=True, registry=registry)
    assert ask("POST", "/ml/predict", BODY)[0] == 401
    assert ask("POST", "/ml/predict", BODY, authorization=f"Bearer {key}")[0] == 200
    assert ask("POST", "/ml/predict", BODY, x_api_key=key)[0] == 200
    assert ask("GET", "/ml/metrics", x_api_key=key)[0] == 403
    assert ask("GET", "/ml/health/ready")[0] == 200
    registry.keys.revoke("shop")
    until = monotonic() + 10
    while ask("POST", "/ml/predict", BODY, x_api_key=key)[0] != 401:
        assert monotonic() < until
        sleep(0.01)
    registry.close()


def test_a_promotion_is_followed(ask: Ask, source: MemorySource) -> None:
    source.promote("m", source.add("m", linear(10.0)))
    for _ in range(500):
        if json.loads(ask("POST", "/ml/predict", BODY)[2])["prediction"] == 65.0:
            return
    raise AssertionError("never followed")


def test_callers_get_their_own_answers(ask: Ask) -> None:
    def call(start: int) -> list[float]:
        bodies = [b'{"x1": %d, "x2": 0}' % i for i in range(start, start + 20)]
        return [json.loads(ask("POST", "/ml/predict", body)[2])["prediction"] for body in bodies]

    with ThreadPoolExecutor(6) as callers:
        for start, answers in zip(range(0, 6000, 1000), callers.map(call, range(0, 6000, 1000)), strict=True):
            assert answers == [i + 1.0 for i in range(start, start + 20)]


def test_a_model_that_is_not_there_is_an_error_of_the_start(host: Callable[..., Ask], source: MemorySource) -> None:
    try:
        ask = host(source)
    except NotFound:
        return
    assert ask("POST", "/ml/predict", BODY)[0] == 503  # an app that is only mounted has no start of its own


def test_a_framework_that_is_not_there(monkeypatch: pytest.MonkeyPatch, source: MemorySource) -> None:
    import sys

    for name, make in (
        ("flask", lambda: modelyard.flask.blueprint("m")), ("django.http", lambda: modelyard.django.urls("m")),
        ("fastapi", lambda: modelyard.fastapi.router("m")),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(modelyard.errors.MissingDependency, match="pip install"):  # type: ignore[attr-defined]
            make()


def test_models_may_load_beside(source: MemorySource) -> None:
    source.add("m", classifier(), "production")
    app = WsgiApp(["m"], wait=False, source=lambda: source, access_log="off")
    try:
        for _ in range(5000):
            status, _, body = app.answer("POST", "/predict", "", {}, lambda most: BODY)
            if status == 200:
                break
            assert status == 503, body
        assert b'"probabilities"' in body
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
            assert leaving.wait(10)
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
        until = monotonic() + 10
        while b"65.0" not in asyncio.run(converse(app))[1]["body"]:
            assert monotonic() < until
            sleep(0.01)  # no loop runs
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
