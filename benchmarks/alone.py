"""Modelyard beside what the project's own environment holds: nginx, a bare protocol, FastAPI, gunicorn with Flask.

Each server is started, asked until it answers, and its answer compared with the model's own before it is loaded. On
two cores or more the server has the first and wrk another. What is found comes as one dict a run, as the larger
harness of ``side_by_side.py`` writes them too.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import math
import os
import pickle
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from load import busy_seconds, cpu_seconds, megabytes, wrk

HERE = Path(__file__).parent

#: A job, connections, and seconds.
RUNS = {
    "linear": (("linear", 64, 8), ("linear", 1, 4), ("linear", 16, 4), ("linear", 256, 4), ("linear", 64, 8)),
    "trees": (("trees", 64, 8), ("trees1000", 64, 8)),
}

SERVE = "import sys; from modelyard.serving.server import serve; serve(['m=' + sys.argv[1]], port=int(sys.argv[2]))"

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{ access_log off; keepalive_requests 100000000; server {{ listen 127.0.0.1:{port};
  location / {{ default_type application/json; return 200 '{{"prediction":[9.5]}}'; }} }} }}
"""

#: A path, headers and a body.
Asked = tuple[str, dict[str, str], bytes]


class Job(NamedTuple):
    columns: list[str]
    rows: list[list[float]]
    expected: list[float]


class Peer(NamedTuple):
    command: Callable[[str, Path, int], list[str]]
    request: Callable[[Job], Asked]
    #: Reads the predictions out of an answer; None where it is a constant.
    answer: Callable[[bytes], list[float]] | None
    models: tuple[str, ...] = ("linear", "trees")
    #: What must be there: a program, or a package to import.
    needs: str = ""


def make(folder: Path) -> dict[str, Job]:
    """Train the two models; pickle and package them."""
    import numpy as np
    import pandas as pd
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LinearRegression

    from modelyard.bundle import pack

    rng = np.random.default_rng(0)
    pairs = pd.DataFrame(rng.normal(size=(500, 2)), columns=["x1", "x2"])
    cells = load_breast_cancer()
    table = pd.DataFrame(cells.data, columns=[str(name).replace(" ", "_") for name in cells.feature_names])
    models = {
        "linear": (LinearRegression().fit(pairs, 3 * pairs.x1 - 2 * pairs.x2 + 0.5), pairs),
        "trees": (HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(table, cells.target), table),
    }
    jobs = {}
    for name, (model, frame) in models.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(model))
        pack(model, folder / name, sample=frame)
        picked = frame.sample(1000, replace=True, random_state=0)
        found = [float(value) for value in model.predict(picked)]
        jobs[name] = Job(list(frame), picked.values[:1].tolist(), found[:1])
        jobs[f"{name}1000"] = Job(list(frame), picked.values.tolist(), found)
    return jobs


def named(job: Job) -> Asked:
    if len(job.rows) > 1:
        return "/predict_rows", {}, json.dumps({"rows": job.rows}).encode()
    return "/predict", {}, json.dumps(dict(zip(job.columns, job.rows[0], strict=True))).encode()


def native(job: Job) -> Asked:
    if len(job.rows) > 1:
        columns = dict(zip(job.columns, zip(*job.rows, strict=True), strict=True))
        return "/predict", {}, json.dumps(columns).encode()
    return named(job)


def oip(job: Job) -> Asked:
    inputs = [
        {"name": name, "shape": [len(values)], "datatype": "FP64", "data": values}
        for name, values in zip(job.columns, zip(*job.rows, strict=True), strict=True)
    ]
    return "/v2/models/m/infer", {}, json.dumps({"inputs": inputs}).encode()


def predictions(body: bytes) -> list[float]:
    found = json.loads(body)["prediction"]
    return found if isinstance(found, list) else [found]


def tensor(body: bytes) -> list[float]:
    found: list[float] = json.loads(body)["outputs"][0]["data"]
    return found


