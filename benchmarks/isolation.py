"""What a process of its own costs a model: microseconds a call beyond the model's own, for one row and for 1000.

    python benchmarks/isolation.py [--calls 2000]

The model is scikit-learn's linear regression on 30 columns, kept as it is. Each way is measured in turns with the
model called here, so that a busy machine slows both. Aim: under 150 us for one row, under 500 us for 1000 rows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression

from modelyard.bundle import Bundle, pack
from modelyard.schema import Columns
from modelyard.serving.isolation.keeper import Keeper, Order
from modelyard.serving.isolation.remote import Remote
from modelyard.serving.worker import new_loop
from modelyard.telemetry import Log

COLUMNS = 30


def bundle_in(folder: Path) -> Bundle:
    rows = np.random.default_rng(0).normal(size=(500, COLUMNS))
    sample = {f"x{i}": rows[:, i] for i in range(COLUMNS)}
    return pack(LinearRegression().fit(rows, rows.sum(axis=1)), folder, sample=sample, convert=False)


async def measure(ways: dict[str, Callable[[], Awaitable[Any]]], calls: int) -> dict[str, list[float]]:
    """Microseconds of each call of each way, in turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(calls):
        for name, way in ways.items():
            started = time.perf_counter()
            await way()
            found[name].append((time.perf_counter() - started) * 1e6)
    return found


async def compare(bundle: Bundle, remote: Remote, rows: int, calls: int) -> None:
    here = bundle.load()
    made = np.random.default_rng(1).normal(size=(rows, COLUMNS))
    columns = Columns(bundle.signature.input_layout, [made], rows)
    loop = asyncio.get_running_loop()
    expected = here(columns)["prediction"]

    async def model() -> Any:
        return here(columns)

    async def thread() -> Any:
        return remote.predict(columns)

    async def call() -> Any:
        answer: asyncio.Future[Any] = loop.create_future()
        remote.call(columns, 60.0, answer.set_result)
        return await answer

    for way in (model, thread, call):
        assert np.array_equal((await way())["prediction"], expected)
    found = await measure({"model, here": model, "waiting thread": thread, "event loop": call}, calls)
    base = np.percentile(found["model, here"], [10, 50, 90])
    for name, times in found.items():
        at = np.percentile(times, [10, 50, 90])
        beyond = "" if name == "model, here" else f"   beyond the model: {at[0] - base[0]:5.0f} {at[1] - base[1]:5.0f}"
        print(f"{rows:5} rows  {name:15} p10 {at[0]:6.0f}  p50 {at[1]:6.0f}  p90 {at[2]:6.0f} us{beyond}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    calls = parser.parse_args().calls
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundle_in(Path(folder) / "bundle")
        keeper = Keeper(Log("error"))
        started = time.perf_counter()
        address = keeper.start(Order(path=str(bundle.path), digest=bundle.digest))
        print(f"start to ready: {time.perf_counter() - started:.2f} s")
        remote = Remote(address, bundle.signature)
        loop = new_loop()
        for rows in (1, 1000):
            loop.run_until_complete(compare(bundle, remote, rows, calls))
        print(f"memory of the process: {remote.memory / 2**20:.0f} MB")
        (process,) = before = remote.processes
        os.kill(process, signal.SIGKILL)
        started = time.perf_counter()
        while remote.processes in ((), before):
            time.sleep(0.005)
        print(f"killed to replaced: {time.perf_counter() - started:.2f} s")
        remote.close()
        keeper.close()


if __name__ == "__main__":
    main()
