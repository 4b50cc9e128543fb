"""Modelyard and other servers side by side, on one small job each, as Markdown tables.

    python benchmarks/side_by_side.py [--scale 0.5] [--out results.jsonl] [--page docs/performance.md]

By itself it measures what is installed here: nginx, a bare protocol, FastAPI, gunicorn with Flask. With a harness of
many servers, ``PEERS=/path/to/it`` names its folder: its ``run.py`` then measures ``--peers``, Modelyard among them
(``peer.py`` tells it how). Needs Linux and wrk; results are added to ``--out``, and the tables made of all that is
in it, so that a disturbed run is repaired by another.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import alone
import request_path
import tables

HERE = Path(__file__).parent

#: What a harness is asked for.
PEERS = (
    "nginx-static bare-hello bare-batch rsgi-hello modelyard modelyard-oip modelyard-oip-binary modelyard-oip-grpc "
    "triton-pyort triton-pyort-binary triton-pyort-grpc mlserver-0 mlserver-0-grpc fastapi flask gunicorn-1w django "
    "litestar kserve bentoml litserve mlflow"
)


def with_harness(folder: Path, given: argparse.Namespace) -> None:
    """Have the harness measure, one run of it for all peers; it goes on where one of them fails."""
    environment = {**os.environ, "PEERS_EXTRA": str(HERE / "peer.py")}
    options = ["--only", "pinned:linear,pinned:trees", "--scale", str(given.scale), "--out", str(given.out.resolve())]
    command = [sys.executable, "run.py", *given.peers.split(), *options]
    subprocess.run(command, cwd=folder, env=environment, check=True)


def by_itself(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder, given.out.open("a") as out:
        for line in alone.run(Path(folder), given.scale):
            out.write(json.dumps(line) + "\n")
            out.flush()
            where = f"{line['peer']:16}{line['job']:12}{line['conns']:4}"
            print(f"{where}{line['rps']:10,.0f} requests/s{line['cpu_us']:8.0f} us of CPU", flush=True)


def render(lines: Sequence[dict[str, Any]]) -> str:
    stages = request_path.stages(64)
    about = (
        f"Python {platform.python_version()}, {os.cpu_count()} cores: one for the server, another for the load. "
        f"Load average {os.getloadavg()[2]:.1f}; other programs took up to {tables.disturbance(lines):.2f} of a core. "
        "In brackets: how many times a server's requests a second Modelyard answers, and how many times Modelyard's "
        "processor time the server takes."
    )
    more = (
        "The linear model with other numbers of connections; the time from the start of the process to the first "
        "answer, and the memory then:"
    )
    parts = [
        about,
        tables.side_by_side(lines),
        more,
        tables.connections(lines),
        tables.failures(lines),
        "Where the time of a request goes, without the sockets (64 requests in one turn of the event loop):",
        tables.table(["stage", "us"], [[name.strip(), f"{value:.2f}"] for name, value in stages.items()]),
    ]
    return "\n\n".join(part for part in parts if part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=PEERS, help="what the harness measures")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every duration")
    parser.add_argument("--out", type=Path, default=Path(".bench/results.jsonl"))
    parser.add_argument("--page", type=Path, help="where the tables go, between the marks")
    parser.add_argument("--report", action="store_true", help="measure nothing: make the tables of what is in --out")
    given = parser.parse_args()
    missing = [name for name in ("wrk", "taskset") if shutil.which(name) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; on Debian: apt-get install wrk nginx-light util-linux")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if not given.report:
        harness = os.environ.get("PEERS")
        if harness:
            with_harness(Path(harness), given)
        else:
            by_itself(given)
    text = render([json.loads(line) for line in given.out.read_text().splitlines()])
    print(text)
    if given.page is not None:
        tables.put(given.page, text)


if __name__ == "__main__":
    main()
