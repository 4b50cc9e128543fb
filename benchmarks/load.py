"""What a load does to a server: wrk's figures, and what the server's processes take of processor and memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

TICK = os.sysconf("SC_CLK_TCK")

#: Tells of a run in one line of JSON; microseconds throughout.
SCRIPT = """
wrk.method = "POST"
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.body = file:read("*a")
file:close()
for name, value in string.gmatch(os.getenv("BENCH_HEADERS"), "([^:;]+):([^;]+)") do
  wrk.headers[name] = value
end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %.4f, "p50_us": %d, "p99_us": %d, "socket_errors": %d, ' ..
    '"bad_status": %d, "timeouts": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write, errors.status, errors.timeout))
end
"""


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, rest = [], [pid]
    while rest:
        process = rest.pop()
        found.append(process)
        rest += children.get(process, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Processor seconds that a process and its family have used."""
    total = 0
    for process in family(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def megabytes(pid: int, kind: str = "Pss") -> float:
    """Memory of a process and its family; what several share is divided among them, unless ``kind`` is Rss."""
    total = 0
    for process in family(pid):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(rf"^{kind}: +(\d+) kB", text, re.MULTILINE)
        total += int(found[1]) if found else 0
    return total / 1024


def busy_seconds() -> float:
    """Processor seconds that everything on this machine has used."""
    ticks = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICK


def wrk(
    url: str, headers: dict[str, str], body: bytes, connections: int, seconds: int, *, core: int | None = None
) -> dict[str, Any]:
    """Keep so many connections busy with one request each; raises RuntimeError where wrk says nothing."""
    with tempfile.NamedTemporaryFile() as file, tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        file.write(body)
        file.flush()
        script.write(SCRIPT)
        script.flush()
        told = {"Content-Type": "application/json", **headers}
        environment = {
            **os.environ, "BENCH_BODY": file.name, "BENCH_HEADERS": ";".join(f"{k}:{v}" for k, v in told.items()),
        }  # fmt: skip
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script.name, url]
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        done = subprocess.run([*pinned, *command], env=environment, capture_output=True, text=True, check=False)
    line = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if line is None:
        raise RuntimeError(done.stdout[-300:] + done.stderr[-300:])
    found: dict[str, Any] = json.loads(line[1])
    found["rps"] = found["requests"] / found["seconds"]
    return found
