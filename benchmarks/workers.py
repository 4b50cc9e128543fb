"""What workers bring and cost: requests a second and memory with one, two and more of them, and how connections fall.

python benchmarks/workers.py [--workers 1,2] [--rows 1,100] [--connections 64] [--seconds 4]

Needs wrk, scikit-learn, and as many cores as workers and one more for wrk; with fewer, wrk takes its share of theirs.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = """
import sys
from modelyard.serving.server import serve
serve([sys.argv[1]], port=0, workers=int(sys.argv[2]), access_log="off",
      on_ready=lambda server: print(server.port, flush=True))
"""
COLUMNS = 20


def make_bundle(folder: Path) -> None:
    """Twenty columns into a linear model."""
    import numpy as np
    from sklearn.linear_model import LinearRegression

    from modelyard.bundle import pack

    rng = np.random.default_rng(0)
    sample = {f"x{i}": rng.normal(size=200) for i in range(COLUMNS)}
    matrix = np.stack(list(sample.values()), axis=1)
    model = LinearRegression().fit(matrix, matrix @ rng.normal(size=COLUMNS))
    pack(model, folder, sample=sample)


def processes(parent: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout
    return [parent, *map(int, found.split())]


def megabytes(process: int) -> tuple[float, float]:
    """Resident memory of a process, and what of it is its own."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    kilobytes = dict(re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE))
    own = int(kilobytes["Private_Clean"]) + int(kilobytes["Private_Dirty"])
    return int(kilobytes["Rss"]) / 1024, own / 1024


def ticks(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(port: int, connections: int) -> list[int]:
    """How many of so many connections each worker has; a worker's request ids begin alike."""
    made = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(connections)]
    for connection in made:
        connection.connect()
    found: collections.Counter[str] = collections.Counter()
    for connection in made:
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        answer.read()
        found[str(answer.headers["x-request-id"]).partition("-")[0]] += 1
        connection.close()
    return sorted(found.values())


def load(port: int, rows: int, given: argparse.Namespace, folder: Path) -> tuple[float, str]:
    """Requests a second, and the 99th percentile."""
    row = {f"x{i}": round(0.1 * i - 1, 3) for i in range(COLUMNS)}
    script = folder / f"rows{rows}.lua"
    body = json.dumps(row if rows == 1 else [row] * rows)
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = {json.dumps(body)}\nwrk.headers["Content-Type"] = "application/json"\n'
    )
    command = ["wrk", "-t1", f"-c{given.connections}", f"-d{given.seconds}", "--latency", "-s", str(script)]
    out = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/predict"], capture_output=True, text=True, check=True
    ).stdout
    assert "Non-2xx" not in out and "Socket errors" not in out, out
    rate, late = re.search(r"Requests/sec: +([\d.]+)", out), re.search(r"99% +(\S+)", out)
    assert rate is not None and late is not None
    return float(rate[1]), late[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--rows", default="1,100")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=4)
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed")
    first: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_bundle(folder / "bundle")
        for workers in map(int, given.workers.split(",")):
            started = time.perf_counter()
            command = [sys.executable, "-c", PROGRAM, str(folder / "bundle"), str(workers)]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert server.stdout is not None
            port = int(server.stdout.readline())
            print(f"{workers} worker(s): ready after {time.perf_counter() - started:.2f} s")
            try:
                for rows in map(int, given.rows.split(",")):
                    measure(server, port, rows, given, folder, first)
                print(f"  {given.connections} connections fall {spread(port, given.connections)}")
                for process in processes(server.pid):
                    resident, own = megabytes(process)
                    role = "worker" if process != server.pid or workers == 1 else "supervisor"
                    print(f"  {role:10} {resident:6.0f} MB resident, {own:6.0f} MB its own")
            finally:
                server.terminate()
                server.wait(30)


def measure(
    server: subprocess.Popen[str],
    port: int,
    rows: int,
    given: argparse.Namespace,
    folder: Path,
    first: dict[int, float],
) -> None:
    load(port, rows, argparse.Namespace(**{**vars(given), "seconds": 1}), folder)
    before = {process: ticks(process) for process in processes(server.pid)}
    rate, late = load(port, rows, given, folder)
    spent = sum(ticks(process) - ago for process, ago in before.items())
    first.setdefault(rows, rate)
    print(
        f"  {rows:4} row(s): {rate:8.0f} requests/s ({rate / first[rows]:.2f}x), p99 {late}, "
        f"{spent / (rate * given.seconds) * 1e6:.0f} us of CPU a request"
    )


if __name__ == "__main__":
    main()
