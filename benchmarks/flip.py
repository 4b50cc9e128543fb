"""What requests feel while a new version is loaded, takes over and the old one goes: p99 before and in that second.

python benchmarks/flip.py [--flips 6] [--rate 2000] [--connections 16] [--only linear|trees]

A server follows an alias that is moved between two versions every two seconds, under a steady load: requests are sent
at their times whether or not earlier ones were answered, and latency counts from those times, so that a stall shows
in every request that it held up. With two cores or more, server and load get one each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

SERVE = """
import sys
from modelyard.serving.server import serve
serve(["m@production"], registry=sys.argv[1], port=0, access_log="off",
      on_ready=lambda server: print(server.port, flush=True))
"""


def make(folder: Path, kind: str) -> Path:
    """A registry with two versions of one kind of model."""
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression

    from modelyard.bundle import pack
    from modelyard.registry import Registry

    registry = Registry.open(folder / "home")
    columns = 30 if kind == "trees" else 2
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(3000, columns)), columns=[f"x{i + 1}" for i in range(columns)])
    for scale in (1.0, 2.0):
        truth = scale * (frame.x1 + frame.x2) + 10 * scale
        model: Any = LinearRegression()
        if kind == "trees":
            model = HistGradientBoostingRegressor(max_iter=300, early_stopping=False)
        registry.register(pack(model.fit(frame, truth), folder / f"bundle{scale}", sample=frame[:200]), "m")
    registry.promote("m", 1)
    return folder / "home"


class Load:
    """Requests at a steady rate over a few connections, each answered before the next is sent there."""

    def __init__(self, port: int, columns: int, connections: int, rate: float) -> None:
        body = json.dumps({f"x{i + 1}": 0.5 for i in range(columns)}).encode()
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._request = head % len(body) + body
        self._port = port
        self._connections = connections
        self._step = connections / rate
        #: When each request was due, how long its answer took from then, and whether it was 200.
        self.answers: list[tuple[float, float, bool]] = []
        #: The last answer's body, and when the bodies changed.
        self.last = b""
        self.changes: list[float] = []

    async def run(self, until: asyncio.Event) -> None:
        begin = perf_counter() + 0.1
        offsets = [begin + i * self._step / self._connections for i in range(self._connections)]
        await asyncio.gather(*[self._keep_asking(due, until) for due in offsets])

    async def _keep_asking(self, due: float, until: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not until.is_set():
            wait = due - perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            sent = max(due, perf_counter() - 1e-3)  # the load's own timers are late too: not the server's fault
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            now = perf_counter()
            self.answers.append((sent, now - sent, head.startswith(b"HTTP/1.1 200")))
            version = body.partition(b"prediction")[2][:12]
            if version != self.last:
                self.last = version
                self.changes.append(now)
            due += self._step
        writer.close()


def p99(answers: list[tuple[float, float, bool]], start: float, seconds: float) -> float:
    """In milliseconds."""
    taken = [latency for due, latency, _ in answers if start <= due < start + seconds]
    return float(np.percentile(taken, 99)) * 1e3 if taken else float("nan")


async def measure(home: Path, port: int, columns: int, options: argparse.Namespace) -> dict[str, Any]:
    from modelyard.registry import Registry

    registry = Registry.open(home)
    load = Load(port, columns, options.connections, options.rate)
    stop = asyncio.Event()
    running = asyncio.create_task(load.run(stop))
    await asyncio.sleep(2.0)
    moments = []
    for flip in range(options.flips):
        moments.append(perf_counter())
        await asyncio.to_thread(registry.promote, "m", 2 - flip % 2)
        await asyncio.sleep(2.0)
    stop.set()
    await running
    before = [p99(load.answers, moment - 1.0, 1.0) for moment in moments]
    during = [p99(load.answers, moment, 1.0) for moment in moments]
    ratios = [b / a for a, b in zip(before, during, strict=True)]
    worst = [max(t for due, t, _ in load.answers if m <= due < m + 1.0) * 1e3 for m in moments]
    return {
        "requests": len(load.answers),
        "failed": sum(not ok for _, _, ok in load.answers),
        "flips seen": len(load.changes) - 1,
        "p50 ms": round(median(t for _, t, _ in load.answers) * 1e3, 3),
        "p99 before ms": round(median(before), 2),
        "p99 in the second of the flip ms": round(median(during), 2),
        "ratio": round(median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "worst ms": round(median(worst), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--flips", type=int, default=6)
    parser.add_argument("--rate", type=float, default=2000.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--only", choices=["linear", "trees"])
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    for kind in [options.only] if options.only else ["linear", "trees"]:
        with tempfile.TemporaryDirectory() as folder:
            home = make(Path(folder), kind)
            os.sched_setaffinity(0, cores[:1])  # the server keeps the first core, the load takes the others
            command = [sys.executable, "-c", SERVE, str(home)]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            os.sched_setaffinity(0, cores[1:] or cores)
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline())
                columns = 30 if kind == "trees" else 2
                found = asyncio.run(measure(home, port, columns, options))
            finally:
                os.sched_setaffinity(0, cores)
                server.terminate()
                server.wait()
        print(f"{kind}: {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
