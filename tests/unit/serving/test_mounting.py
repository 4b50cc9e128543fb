"""The application inside Flask, Django, FastAPI and bare WSGI and ASGI, by the frameworks' own test clients."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard.errors import NotFound
from modelyard.registry import Registry
from receivers import until

from .conftest import MemorySource, linear

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
    until(lambda: ask("POST", "/ml/predict", BODY, x_api_key=key)[0] == 401)
    registry.close()


def test_a_promotion_is_followed(ask: Ask, source: MemorySource) -> None:
    source.promote("m", source.add("m", linear(10.0)))
    until(lambda: json.loads(ask("POST", "/ml/predict", BODY)[2])["prediction"] == 65.0)


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


def test_pages_of_other_origins(host: Callable[..., Ask], source: MemorySource, request: Any) -> None:
    source.add("m", linear(), "production")
    ask = host(source, origins=("https://shop.example",))
    for body, status in ((BODY, 200), (b"", 400)):
        got, headers, _ = ask("POST", "/ml/predict", body, origin="https://shop.example")
        assert (got, headers["access-control-allow-origin"]) == (status, "https://shop.example")
    assert "access-control-allow-origin" not in ask("POST", "/ml/predict", BODY, origin="https://evil.example")[1]
    if request.node.callspec.params["host"] != "flask":  # where OPTIONS is Flask's own
        asks = {"origin": "https://shop.example", "access_control_request_method": "POST"}
        status, headers, _ = ask("OPTIONS", "/ml/models/m/predict", **asks)
        assert (status, headers["access-control-allow-methods"]) == (200, "POST")
        assert headers["access-control-allow-origin"] == "https://shop.example"
