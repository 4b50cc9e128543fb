"""The application inside Flask, Django, FastAPI and bare WSGI and ASGI, by the frameworks' own test clients."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import modelyard
from modelyard.errors import NotFound
from modelyard.serving.asgi import AsgiApp
from modelyard.serving.wsgi import WsgiApp

from .conftest import MemorySource, classifier, linear

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


def test_a_fork_loads_anew(source: MemorySource) -> None:
    source.add("m", linear(), "production")
    app = WsgiApp(["m"], source=lambda: source, access_log="off")
    try:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                status, _, body = app.answer("POST", "/predict", "", {}, lambda most: BODY)
                os.write(writing, b"%d %b" % (status, body))
            finally:
                os._exit(0)
        os.close(writing)
        told = os.read(reading, 1000)
        os.waitpid(child, 0)
        os.close(reading)
        assert told.startswith(b'200 {"prediction":6.5')
        assert app.answer("POST", "/predict", "", {}, lambda most: BODY)[0] == 200
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
