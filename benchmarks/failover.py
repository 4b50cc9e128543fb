"""Fail-over: two watching processes share a PostgreSQL registry, one is killed, how long until the other decides.

python benchmarks/failover.py postgresql://... [--times 10]

The registry should be an empty one. A decision is what is timed: from SIGKILL to the first row that the new loop wrote.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from modelyard.monitoring.watch import Alive
from modelyard.registry import Registry, states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("registry")
    parser.add_argument("--times", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODELYARD_HOME"] = folder
        registry = Registry.open(options.registry)
        processes = [_start(options.registry, Path(folder), number) for number in range(2)]
        took = []
        try:
            for turn in range(options.times):
                leader = _wait(registry, processes, "")
                processes.append(_start(options.registry, Path(folder), turn + 2))
                time.sleep(3 + turn % 4 / 2)
                processes[leader[0]].send_signal(signal.SIGKILL)
                killed = time.monotonic()
                _wait(registry, processes, leader[1])
                took.append(time.monotonic() - killed)
                print(f"{took[-1]:.1f} s", flush=True)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    print(f"median {statistics.median(took):.1f} s, longest {max(took):.1f} s of {len(took)}")


def _start(url: str, folder: Path, number: int) -> subprocess.Popen[bytes]:
    known = os.environ | {"MODELYARD_REGISTRY": url, "MODELYARD_RECORDS": str(folder / f"records{number}")}
    return subprocess.Popen([sys.executable, "-m", "modelyard", "watch"], env=known, stderr=subprocess.DEVNULL)


def _wait(registry: Registry, processes: list[subprocess.Popen[bytes]], before: str) -> tuple[int, str]:
    """Which process has written that it decides, and what it is called; another one than before."""
    while True:
        text = states.get(registry.database, "loop")
        if text is not None and (holder := msgspec.json.decode(text, type=Alive).holder) != before:
            number = int(holder.split("-")[-2])
            for place, process in enumerate(processes):
                if process.pid == number and process.poll() is None:
                    return place, holder
        time.sleep(0.02)


if __name__ == "__main__":
    main()
