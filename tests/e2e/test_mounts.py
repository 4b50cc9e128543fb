"""Models inside Flask, Django and FastAPI, by the servers that people run those with, over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from modelyard.bundle import Bundle, pack
from modelyard.errors import NotFound
from modelyard.recording.places import Places
from modelyard.registry import Registry
from receivers import waited

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="the processes of a server are found in /proc")

EXAMPLES = Path(__file__).parents[2] / "examples"

HOSTS = """
import modelyard

def flask():
    import flask
    app = flask.Flask("host")
    app.register_blueprint(modelyard.flask.blueprint("line@production"), url_prefix="/ml")
    return app

def flask_in_front():
    import flask
    app = flask.Flask("host")
    modelyard.flask.mount(app, "/ml", "line@production")
    return app

urlpatterns = []

def django():
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.urls import include, path
    settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="test", ALLOWED_HOSTS=["*"], MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"])
    urlpatterns.append(path("ml/", include(modelyard.django.urls("line@production"))))
    return get_wsgi_application()

def fastapi():
    import fastapi
    app = fastapi.FastAPI()
    app.include_router(modelyard.fastapi.router("line@production"), prefix="/ml")
    return app

def fastapi_mounted():
    import fastapi
    models = modelyard.asgi.app("line@production")
    app = fastapi.FastAPI(lifespan=models.lifespan)
    app.mount("/ml", models)
    return app
