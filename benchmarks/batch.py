"""Batch scoring: seconds and peak memory for CSV and Parquet files of 20 numbers a row through a linear ONNX model.

    python benchmarks/batch.py [--rows 1000000 5000000]

Each measurement is a process of its own, as `modelyard predict` is one, so that its peak memory is its own. Aim: a
million rows in under 10 s, under 500 MB whatever the size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

COLUMNS = 20

_MEASURE = """
import json, resource, sys, time
begun = time.perf_counter()
from pathlib import Path
from modelyard import api
scored = api.predict(Path(sys.argv[1]), sys.argv[2], sys.argv[3], overwrite=True)
seconds = time.perf_counter() - begun
used = resource.getrusage(resource.RUSAGE_SELF)
if sys.platform == "linux":  # ru_maxrss there counts the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
else:
    peak = used.ru_maxrss
cpu = used.ru_utime + used.ru_stime
print(json.dumps({"rows": scored.rows, "seconds": seconds, "cpu": cpu, "peak_mb": peak / 1e6}))
"""


def write_rows(path: Path, rows: int, *, faults: bool = False) -> None:
    """A CSV or Parquet file of random numbers with 17 digits, as data frames write them; ``faults``: 1 row in 1000."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    names = [f"x{i}" for i in range(COLUMNS)]
    generator = np.random.default_rng(0)

    def tables() -> object:
        for start in range(0, rows, 100_000):
            yield pa.table({name: generator.normal(size=min(100_000, rows - start)) for name in names})

    if path.suffix == ".parquet":
        with pyarrow.parquet.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in names])) as writer:
            for table in tables():
                writer.write_table(table)
        return
    with path.open("wb") as file:
        file.write((",".join(names) + "\n").encode())
        for table in tables():
            if not faults:
                pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(include_header=False))
                continue
            sink = pa.BufferOutputStream()
            pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(include_header=False))
            lines = sink.getvalue().to_pybytes().splitlines(keepends=True)
            lines[::1000] = [b"oops" + line for line in lines[::1000]]
            file.write(b"".join(lines))


def package(folder: Path) -> Path:
    """A bundle of a linear regression, converted to ONNX."""
    import numpy as np
    from sklearn.linear_model import LinearRegression

    import modelyard as my

    generator = np.random.default_rng(1)
    rows = {f"x{i}": generator.normal(size=200) for i in range(COLUMNS)}
    matrix = np.column_stack(list(rows.values()))
    model = LinearRegression().fit(matrix, matrix @ np.arange(COLUMNS) + 1)
    return my.package(model, sample=rows, out=folder / "bundle").bundle.folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    given = parser.parse_args()
    print(
        f"{'input':<24}{'output':<10}{'rows':>12}{'seconds':>10}{'cpu s':>8}"
        f"{'rows/s':>12}{'peak MB':>10}{'file MB':>10}"
    )
    with tempfile.TemporaryDirectory(prefix="modelyard-batch-") as name:
        folder = Path(name)
        bundle = package(folder)
        for rows in given.rows:
            for kind, suffix, output, faults in (
                ("csv", ".csv", "parquet", False),
                ("csv, 0.1 % bad rows", ".csv", "csv", True),
                ("parquet", ".parquet", "parquet", False),
            ):
                source = folder / f"rows{suffix}"
                write_rows(source, rows, faults=faults)
                command = [sys.executable, "-c", _MEASURE, str(bundle), str(source), str(folder / f"out.{output}")]
                done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                size = source.stat().st_size / 1e6
                print(
                    f"{kind:<24}{output:<10}{done['rows']:>12,}{done['seconds']:>10.1f}{done['cpu']:>8.1f}"
                    f"{done['rows'] / done['seconds']:>12,.0f}{done['peak_mb']:>10.0f}{size:>10.0f}",
                    flush=True,
                )
                source.unlink()


if __name__ == "__main__":
    main()
