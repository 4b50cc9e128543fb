"""Ten times more than a server can take: how much it still answers, how late, and what it does to its memory.

python benchmarks/overload.py [--milliseconds 5] [--seconds 10] [--times 10] [--patience 0] [--connections 2000]

First against a model that takes some milliseconds of processor time a row, with requests that come at a fixed rate,
whether or not those before are answered (an open loop); then against a fast one, which no generator on this machine
can overload ten times, with thousands of connections (a closed loop, by wrk). Goodput is answers with status 200 a
second, as a share of what the server answers when callers wait for one another.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

from alone import free_port
from load import cpu_seconds, megabytes, wrk

from modelyard.schema import Columns, Field, Signature
from modelyard.serving.server import Server
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle

BODY = b'{"x": 1.5}'

#: Bytes that take about a millisecond to hash, on any machine of these years within a factor of two.
MILLISECOND = bytes(1_000_000)


class OneModel:
    """A registry of one model: y = 2 x, after so many milliseconds of work a row that lets other threads run."""

    def __init__(self, milliseconds: int) -> None:
        field = Field(name="x", dtype="float64"), Field(name="prediction", dtype="float64")

        def predict(columns: Columns) -> dict[str, Any]:
            for _ in range(columns.rows * milliseconds):
                hashlib.sha256(MILLISECOND).digest()
            return {"prediction": columns["x"] * 2}

        self._bundle = MemoryBundle(Signature(inputs=field[:1], outputs=field[1:]), predict, {"x": [1.0]})

    def marker(self) -> int:
        return 0

    def resolve(self, reference: str) -> Wanted:
        return Wanted(model="m", version="1", digest=self._bundle.digest, aliases=(), open=lambda: self._bundle)


class Caller(asyncio.Protocol):
    """One connection of the open loop, with one request at a time."""

    def __init__(self, load: OpenLoop) -> None:
        self.load = load
        self.due = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.load.idle.append(self)

    def ask(self, due: float) -> None:
        self.due = due
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 "):
            status = int(data[9:12])
            self.load.told[status].append((time.perf_counter(), time.perf_counter() - self.due))
            self.load.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.load.lost += 1


class OpenLoop:
    """Requests at a fixed rate. A request for which no connection is free counts as unsent."""

    def __init__(self, port: int, rate: float, seconds: float, connections: int, patience: float) -> None:
        self.port, self.rate, self.seconds, self.connections = port, rate, seconds, connections
        wait = f"x-request-timeout: {patience}\r\n" if patience else ""
        self.request = (
            f"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{wait}"
            f"content-length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY
        self.idle: collections.deque[Caller] = collections.deque()
        #: When the answers came and how late, by status.
        self.told: dict[int, list[tuple[float, float]]] = collections.defaultdict(list)
        self.unsent = self.lost = 0

    async def run(self, pid: int) -> list[float]:
        """The server's memory, four times a second, in MB."""
        loop = asyncio.get_running_loop()
        for _ in range(self.connections):
            await loop.create_connection(lambda: Caller(self), "127.0.0.1", self.port)
        memory, sent = [], 0
        self.began = began = time.perf_counter()
        while (now := time.perf_counter()) < began + self.seconds:
            if now - began > len(memory) / 4:
                memory.append(megabytes(pid, "Rss"))
            while sent < (now - began) * self.rate:
                due, sent = began + sent / self.rate, sent + 1
                if self.idle:
                    self.idle.popleft().ask(due)
                else:
                    self.unsent += 1
            await asyncio.sleep(0.0005)
        return memory


