"""What recording costs: two servers of the same model, one that records and one that does not, asked by turns.

    python benchmarks/recording.py [--pairs 4] [--blocks 40] [--rounds 12] [--idle 20] [--starts 7]
                                   [--only latency,load,memory,idle,start]

The model is linear on twenty numbers. Both servers are on the first core and whoever asks on the second; the process
that records is by turns on either of them, as there is no third. Needs Linux, two cores and wrk. Parts:

latency   one caller on one connection: blocks of 200 requests to either server, by turns; with several pairs of
          servers, as two servers of the same kind differ by some microseconds too
load      64 connections, rounds of a second by turns; processor time a request, also the recorder's, and what was lost
memory    of the server and of the recorder, after the above
idle      processor time of the recorder while nobody asks
start     from the start of the process to the first answer
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import load
import numpy as np

from modelyard.recording.places import Places

SERVER, ASKER = 0, 1
FEATURES = 20
BODY = json.dumps({f"x{i + 1}": round(0.1 * i - 0.7, 3) for i in range(FEATURES)}).encode()
REQUEST = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY
BLOCK, WARM = 200, 20


def make(folder: Path) -> Path:
    """A home with the model."""
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    from modelyard.bundle import pack
    from modelyard.registry import Registry

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(2000, FEATURES)), columns=[f"x{i + 1}" for i in range(FEATURES)])
    model = LinearRegression().fit(frame, frame.to_numpy() @ np.arange(FEATURES))
    registry = Registry.open(folder / "home")
    registry.register(pack(model, folder / "bundle", sample=frame[:500]), "m")
    registry.promote("m", 1)
    registry.close()
    return folder / "home"


class Server:
    """``modelyard serve`` on the first core."""

    def __init__(self, home: Path, *, records: bool) -> None:
        command = [sys.executable, "-m", "modelyard", "serve", "m@production", "--port", "0", "--json"]
        command.append("--record" if records else "--no-record")
        known = {**os.environ, "MODELYARD_HOME": str(home), "MODELYARD_LOG_LEVEL": "warning"}
        os.sched_setaffinity(0, {SERVER})
        began = time.perf_counter()
        self.process = subprocess.Popen(
            command, env=known, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )  # fmt: skip
        os.sched_setaffinity(0, {ASKER})
        assert self.process.stdout is not None
        self.port = int(json.loads(self.process.stdout.readline())["url"].rpartition(":")[2])
        self.connection = socket.create_connection(("127.0.0.1", self.port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ask()
        self.seconds = time.perf_counter() - began

    def ask(self) -> bytes:
        self.connection.sendall(REQUEST)
        return self.connection.recv(65536)

    def block(self) -> np.ndarray[Any, Any]:
        """Microseconds of so many requests, one after the other; the first are not counted."""
        took = []
        for _ in range(WARM + BLOCK):
            began = time.perf_counter_ns()
            answer = self.ask()
            took.append(time.perf_counter_ns() - began)
            assert answer.startswith(b"HTTP/1.1 200"), answer
        return np.array(took[WARM:]) / 1e3

    @property
    def cpu(self) -> float:
        """Processor seconds of the process itself."""
        return own_cpu(self.process.pid)

    def end(self) -> None:
        self.connection.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def own_cpu(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / load.TICK


def pin(process: int, core: int) -> None:
    """Every thread of a process."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def status(process: int, field: str) -> float:
    """Megabytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


@contextmanager
def pair(home: Path, *, swapped: bool = False) -> Iterator[tuple[Server, Server, int]]:
    """A server that does not record, one that does, and the process that records."""
    places = Places(home / "records")
    first, second = Server(home, records=swapped), Server(home, records=not swapped)
    off, on = (second, first) if swapped else (first, second)
    try:
        until = time.monotonic() + 30
        while (recorder := places.recorder()) is None:
            assert time.monotonic() < until, "nobody records"
            time.sleep(0.1)
        time.sleep(3.0)  # it has its own start behind it
        yield off, on, recorder
    finally:
        off.end()
        on.end()


Blocks = dict[str, list[Any]]


def ask_by_turns(off: Server, on: Server, blocks: int) -> Blocks:
    found: Blocks = {"off": [], "on": []}
    for number in range(blocks):
        turn = [("off", off), ("on", on)]
        for name, server in turn if number % 2 else reversed(turn):
            found[name].append(server.block())
    return found


def latency(found: Blocks) -> dict[str, Any]:
    """Of each block, and the median of the blocks: what disturbs the machine for a moment is in one of them."""
    told: dict[str, Any] = {}
    for share in (50, 99):
        by_block = {name: np.array([np.percentile(each, share) for each in many]) for name, many in found.items()}
        added = by_block["on"] - by_block["off"]
        told[f"p{share}_off_us"] = round(float(np.median(by_block["off"])), 1)
        told[f"p{share}_on_us"] = round(float(np.median(by_block["on"])), 1)
        told[f"p{share}_added_us"] = round(float(np.median(added)), 1)
        told[f"p{share}_middle_half_us"] = [round(float(np.percentile(added, q)), 1) for q in (25, 75)]
    return told


def throughput(off: Server, on: Server, recorder: int, rounds: int) -> dict[str, Any]:
    url, rates, cpu = "http://127.0.0.1:{}/predict", ([], []), ([], [])
    kept, requests = 0.0, 0
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            server = (off, on)[which]
            before, busy = server.cpu, own_cpu(recorder)
            done = load.wrk(url.format(server.port), {}, BODY, 64, 1, core=ASKER)
            assert not done["bad_status"] + done["socket_errors"], done
            rates[which].append(done["rps"])
            cpu[which].append((server.cpu - before) / done["requests"] * 1e6)
            time.sleep(0.5)  # the recorder comes to the end of it
            if which:
                kept, requests = kept + own_cpu(recorder) - busy, requests + done["requests"]
    ratios = [b / a for a, b in zip(*rates, strict=True)]
    return {
        "rps_off": round(median(rates[0])), "rps_on": round(median(rates[1])),
        "ratio": round(median(ratios), 3), "ratios": [round(min(ratios), 2), round(max(ratios), 2)],
        "server_us_off": round(median(cpu[0]), 1), "server_us_on": round(median(cpu[1]), 1),
        "recorder_us": round(kept / requests * 1e6, 1), "requests": requests,
    }  # fmt: skip


def lost_rows(home: Path) -> dict[str, Any]:
    from modelyard.recording.status import status as told

    found = told(Places(home / "records"))
    return {
        "rows": sum(each["rows"] for each in found["models"]),
        "lost": sum(each["lost"] for each in found["models"]) + sum(each["lost"] for each in found["rings"]),
        "not_kept": sum(each["not_kept"] for each in found["models"]),
    }


def starts(home: Path, count: int) -> dict[str, Any]:
    took: dict[bool, list[float]] = {False: [], True: []}
    for number in range(count):
        for records in (False, True) if number % 2 else (True, False):
            server = Server(home, records=records)
            took[records].append(server.seconds)
            time.sleep(2.0 if records else 0.0)  # the recorder's own start is not to fall on the next server's
            server.end()
            time.sleep(2.0 if records else 0.0)
    return {"off_s": round(median(took[False]), 3), "on_s": round(median(took[True]), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--idle", type=float, default=20.0)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--only", default="latency,load,memory,idle,start", help="parts, comma-separated")
    given = parser.parse_args()
    parts = given.only.split(",")

    def tell(part: str, found: dict[str, Any]) -> None:
        print(f"{part}: {json.dumps(found)}", flush=True)

    cores = (("beside", ASKER), ("on the server's core", SERVER))
    with tempfile.TemporaryDirectory() as folder:
        home = make(Path(folder))
        if "latency" in parts:
            found: dict[str, Blocks] = {name: {"off": [], "on": []} for name, _ in cores}
            for number in range(given.pairs):
                with pair(home, swapped=number % 2 == 1) as (off, on, recorder):
                    for name, core in cores:
                        pin(recorder, core)
                        ask_by_turns(off, on, 3)
                        for which, blocks in ask_by_turns(off, on, given.blocks).items():
                            found[name][which] += blocks
            for name, blocks in found.items():
                tell(f"latency, recorder {name}", latency(blocks))
        if {"load", "memory", "idle"} & set(parts):
            with pair(home) as (off, on, recorder):
                for name, core in cores if "load" in parts else ():
                    pin(recorder, core)
                    throughput(off, on, recorder, 1)
                    tell(f"load, recorder {name}", throughput(off, on, recorder, given.rounds))
                    time.sleep(1.0)
                    tell("  so far", lost_rows(home))
                if "memory" in parts:
                    tell("memory", memory(off, on, recorder))
                if "idle" in parts:
                    time.sleep(2.0)
                    before = own_cpu(recorder)
                    time.sleep(given.idle)
                    tell("idle", {"recorder_percent": round((own_cpu(recorder) - before) / given.idle * 100, 2)})
        if "start" in parts:
            tell("start", starts(home, given.starts))


def memory(off: Server, on: Server, recorder: int) -> dict[str, Any]:
    """Megabytes."""
    servers = {"server_off": off.process.pid, "server_on": on.process.pid}
    told = {name: round(status(process, "VmRSS"), 1) for name, process in servers.items()}
    return told | {f"recorder_{kind}": round(status(recorder, kind), 1) for kind in ("VmRSS", "VmHWM", "RssAnon")}


if __name__ == "__main__":
    main()