"""

GUNICORN = ("gunicorn", "--worker-class", "gthread", "--workers", "2", "--threads", "4", "--bind", "127.0.0.1:{port}")
UVICORN = ("uvicorn", "--factory", "--log-level", "warning", "--port", "{port}")

#: A command each, and whether the model runs in a process of its own.
SERVERS: dict[str, tuple[tuple[str, ...], bool]] = {
    "flask, gunicorn": ((*GUNICORN, "hosts:flask()"), False),
    "flask in front, gunicorn, preloaded, isolated": ((*GUNICORN, "--preload", "hosts:flask_in_front()"), True),
    "django, gunicorn": ((*GUNICORN, "hosts:django()"), False),
    "django, gunicorn, preloaded": ((*GUNICORN, "--preload", "hosts:django()"), False),
    "fastapi, uvicorn": ((*UVICORN, "hosts:fastapi"), False),
    "fastapi mounted, two of uvicorn, isolated": ((*UVICORN, "--workers", "2", "hosts:fastapi_mounted"), True),
}

#: Starts a command in a folder, and returns its process and its port.
Start = Callable[..., tuple[subprocess.Popen[bytes], int]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """y = x1 + 2 x2 + 1, and ten times that."""
    folder = tmp_path_factory.mktemp("mounts")
    rng = np.random.default_rng(0)
    sample = {"x1": rng.normal(size=50), "x2": rng.normal(size=50)}
    matrix = np.stack(list(sample.values()), axis=1)
    made = []
    for scale in (1, 10):
        model = LinearRegression().fit(matrix, scale * (sample["x1"] + 2 * sample["x2"] + 1))
        made.append(pack(model, folder / str(scale), sample=sample))
    return made


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*command: str, folder: Path = tmp_path, **environment: str) -> tuple[subprocess.Popen[bytes], int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
        told = {"MODELYARD_HOME": str(tmp_path / "home"), "MODELYARD_POLL_SECONDS": "0.1", "PORT": str(port)}
        with (tmp_path / "log").open("wb") as log:
            server = subprocess.Popen(
                [sys.executable, *[word.format(port=port) for word in command]],
                cwd=folder, env={**clean, **told, **environment}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        started.append(server)
        until = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                if ask(port, "GET", "/ml/health/ready")[0] == 200:
                    return server, port
            assert server.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.05)

    yield begin
    for server in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def predict(port: int, x1: float) -> float:
    status, body = ask(port, "POST", "/ml/predict", json.dumps({"x1": x1, "x2": 0}).encode())
    assert status == 200, body
    return float(json.loads(body)["prediction"])


def family(process: int) -> set[int]:
    """A process and all that descend from it."""
    found = {process}
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found |= family(int(child))
    return found


def is_alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def command_of(process: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def end(server: subprocess.Popen[bytes]) -> None:
    """It ends when it is told to, and nothing of it stays."""
    processes = family(server.pid)
    server.send_signal(signal.SIGTERM)
    server.wait(timeout=120)
    assert waited(lambda: not any(map(is_alive, processes)))


@pytest.mark.parametrize("name", SERVERS)
def test_a_model_inside_a_framework(name: str, start: Start, bundles: list[Bundle], tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "home")
    for bundle in bundles:
        registry.register(bundle, "line")
    registry.promote("line", 1)
    (tmp_path / "hosts.py").write_text(HOSTS)
    command, is_isolated = SERVERS[name]
    server, port = start("-m", *command, MODELYARD_ISOLATION="all" if is_isolated else "auto")

    assert predict(port, 1.5) == pytest.approx(2.5)
    status, body = ask(port, "POST", "/ml/predict", b'{"x1": "one", "x2": 0}')
    assert status == 400 and json.loads(body)["error"]["problems"][0]["path"] == "x1"
    assert ask(port, "POST", "/ml/models/other/predict", b"{}")[0] == 404
    told = ask(port, "GET", "/ml/metrics")[1]
    assert b"modelyard_requests_total" in told and b"\nmodelyard_watched_up 1\n" in told

    with ThreadPoolExecutor(100) as callers:
        answers = list(callers.map(lambda x1: predict(port, x1), range(200)))
    assert answers == pytest.approx([x1 + 1 for x1 in range(200)], abs=1e-3)

    registry.promote("line", 2)
    until = time.monotonic() + 120
    in_a_row = 0
    while in_a_row < 20:  # whichever process is asked
        answer = predict(port, 1)
        assert answer == pytest.approx(2) or answer == pytest.approx(20)
        in_a_row = in_a_row + 1 if answer > 10 else 0
        assert time.monotonic() < until
    registry.close()
    end(server)


def until_all_say(port: int, sample: str, expected: float) -> None:
    """Return once whichever process is asked says the same."""
    until = time.monotonic() + 120
    in_a_row = 0
    while in_a_row < 20:
        lines = ask(port, "GET", "/ml/metrics")[1].decode().splitlines()
        told = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample))
        in_a_row = in_a_row + 1 if told == expected else 0
        assert time.monotonic() < until, (told, expected)
        time.sleep(0.01)


@pytest.mark.parametrize(
    "command",
    [
        (*GUNICORN, "hosts:flask()"), (*GUNICORN, "--preload", "hosts:django()"),
        (*UVICORN, "--workers", "2", "hosts:fastapi"),
    ],
    ids=["gunicorn", "gunicorn, preloaded", "uvicorn"],
)  # fmt: skip
def test_processes_count_together(
    command: tuple[str, ...], start: Start, bundles: list[Bundle], tmp_path: Path
) -> None:
    registry = Registry.open(tmp_path / "home")
    registry.register(bundles[0], "line")
    registry.close()
    (tmp_path / "hosts.py").write_text(HOSTS)
    for requests in (40, 30):  # the second server begins from nothing, though the folder is the same
        server, port = start("-m", *command, MODELYARD_METRICS_FOLDER=str(tmp_path / "counts"))
        # A parent that forks has the models too.
        until_all_say(port, 'modelyard_workers{state="ready"}', 3 if "--preload" in command else 2)
        with ThreadPoolExecutor(8) as callers:
            list(callers.map(partial(predict, port), range(requests)))
        until_all_say(port, "modelyard_requests_total{", requests)
        until_all_say(port, "modelyard_request_seconds_count{", requests)
        if "gunicorn" in command:
            os.kill((family(server.pid) - {server.pid}).pop(), signal.SIGKILL)
            until_all_say(port, "modelyard_worker_restarts_total ", 1)
            predict(port, 1)
            until_all_say(port, "modelyard_requests_total{", requests + 1)
        end(server)


@pytest.mark.parametrize(
    "command",
    [
        (*GUNICORN, "hosts:flask()"), (*GUNICORN, "--preload", "hosts:django()"),
        (*UVICORN, "--workers", "2", "hosts:fastapi"),
    ],
    ids=["gunicorn", "gunicorn, preloaded", "uvicorn"],
)  # fmt: skip
def test_what_is_mounted_is_recorded_when_asked(
    command: tuple[str, ...], start: Start, bundles: list[Bundle], tmp_path: Path
) -> None:
    pytest.importorskip("duckdb")
    from modelyard.recording.query import Query

    registry = Registry.open(tmp_path / "home")
    registry.register(bundles[0], "line")
    registry.close()
    (tmp_path / "hosts.py").write_text(HOSTS)
    places = Places(tmp_path / "home" / "records")
    server, port = start("-m", *command, MODELYARD_RECORD="on")
    with ThreadPoolExecutor(8) as callers:
        sent, until = 0, time.monotonic() + 120
        while sent < 300 or _workers(places) < 2:  # the second process may begin, or be asked, later
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            list(callers.map(partial(predict, port), range(sent, sent + 100)))
            sent += 100
    assert waited(lambda: places.recorder() is not None), (tmp_path / "log").read_text()
    recorder = places.recorder()
    assert recorder in family(server.pid)
    beside = [process for process in family(server.pid) if b"--beside" in command_of(process)]
    assert beside == [recorder]
    end(server)
    assert not is_alive(recorder)
    found = Query(places).run("select count(*), count(distinct request_id), count(distinct worker) from predictions")
    assert found.rows == [(sent, sent, 2)]


def _workers(places: Places) -> int:
    """From how many processes something is recorded."""
    from modelyard.recording.query import Query

    try:
        ((count,),) = Query(places).run("select count(distinct worker) from predictions").rows
    except NotFound:  # nothing is, yet
        return 0
    return int(count)


def test_what_is_mounted_is_not_recorded_unless_asked(start: Start, bundles: list[Bundle], tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "home")
    registry.register(bundles[0], "line")
    registry.close()
    (tmp_path / "hosts.py").write_text(HOSTS)
    server, port = start("-m", *GUNICORN, "hosts:flask()")
    predict(port, 1)
    assert b"modelyard_recorder_up" not in ask(port, "GET", "/ml/metrics")[1]
    end(server)
    assert not (tmp_path / "home" / "records").exists()


FLOWER: dict[str, Any] = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry in which the first example that ran has trained its model."""
    return tmp_path_factory.mktemp("examples") / "home"


@pytest.mark.parametrize("name", ["flask_app", "django_app", "fastapi_app"])
def test_the_examples_run_with_one_command(name: str, start: Start, flowers: Path) -> None:
    server, port = start(str(EXAMPLES / name / "app.py"), MODELYARD_HOME=str(flowers))
    assert b"flowers" in ask(port, "GET", "/")[1]
    status, body = ask(port, "POST", "/ml/predict", json.dumps(FLOWER).encode())
    assert status == 200 and json.loads(body)["prediction"] == "virginica"
    end(server)


@pytest.mark.parametrize("name", ["flask_app", "django_app", "fastapi_app"])
def test_the_examples_say_how_to_ask_them(name: str) -> None:
    page = (EXAMPLES / name / "README.md").read_text()
    assert f"python examples/{name}/app.py" in page
    (row,) = [json.loads(line.split("'")[1]) for line in page.splitlines() if "/predict -d" in line]
    assert row.keys() == FLOWER.keys()
