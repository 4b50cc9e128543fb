"""Labels: a CSV file of millions into the ledger, the same again, and joined with predictions; seconds and peak memory.

    python benchmarks/labels.py [--rows 1000000] [--predictions 1000000] [--shuffled] [--registry postgresql://...]

Each step is a process of its own, so that its peak memory is its own. Aim: ten million rows under 500 MB, and others
whose labels come meanwhile are kept within seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

_MEASURE = """
import json, resource, sys, time
from pathlib import Path
from modelyard import api
begun = time.perf_counter()
if sys.argv[1] == "send":
    told = api.send_labels("m", sys.argv[2]).received
else:
    told = api.join_labels()["m"].joined
seconds = time.perf_counter() - begun
used = resource.getrusage(resource.RUSAGE_SELF)
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps({"rows": told, "seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "peak_mb": peak / 1e6}))
"""

#: Rows of one segment.
_SEGMENT = 250_000


def prepare(folder: Path, rows: int, predictions: int, shuffled: bool) -> None:
    """A registered model, its recorded predictions and a file of labels of the first of them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from modelyard import api
    from recorded import bundle_of, table_of

    api.open_registry().register(bundle_of(folder / "bundle"), "m")
    schema = table_of([]).schema
    segments = folder / "home" / "records" / "segments" / "model=m" / "version=1"
    segments.mkdir(parents=True)
    drawn = np.random.default_rng(0)
    begin = np.datetime64("2026-01-01T00:00:00", "us")
    for first in range(0, predictions, _SEGMENT):
        count = min(_SEGMENT, predictions - first)
        p = drawn.random(count)
        ids = pa.array([f"9f86d081884c-{number:x}" for number in range(first, first + count)])
        moments = begin + (np.arange(first, first + count) * 100_000).astype("timedelta64[us]")
        given = {
            "prediction_id": ids, "request_id": ids, "time": pa.array(moments, pa.timestamp("us", "UTC")),
            "code": pa.repeat("ok", count), "out.prediction": pa.array(np.where(p > 0.5, "yes", "no")),
            "out.probabilities": pa.array(list(np.stack([1 - p, p], axis=1)), pa.list_(pa.float64())),
        }  # fmt: skip
        columns = [given.get(field.name, pa.nulls(count, field.type)) for field in schema]
        path = segments / f"20260101T{first // _SEGMENT:09d}-bench.parquet"
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression="zstd")
    numbers = list(range(rows))
    if shuffled:
        random.Random(0).shuffle(numbers)
    with (folder / "labels.csv").open("w") as file:
        file.write("prediction_id,label\n")
        file.writelines(f"9f86d081884c-{number:x},{'yes' if number % 3 else 'no'}\n" for number in numbers)


def measure(what: str, folder: Path) -> dict[str, float]:
    """One step; meanwhile somebody else sends a label now and then, and the longest wait is told as well."""
    from modelyard import api
    from modelyard.truth import Label

    ledger, waits, over = api.open_registry().labels, [0.0], threading.Event()

    def disturb() -> None:
        number = 0
        while not over.wait(0.5):
            begun = time.perf_counter()
            ledger.add("other", [Label(f"{what} {number}", "yes")])
            waits.append(time.perf_counter() - begun)
            number += 1

    other = threading.Thread(target=disturb)
    other.start()
    command = [sys.executable, "-c", _MEASURE, what.split()[0], str(folder / "labels.csv")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    over.set()
    other.join()
    if done.returncode:
        raise SystemExit(done.stderr)
    return {**json.loads(done.stdout), "longest_wait": max(waits)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--predictions", type=int, default=None, help="recorded; as many as labels if not given")
    parser.add_argument("--shuffled", action="store_true", help="labels in no order")
    parser.add_argument("--registry", default="", help="a postgresql:// URL in place of SQLite")
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        os.environ["MODELYARD_HOME"] = str(folder / "home")
        if given.registry:
            os.environ["MODELYARD_REGISTRY"] = given.registry
        prepare(folder, given.rows, given.predictions or given.rows, given.shuffled)
        print(f"{'step':<12}{'rows':>12}{'seconds':>10}{'cpu s':>9}{'rows/s':>11}{'peak MB':>9}{'longest wait s':>16}")
        for what in ("send", "send again", "join", "join again"):
            found = measure(what, folder)
            rate = found["rows"] / found["seconds"]
            print(
                f"{what:<12}{found['rows']:>12,}{found['seconds']:>10.1f}{found['cpu']:>9.1f}{rate:>11,.0f}"
                f"{found['peak_mb']:>9.0f}{found['longest_wait']:>16.2f}",
                flush=True,
            )
        if not given.registry:
            size = sum(path.stat().st_size for path in (folder / "home").glob("registry.db*"))
            print(f"the registry takes {size / 1e6:,.0f} MB, {size / given.rows:.0f} bytes a label")


if __name__ == "__main__":
    main()
