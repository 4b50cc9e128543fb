"""Modelyard inside Flask, Django and FastAPI beside what is usually written there: a pickle and a data frame a request.

python benchmarks/mounts.py [--only flask,django,fastapi] [--connections 64] [--seconds 4] [--rounds 3]

Each runs as one process on one core, wrk on another: gunicorn with four threads, or uvicorn. Those of a framework are
asked in turn, so that what else the machine does disturbs all of them alike; the medians of the rounds are told. Needs
wrk, taskset, scikit-learn, gunicorn, uvicorn and the frameworks.
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
from statistics import median_low

COLUMNS = 20
ROW = {f"x{i}": round(0.1 * i - 1, 3) for i in range(COLUMNS)}

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
    shutil.copy(Path(__file__).with_name("mount_hosts.py"), folder / "hosts.py")
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


class Host:
    """One of the applications, served."""

    def __init__(self, app: str, command: str, given: argparse.Namespace, folder: Path) -> None:
        self.app = app
        self.port = free_port()
        self.rates: list[float] = []
        self.spent: list[float] = []
        self.waits: list[str] = []
        self._given, self._folder = given, folder
        self._words = command.format(port=self.port, app=app).split()
        self._server = subprocess.Popen(
            ["taskset", "-c", str(given.server_core), sys.executable, "-m", *self._words], cwd=folder,
            env={**os.environ, "FOLDER": str(folder), "OMP_NUM_THREADS": "1", "MODELYARD_LOG_LEVEL": "error"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def warm(self, expected: float) -> None:
        """Wait until it serves, and check what it answers."""
        until = time.monotonic() + 60
        while True:
            try:
                answer = ask(self.port)
                break
            except OSError:
                if self._server.poll() is not None or time.monotonic() > until:
                    sys.exit(f"{self.app} does not start: {' '.join(self._words)}")
                time.sleep(0.1)
        if "nothing" not in self.app and abs(answer - expected) > 1e-4:
            sys.exit(f"{self.app} answers {answer}, not {expected}")
        load(self.port, 1, self._given, self._folder)

    def measure(self) -> None:
        seconds = self._given.seconds
        before = processor_seconds(self._server.pid)
        rate, half, late = load(self.port, seconds, self._given, self._folder)
        self.rates.append(rate)
        self.spent.append((processor_seconds(self._server.pid) - before) / (rate * seconds) * 1e6)
        self.waits.append(f"{half:>9} | {late:>9}")

    def row(self, usual: Host) -> str:
        """Medians of the rounds; the waits are those of the round with the median rate."""
        rate, spent = median_low(self.rates), median_low(self.spent)
        ratios = f"{rate / median_low(usual.rates):4.1f}x | {median_low(usual.spent) / spent:4.1f}x"
        return f"| {self.app:20} | {rate:8.0f} | {spent:6.0f} us | {ratios} | {self.waits[self.rates.index(rate)]} |"

    def stop(self) -> None:
        os.killpg(self._server.pid, signal.SIGTERM)
        self._server.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SERVERS))
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    given = parser.parse_args()
    if shutil.which("wrk") is None or shutil.which("taskset") is None:
        sys.exit("wrk and taskset are needed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = prepare(folder)
        print("| inside | requests/s | CPU a request | ratio | of CPU | p50 | p99 |\n|---|---|---|---|---|---|---|")
        for framework in given.only.split(","):
            command, apps = SERVERS[framework]
            hosts = [Host(app, command, given, folder) for app in apps]
            try:
                for host in hosts:
                    host.warm(expected)
                for host in hosts * given.rounds:
                    host.measure()
                for host in hosts:
                    print(host.row(hosts[0]), flush=True)
            finally:
                for host in hosts:
                    host.stop()


if __name__ == "__main__":
    main()