def start(milliseconds: int, core: int | None) -> tuple[subprocess.Popen[bytes], int]:
    """A server of the model, and its port, once it answers."""
    port = free_port()
    command = [sys.executable, __file__, "--serve", str(port), "--milliseconds", str(milliseconds)]
    server = subprocess.Popen(command if core is None else ["taskset", "-c", str(core), *command])
    url = f"http://127.0.0.1:{port}/predict"
    while True:
        time.sleep(0.2)
        if server.poll() is not None:
            sys.exit("the server ended")
        try:
            found = wrk(url, {}, BODY, 1, 1)
        except RuntimeError:
            continue
        if found["requests"] > found["bad_status"] + found["socket_errors"]:
            return server, port


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def slow(given: argparse.Namespace, cores: list[int]) -> None:
    """A model of some milliseconds a row, asked ten times more often than it can."""
    import uvloop

    server, port = start(given.milliseconds, None if len(cores) < 2 else cores[0])
    try:
        before = cpu_seconds(server.pid)
        calm = wrk(f"http://127.0.0.1:{port}/predict", {}, BODY, 16, 5, core=cores[-1])
        each = (cpu_seconds(server.pid) - before) / calm["requests"]
        capacity = calm["rps"]
        load = OpenLoop(port, capacity * given.times, given.seconds, given.connections, given.patience)
        before = cpu_seconds(server.pid)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            memory = runner.run(load.run(server.pid))
        spent = cpu_seconds(server.pid) - before
        # The first second fills the queue; a call that is under way at the end is not counted, so none before is.
        steady = [(when, late) for when, late in load.told[200] if when > load.began + 1]
        took = steady[-1][0] - steady[0][0]
        late, rate = [late for _, late in steady], sum(when > steady[0][0] for when, _ in steady) / took
        print(f"a slow model, calm: {capacity:,.0f} requests/s, p99 {calm['p99_us'] / 1000:.0f} ms")
        print(f"  offered {load.rate:,.0f}/s for {given.seconds} s, answered {rate:,.0f}/s: {rate / capacity:.1%}")
        print(
            f"  calls of the model took {each * rate:.2f} of the {spent / given.seconds:.2f} cores that the server got"
        )
        print(
            f"  of those accepted: p50 {percentile(late, 0.5) * 1000:,.0f}, p99 {percentile(late, 0.99) * 1000:,.0f} ms"
        )
        for status, told in sorted(load.told.items()):
            lates = [late for _, late in told]
            print(f"  status {status}: {len(told):,}, p50 {percentile(lates, 0.5) * 1000:,.1f} ms")
        print(f"  unsent, for no connection was free: {load.unsent:,}; connections lost: {load.lost}")
        tell_memory(memory)
    finally:
        server.terminate()
        server.wait(60)


def fast(given: argparse.Namespace, cores: list[int]) -> None:
    """A model of microseconds, asked by more and more connections."""
    server, port = start(0, None if len(cores) < 2 else cores[0])
    url, memory = f"http://127.0.0.1:{port}/predict", []
    try:
        wrk(url, {}, BODY, 64, 2, core=cores[-1])
        first = 0.0
        for count in (64, 1024, 4096, 64):
            found = wrk(url, {}, BODY, count, max(2, given.seconds // 2), core=cores[-1])
            rate = (found["requests"] - found["bad_status"]) / found["seconds"]
            first = first or rate
            memory.append(megabytes(server.pid, "Rss"))
            print(
                f"a fast model, {count:5} connections: {rate:8,.0f}/s ({rate / first:.1%}), p99 "
                f"{found['p99_us'] / 1000:.1f} ms, refused {found['bad_status']}, errors {found['socket_errors']}"
            )
        tell_memory(memory)
    finally:
        server.terminate()
        server.wait(60)


def tell_memory(memory: list[float]) -> None:
    most = max((b - a for a, b in pairwise(memory)), default=0)
    print(
        f"  memory {memory[0]:.0f} MB at first, {max(memory):.0f} at most, {memory[-1]:.0f} at last; {most:.0f} at once"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--milliseconds", type=int, default=5, help="what the slow model takes a row")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--times", type=float, default=10, help="how many times its capacity it is asked")
    parser.add_argument("--patience", type=float, default=0, help="seconds that callers say they wait; 0: say nothing")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))
    if given.serve:
        milliseconds = given.milliseconds
        Server(
            ["m"], source=lambda: OneModel(milliseconds), port=given.serve, log_level="error", access_log="off"
        ).run()
        return
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; on Debian: apt-get install wrk")
    cores = sorted(os.sched_getaffinity(0))
    slow(given, cores)
    fast(given, cores)


if __name__ == "__main__":
    main()