def _nginx(model: str, folder: Path, port: int) -> list[str]:
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _modelyard(model: str, folder: Path, port: int) -> list[str]:
    return [sys.executable, "-c", SERVE, str(folder / model), str(port)]


def _bare(model: str, folder: Path, port: int) -> list[str]:
    return [sys.executable, str(HERE / "handlers.py"), "bare", str(port)]


def _fastapi(model: str, folder: Path, port: int) -> list[str]:
    return [sys.executable, str(HERE / "handlers.py"), "fastapi", str(port), str(folder / f"{model}.pkl")]


def _flask(model: str, folder: Path, port: int) -> list[str]:
    app = f"handlers:flask_app('{folder / model}.pkl')"
    return [sys.executable, "-m", "gunicorn", "-w1", f"-b127.0.0.1:{port}", f"--chdir={HERE}", app]


PEERS = {
    "nginx-static": Peer(_nginx, named, None, ("linear",), "nginx"),
    "bare-hello": Peer(_bare, named, None, ("linear",)),
    "modelyard": Peer(_modelyard, native, predictions),
    "modelyard-oip": Peer(_modelyard, oip, tensor),
    "fastapi": Peer(_fastapi, named, predictions, needs="fastapi"),
    "gunicorn-1w": Peer(_flask, named, predictions, needs="gunicorn"),
}


def run(folder: Path, scale: float) -> Iterator[dict[str, Any]]:
    """Every peer that there is, on every job that it can do."""
    jobs = make(folder)
    for name, peer in PEERS.items():
        if peer.needs and not (shutil.which(peer.needs) or importlib.util.find_spec(peer.needs)):
            print(f"{name}: left out, for {peer.needs} is not installed")
            continue
        for model in peer.models:
            yield from measure(name, peer, model, jobs, folder, scale)


def measure(
    name: str, peer: Peer, model: str, jobs: dict[str, Job], folder: Path, scale: float
) -> Iterator[dict[str, Any]]:
    cores = sorted(os.sched_getaffinity(0))
    core = cores[1] if len(cores) > 1 else None
    pinned = [] if core is None else ["taskset", "-c", str(cores[0])]
    port = free_port()
    command = [*pinned, *peer.command(model, folder, port)]
    started = time.perf_counter()
    with (folder / f"{name}-{model}.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    about: dict[str, Any] = {}
    try:
        for job, connections, seconds in RUNS[model]:
            path, headers, body = peer.request(jobs[job])
            check(port, peer, jobs[job])
            about = about or {"start_s": time.perf_counter() - started, "mem_mb": megabytes(server.pid)}
            url = f"http://127.0.0.1:{port}{path}"
            wrk(url, headers, body, connections, 1, core=core)
            before, began = (cpu_seconds(server.pid), ours(), busy_seconds()), time.perf_counter()
            found = wrk(url, headers, body, connections, max(1, round(seconds * scale)), core=core)
            after, took = (cpu_seconds(server.pid), ours(), busy_seconds()), time.perf_counter() - began
            served, loaded, busy = (b - a for a, b in zip(before, after, strict=True))
            found |= {
                "peer": name, "job": job, "conns": connections, "pinned": core is not None, **about,
                "cpu_us": served / max(1, found["requests"]) * 1e6, "other_cores": (busy - served - loaded) / took,
            }  # fmt: skip
            yield found
    finally:
        server.terminate()
        server.wait(30)


def check(port: int, peer: Peer, job: Job) -> None:
    """Ask until an answer comes, which must be the model's own."""
    path, headers, body = peer.request(job)
    until = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
            if status == 200 or time.monotonic() > until:
                break
        except (OSError, http.client.HTTPException):
            if time.monotonic() > until:
                raise
        finally:
            connection.close()
        time.sleep(0.02)
    found = job.expected if peer.answer is None else peer.answer(text)
    pairs = zip(found, job.expected, strict=True)
    if status != 200 or not all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6) for a, b in pairs):
        raise SystemExit(f"wrong answer, {status}: {text[:300]!r}")


def ours() -> float:
    """Processor seconds of the load generators that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port
