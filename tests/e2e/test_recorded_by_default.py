"""What a person gets who says nothing of recording: a server that is watched, and that nothing of it holds up."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import Place, as_it_comes
from modelyard.recording.places import Places
from receivers import waited

pytest.importorskip("pyarrow")


class Served:
    """A server in a process of its own, started as a person starts it."""

    def __init__(self, place: Place, *words: str, **settings: str) -> None:
        command = [sys.executable, "-m", "modelyard", "serve", "--port", "0", "--json", *words]
        self._log = (place.folder / f"log{time.monotonic_ns()}").open("w+")
        self.process = subprocess.Popen(
            command, cwd=place.folder, env=as_it_comes(place.home) | settings, stdout=subprocess.PIPE,
            stderr=self._log, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(json.loads(self.process.stdout.readline())["url"].rpartition(":")[2])
        self.places = Places(Path(settings.get("MODELYARD_RECORDS", place.home / "records")))

    def ask(self, path: str = "/predict", body: str | None = '{"x1": 0.5, "x2": 0.25}') -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST" if body else "GET", path, body)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        connection.close()
        return text

    @property
    def ready(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.ask("/health/ready", None))
        return told

    def metric(self, name: str) -> float | None:
        """The sum of a metric over its labels; None where there is none."""
        lines = [line for line in self.ask("/metrics", None).splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines) if lines else None

    @property
    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines()]

    def recorder(self) -> int:
        """The process beside it, once it records."""
        assert waited(lambda: self.places.recorder() is not None), self.log
        return self.places.recorder() or 0

    def end(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        code = self.process.wait(120)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


Serve = Callable[..., Served]


@pytest.fixture
def serve(place: Place) -> Iterator[Serve]:
    started: list[Served] = []

    def start(*words: str, **settings: str) -> Served:
        started.append(Served(place, *words, **settings))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.end(signal.SIGKILL)
        served._log.close()


def is_alive(process: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def files(home: Path) -> list[Path]:
    return [path for path in (home / "records" / "segments").rglob("*") if path.is_file()]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_server_is_recorded_and_watched_unless_told_otherwise(
    serve: Serve, place: Place, how: signal.Signals
) -> None:
    server = serve("line:1")
    server.ask()
    recorder = server.recorder()
    assert waited(lambda: server.metric("modelyard_recorder_up") == 1.0)
    assert server.metric("modelyard_server_unrecorded_rows_total") == 0.0
    assert os.getpriority(os.PRIO_PROCESS, recorder) > 0
    assert server.end(how) == 0
    assert waited(lambda: not is_alive(recorder))
    assert files(place.home)
    assert not list(server.places.rings.glob("*.ring"))
    assert {line["level"] for line in server.lines()} == {"info"}


def test_it_can_be_turned_off(serve: Serve, place: Place) -> None:
    for server in (serve("line:1", "--no-record"), serve("line:1", MODELYARD_RECORD="off")):
        server.ask()
        assert server.metric("modelyard_recorder_up") is None
        assert "recorder" not in server.ready
        server.end()
    assert not (place.home / "records").exists()


def test_bundles_by_their_paths_are_recorded_where_somebody_says_so(serve: Serve, place: Place) -> None:
    export = [sys.executable, "-m", "modelyard", "export", "line:1", "line.zip"]
    subprocess.run(export, cwd=place.folder, env=as_it_comes(place.home), check=True, capture_output=True)
    server = serve("line.zip")
    server.ask()
    server.end()
    assert not (place.home / "records").exists()
    server = serve("line.zip", "--record")
    server.ask()
    server.recorder()
    server.end()
    assert waited(lambda: len(files(place.home)) > 0)


def test_a_stop_waits_for_nobody(serve: Serve) -> None:
    server = serve("line:1")
    recorder = server.recorder()
    os.kill(recorder, signal.SIGSTOP)
    try:
        assert server.end() == 0
        assert is_alive(recorder)
    finally:
        os.kill(recorder, signal.SIGCONT)
    assert waited(lambda: not is_alive(recorder))


def test_servers_of_one_home_have_one_recorder_which_outlives_the_first(serve: Serve) -> None:
    first = serve("line:1")
    recorder = first.recorder()
    second = serve("flowers:1")
    second.ask("/health/ready", None)
    first.end()
    time.sleep(3.0)  # longer than a process takes that has nobody to record
    assert is_alive(recorder)
    assert second.places.recorder() == recorder
    second.end()
    assert waited(lambda: not is_alive(recorder))


def test_one_that_finds_another_recording_leaves(serve: Serve, place: Place) -> None:
    server = serve("line:1")
    server.recorder()
    command = [sys.executable, "-m", "modelyard", "watch", "--beside"]
    beside = subprocess.Popen(
        command, env=as_it_comes(place.home), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )  # fmt: skip
    assert beside.wait(120) == 0
    beside.communicate()
    server.end()


def test_loop_dead_is_told_and_requests_go_on(serve: Serve, place: Place) -> None:
    server = serve("line:1")
    assert waited(lambda: server.metric("modelyard_control_up") == 1.0), server.log
    with (place.home / "records" / "state" / "starting.lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # nobody can be started in the place of the one that is killed
        os.kill(server.recorder(), signal.SIGKILL)
        assert waited(lambda: server.metric("modelyard_recorder_up") == 0.0)
        assert waited(lambda: server.metric("modelyard_control_up") == 0.0)
        server.ask()
        told = server.ready
        assert told["ready"] is True
        assert (told["recorder"], told["control"]) == (
            "nobody records what is predicted", "nobody watches: no alert and no rollout is decided"
        )  # fmt: skip
    assert waited(lambda: server.metric("modelyard_recorder_up") == 1.0)
    assert waited(lambda: server.metric("modelyard_control_up") == 1.0)
    assert "recorder" not in server.ready
    server.end()


def test_where_nothing_can_be_written_it_is_told_once_and_counted(serve: Serve, place: Place) -> None:
    (place.folder / "taken").write_text("a file, where the folder should be")
    server = serve("line:1", MODELYARD_RECORDS=str(place.folder / "taken"))
    for _ in range(3):
        server.ask()
    assert server.metric("modelyard_server_unrecorded_rows_total") == 3.0
    assert server.metric("modelyard_recorder_up") == 0.0
    time.sleep(3.0)  # longer than until somebody would be started
    server.end()
    assert [line["event"] for line in server.lines() if line["level"] != "info"] == ["predictions are not recorded"]


def test_without_the_libraries_rows_are_counted(serve: Serve, place: Place) -> None:
    """A base install: no pyarrow, no DuckDB."""
    hidden = place.folder / "hidden"
    hidden.mkdir()
    for name in ("pyarrow", "duckdb"):
        (hidden / f"{name}.py").write_text(f"raise ImportError('no {name}')")
    server = serve("line:1", PYTHONPATH=f"{hidden}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    recorder = server.recorder()
    server.ask()
    assert waited(lambda: "modelyard[records]" in server.log)
    time.sleep(6.0)  # labels are looked at every five seconds
    server.end()
    assert waited(lambda: not is_alive(recorder))
    assert "Traceback" not in server.log
    assert {line["level"] for line in server.lines()} == {"info"}
    told = [line for line in server.lines() if "modelyard[records]" in line.get("hint", "")]
    assert len(told) == 1
    monitor = [sys.executable, "-m", "modelyard", "monitor", "line", "--json"]
    done = subprocess.run(monitor, cwd=place.folder, env=as_it_comes(place.home), check=True, capture_output=True)
    assert json.loads(done.stdout)["arms"][0]["rows"] == 1


EMBEDDED = """
import sys, time, modelyard
from modelyard.recording.places import Places

server = modelyard.serve("line:1", port=0, block=False)
places = Places.chosen()
while places.recorder() is None:
    time.sleep(0.1)
print(places.recorder(), flush=True)
server.stop()
print("stopped", flush=True)
sys.stdin.read()
"""


def test_what_is_beside_an_embedded_server_goes_with_it(place: Place) -> None:
    notebook = subprocess.Popen(
        [sys.executable, "-c", EMBEDDED], cwd=place.folder, env=as_it_comes(place.home), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert notebook.stdout is not None
    recorder = int(notebook.stdout.readline())
    assert notebook.stdout.readline() == "stopped\n"
    assert waited(lambda: not is_alive(recorder))
    assert waited(lambda: not Path(f"/proc/{recorder}").exists())  # not even a zombie
    assert notebook.poll() is None
    notebook.communicate(timeout=120)
