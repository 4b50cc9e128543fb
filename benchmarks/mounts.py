"""Modelyard inside Flask, Django and FastAPI beside what is usually written there: a pickle and a data frame a request.

python benchmarks/mounts.py [--only flask,django,fastapi] [--connections 64] [--seconds 4] [--server-core 0]

Each runs as one process on one core, wrk on another: gunicorn with four threads, or uvicorn. Needs wrk, taskset,
scikit-learn, gunicorn, uvicorn and the frameworks.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COLUMNS = 20
ROW = {f"x{i}": round(0.1 * i - 1, 3) for i in range(COLUMNS)}

HOSTS = """
import json, os, pickle
import modelyard

FOLDER = os.environ["FOLDER"]
QUIET = {"access_log": "off"}

def usual_model():
    import pandas
    with open(f"{FOLDER}/model.pkl", "rb") as file:
        model = pickle.load(file)
    return lambda row: {"prediction": float(model.predict(pandas.DataFrame([row]))[0])}

def flask_app():
    import flask
    return flask.Flask("host")

def flask_usual():
    import flask
    app, answer = flask_app(), usual_model()
    app.post("/ml/predict")(lambda: flask.jsonify(answer(flask.request.get_json())))
    return app

def flask_blueprint():
    app = flask_app()
    app.register_blueprint(modelyard.flask.blueprint(f"{FOLDER}/bundle", **QUIET), url_prefix="/ml")
    return app

def flask_mount():
    app = flask_app()
    modelyard.flask.mount(app, "/ml", f"{FOLDER}/bundle", **QUIET)
    return app

urlpatterns = []

def django_app():
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="bench", ALLOWED_HOSTS=["*"], MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"])
    return get_wsgi_application()

def django_usual():
    app, answer = django_app(), usual_model()
    from django.http import JsonResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt
    urlpatterns.append(path("ml/predict", csrf_exempt(lambda r: JsonResponse(answer(json.loads(r.body))))))
    return app

def django_urls():
    app = django_app()
    from django.urls import include, path
    urlpatterns.append(path("ml/", include(modelyard.django.urls(f"{FOLDER}/bundle", **QUIET))))
    return app

def django_mount():
    return modelyard.django.mount(django_app(), "/ml", f"{FOLDER}/bundle", **QUIET)

def fastapi_usual():
    import fastapi
    app, answer = fastapi.FastAPI(), usual_model()
    @app.post("/ml/predict")
    def predict(row: dict[str, float]):
        return answer(row)
    return app

def fastapi_usual_async():
    import fastapi
    app, answer = fastapi.FastAPI(), usual_model()
    @app.post("/ml/predict")
    async def predict(row: dict[str, float]):
        return answer(row)
    return app

def fastapi_router():
    import fastapi
    app = fastapi.FastAPI()
    app.include_router(modelyard.fastapi.router(f"{FOLDER}/bundle", **QUIET), prefix="/ml")
    return app

def fastapi_mount():
    import fastapi
    models = modelyard.asgi.app(f"{FOLDER}/bundle", **QUIET)
    app = fastapi.FastAPI(lifespan=models.lifespan)
    app.mount("/ml", models)
    return app

def flask_nothing():
    app = flask_app()
    app.post("/ml/predict")(lambda: {"prediction": 0})
    return app

def django_nothing():
    app = django_app()
    from django.http import JsonResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt
    urlpatterns.append(path("ml/predict", csrf_exempt(lambda r: JsonResponse({"prediction": 0}))))
    return app

def fastapi_nothing():
    import fastapi
    app = fastapi.FastAPI()
    @app.post("/ml/predict")
    async def predict(request: fastapi.Request):
        return fastapi.responses.JSONResponse({"prediction": 0})
    return app

def wsgi_nothing():
    def app(environ, start_response):
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", [("content-type", "application/json"), ("content-length", "16")])
        return [b'{"prediction":0}']
    return app

def asgi_nothing():
    return answer_nothing

async def answer_nothing(scope, receive, send):
    if scope["type"] == "http":
        await receive()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"16")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"prediction":0}'})
"""

GUNICORN = (
    "gunicorn --worker-class gthread --workers 1 --threads 4 --keep-alive 30 --bind 127.0.0.1:{port} hosts:{app}()"
)
UVICORN = "uvicorn --factory --no-access-log --log-level warning --port {port} hosts:{app}"

#: Each with the command that runs it; the first of a framework is what the others are compared with. What does
#: nothing but read the body shows what the framework, and then the server alone, leave room for.
SERVERS = {
    "flask": (GUNICORN, ("flask_usual", "flask_blueprint", "flask_mount", "flask_nothing", "wsgi_nothing")),
    "django": (GUNICORN, ("django_usual", "django_urls", "django_mount", "django_nothing", "wsgi_nothing")),
    "fastapi": (
        UVICORN,
        ("fastapi_usual", "fastapi_usual_async", "fastapi_router", "fastapi_mount", "fastapi_nothing", "asgi_nothing"),
    ),
}


def prepare(folder: Path) -> float:
    """The model as a pickle and as a bundle. Returns what it answers to the row."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    from modelyard.bundle import pack

    rng = np.random.default_rng(0)
    frame = pd.DataFrame({name: rng.normal(size=200) for name in ROW})
    model = LinearRegression().fit(frame, frame @ rng.normal(size=COLUMNS))
    pack(model, folder / "bundle", sample=frame)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    (folder / "hosts.py").write_text(HOSTS)
    script = f'wrk.method = "POST"\nwrk.body = {json.dumps(json.dumps(ROW))}\n'
    (folder / "row.lua").write_text(script + 'wrk.headers["Content-Type"] = "application/json"\n')
    return float(model.predict(pd.DataFrame([ROW]))[0])


def ask(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/ml/predict", json.dumps(ROW), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    told = float(json.loads(answer.read())["prediction"])
    connection.close()
    return told


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def processor_seconds(group: int) -> float:
    """What all processes of a group have used."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def load(port: int, seconds: int, given: argparse.Namespace, folder: Path) -> tuple[float, str, str]:
    """Requests a second, the median and the 99th percentile."""
    command = f"taskset -c {given.client_core} wrk -t1 -c{given.connections} -d{seconds} --latency -s row.lua"
    url = f"http://127.0.0.1:{port}/ml/predict"
    out = subprocess.run([*command.split(), url], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in out, out
    rate = re.search(r"Requests/sec: +([\d.]+)", out)
    half, late = re.search(r"50% +(\S+)", out), re.search(r"99% +(\S+)", out)
    assert rate and half and late, out
    return float(rate[1]), half[1], late[1]


def measure(app: str, command: str, expected: float, given: argparse.Namespace, folder: Path) -> tuple[float, str]:
    """Requests a second, and the rest of a row of the table."""
    port = free_port()
    words = command.format(port=port, app=app).split()
    server = subprocess.Popen(
        ["taskset", "-c", str(given.server_core), sys.executable, "-m", *words], cwd=folder, start_new_session=True,
        env={**os.environ, "FOLDER": str(folder), "OMP_NUM_THREADS": "1", "MODELYARD_LOG_LEVEL": "error"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while True:
            try:
                answer = ask(port)
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > until:
                    sys.exit(f"{app} does not start: {' '.join(words)}")
                time.sleep(0.1)
        if "nothing" not in app and abs(answer - expected) > 1e-4:
            sys.exit(f"{app} answers {answer}, not {expected}")
        load(port, 1, given, folder)
        before = processor_seconds(server.pid)
        rate, half, late = load(port, given.seconds, given, folder)
        spent = (processor_seconds(server.pid) - before) / (rate * given.seconds) * 1e6
        return rate, f"{half:>9} | {late:>9} | {spent:6.0f} us"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SERVERS))
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    given = parser.parse_args()
    if shutil.which("wrk") is None or shutil.which("taskset") is None:
        sys.exit("wrk and taskset are needed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = prepare(folder)
        print("| inside | requests/s | ratio | p50 | p99 | CPU a request |\n|---|---|---|---|---|---|")
        for framework in given.only.split(","):
            command, apps = SERVERS[framework]
            usual = 0.0
            for app in apps:
                rate, rest = measure(app, command, expected, given, folder)
                usual = usual or rate
                print(f"| {app:20} | {rate:8.0f} | {rate / usual:4.1f}x | {rest} |", flush=True)


if __name__ == "__main__":
    main()
