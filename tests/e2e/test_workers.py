"""Several worker processes on one port: shared fairly, replaced when they end, and lost requests are seen to be."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from modelyard.bundle import Bundle, pack
from modelyard.errors import InvalidInput, NotFound
from modelyard.registry import Registry
from modelyard.serving.limits import BUSY_SECONDS
from modelyard.serving.server import Server
from receivers import until

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="the processes of a server are found in /proc")

PROGRAM = """
import json, sys
from modelyard.errors import ModelyardError
from modelyard.serving import seat
from modelyard.serving.server import serve

references, options, seat.SILENT_SECONDS = json.loads(sys.argv[1])
try:
    serve(references, on_ready=lambda server: print(server.port, flush=True), **options)
except ModelyardError as error:
    print(error, file=sys.stderr)
    sys.exit(4)
"""
ROW = json.dumps({"x1": 1.5, "x2": 2.0}).encode()


def line(folder: Path, scale: float = 1.0) -> Bundle:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x1": rng.normal(size=50), "x2": rng.normal(size=50)})
    model = LinearRegression().fit(frame, scale * (frame.x1 + 2 * frame.x2 + 1))
    return pack(model, folder, sample=dict(frame.items()))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers") / "line"
    line(folder)
    return folder


def children(process: int) -> set[int]:
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == process and fields[0] != "Z":
                found.add(int(folder.name))
    return found


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def untaken(port: int) -> int:
    """Connections to a port that nobody has accepted yet, as Linux tells it."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if state == "0A" and int(local.partition(":")[2], 16) == port:
            return int(queues.partition(":")[2], 16)
    return 0


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Running:
    """A server of workers in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, log.read_text()
        self.port = int(said)

    @property
    def workers(self) -> set[int]:
        return {each for each in children(self.process.pid) if "serving.employed" in _command(each)}

    @property
    def models(self) -> set[int]:
        """The processes of isolated models."""
        return children(self.process.pid) - self.workers

    def lines(self, event: str) -> list[dict[str, Any]]:
        lines = (json.loads(text) for text in self._log.read_text().splitlines() if text.startswith("{"))
        return [told for told in lines if told["event"] == event]

    def ask(self, path: str = "/predict", body: bytes | None = ROW, method: str = "") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method or ("POST" if body is not None else "GET"), path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def count(self, name: str) -> float:
        """The sum over all labels of one name in the metrics."""
        text = self.ask("/metrics", None)[1]
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    def count_ready(self) -> float:
        return self.count('modelyard_workers{state="ready"}')


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Running] = []

    def begin(*references: Any, home: Path | None = None, silent: float = 20.0, **options: Any) -> Running:
        options = {"port": 0, "workers": 2, "drain_seconds": 5, "poll_seconds": 0.05, **options}
        told = json.dumps([list(map(str, references)), options, silent])
        log = tmp_path / f"log{len(running)}"
        environment = {**os.environ, "MODELYARD_HOME": str(home or tmp_path / "home")}
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, told],
                stdout=subprocess.PIPE, stderr=stream, text=True, env=environment,
            )  # fmt: skip
        running.append(Running(process, log))
        return running[-1]

    yield begin
    for each in running:
        left = each.workers | each.models
        each.process.kill()
        each.process.communicate()
        until(lambda left=left: not any(map(is_alive, left)))  # type: ignore[misc]


class Load:
    """Clients that keep their connections, each with one request under way; a closed connection is made anew."""

    def __init__(self, port: int, clients: int = 8) -> None:
        self.port = port
        self.answers: Counter[Any] = Counter()
        #: Requests whose connection was closed before an answer: answers that came over it before, seconds from the
        #: request before (or the start) to this one, and from this one to the end. And failures of any other kind.
        #: Not those on a connection that idled so long that a server which stops may close it at any moment.
        self.lost: list[tuple[int, float, float]] = []
        self.other: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(clients)))

    def __enter__(self) -> Load:
        self._thread.start()
        until(lambda: self.answers.total() > 50)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    async def _run(self, clients: int) -> None:
        await asyncio.gather(*[self._client() for _ in range(clients)])

    async def _client(self) -> None:
        request = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s" % (len(ROW), ROW)
        while not self._stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as error:
                self.other.append(repr(error))
                return
            count, asked, before = 0, time.monotonic(), 0.0
            try:
                while not self._stop.is_set():
                    before, asked = asked, time.monotonic()
                    writer.write(request)
                    async with asyncio.timeout(120):
                        head = await reader.readuntil(b"\r\n\r\n")
                        found = re.search(rb"content-length: (\d+)", head)
                        assert found is not None
                        body = json.loads(await reader.readexactly(int(found[1])))
                    self.answers[head[9:12].decode(), round(body.get("prediction", 0), 6), body.get("version")] += 1
                    count += 1
                    if b"connection: close" in head:
                        break
            except (OSError, asyncio.IncompleteReadError):
                if asked - before < BUSY_SECONDS:
                    self.lost.append((count, asked - before, time.monotonic() - asked))
            except Exception as error:
                self.other.append(repr(error))
            finally:
                writer.close()


@contextlib.contextmanager
def connections_to(running: Running, count: int) -> Iterator[list[http.client.HTTPConnection]]:
    """So many connections at once: they reach every worker."""
    made = [http.client.HTTPConnection("127.0.0.1", running.port, timeout=60) for _ in range(count)]
    for connection in made:
        connection.connect()
    try:
        yield made
    finally:
        for connection in made:
            connection.close()


def who(connection: http.client.HTTPConnection) -> str:
    """Which worker answers on a connection: its request ids begin alike."""
    connection.request("POST", "/predict", ROW)
    answer = connection.getresponse()
    assert json.loads(answer.read())["prediction"] == pytest.approx(6.5)
    return str(answer.headers["x-request-id"]).partition("-")[0]


def test_connections_are_shared_fairly_and_new_ones_go_where_there_are_fewest(bundle: Path, start: Start) -> None:
    running = start(bundle)
    with connections_to(running, 16) as connections:
        before = [who(connection) for connection in connections]
        assert sorted(Counter(before).values()) == [8, 8]
        loser = before[0]
        for connection, worker in zip(connections, before, strict=True):
            if worker == loser:
                connection.close()
        until(lambda: running.count("modelyard_connections") <= 8 + 1)  # the worker has seen them go; and this asks
        with connections_to(running, 8) as fresh:
            assert {who(connection) for connection in fresh} == {loser}


def test_a_killed_worker_costs_its_connections_and_nothing_else(bundle: Path, start: Start) -> None:
    running = start(bundle)
    with Load(running.port, clients=8) as load:
        for _ in range(2):
            victim = min(running.workers)
            os.kill(victim, signal.SIGKILL)
            until(lambda victim=victim: victim not in running.workers and len(running.workers) == 2)  # type: ignore[misc]
            until(lambda: running.count_ready() == 2)
    assert load.other == []
    assert set(load.answers) == {("200", 6.5, None)}
    assert 1 <= len(load.lost) <= 16
    assert running.count("modelyard_worker_restarts_total") == 2
    assert len(running.lines("a worker ended")) == 2
    assert running.lines("a worker ended")[0]["how"] == "killed by SIGKILL"


def test_connections_on_their_way_to_a_worker_that_dies_go_to_another(bundle: Path, start: Start) -> None:
    running = start(bundle)
    stopped = min(running.workers)
    os.kill(stopped, signal.SIGSTOP)
    with connections_to(running, 10) as connections:
        for connection in connections:
            connection.request("POST", "/predict", ROW)
        until(lambda: not untaken(running.port))
        time.sleep(0.3)
        os.kill(stopped, signal.SIGKILL)
        answers = [connection.getresponse() for connection in connections]
        assert [json.loads(answer.read())["prediction"] for answer in answers] == pytest.approx([6.5] * 10)
    assert running.lines("a worker ended")[0]["connections_kept"] == 5


def test_a_worker_that_hangs_is_replaced(bundle: Path, start: Start) -> None:
    running = start(bundle, silent=3.0)
    stopped = min(running.workers)
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: not is_alive(stopped))
    until(lambda: running.count_ready() == 2)
    assert running.lines("a worker hangs: it is killed and replaced")


def test_when_the_supervisor_is_killed_the_workers_end(bundle: Path, start: Start) -> None:
    running = start(bundle)
    workers = running.workers
    assert len(workers) == 2
    running.process.kill()
    until(lambda: not any(map(is_alive, workers)))
    with pytest.raises(OSError):
        running.ask()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_loses_nothing(bundle: Path, start: Start, number: int) -> None:
    running = start(bundle)
    workers = running.workers
    with Load(running.port) as load:
        running.process.send_signal(number)
        assert running.process.wait(120) == 0
    assert load.lost == []
    assert all("Connect call failed" in error or "Connection refused" in error for error in load.other)
    assert set(load.answers) == {("200", 6.5, None)}
    assert not any(map(is_alive, workers))
    assert running.lines("stopped")


def test_a_stop_loses_no_connection_that_a_worker_had_no_time_to_take(bundle: Path, start: Start) -> None:
    running = start(bundle)
    workers = running.workers
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    with connections_to(running, 10) as connections:
        for connection in connections:
            connection.request("POST", "/predict", ROW)
        until(lambda: not untaken(running.port))
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: bool(running.lines("stopping")))
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
        answers = [connection.getresponse() for connection in connections]
        assert [json.loads(answer.read())["prediction"] for answer in answers] == pytest.approx([6.5] * 10)
    assert running.process.wait(120) == 0


def test_a_worker_told_to_end_is_replaced_and_loses_nothing(bundle: Path, start: Start) -> None:
    running = start(bundle)
    with Load(running.port) as load:
        victim = min(running.workers)
        os.kill(victim, signal.SIGTERM)
        until(lambda: not is_alive(victim))
        until(lambda: running.count_ready() == 2)
    assert (load.lost, load.other) == ([], [])
    assert not running.lines("a worker ended")


def test_every_worker_follows_a_promotion_and_no_request_is_lost(tmp_path: Path, start: Start) -> None:
    registry = Registry.open(tmp_path / "home")
    for number in (1, 2):
        registry.register(line(tmp_path / f"v{number}", scale=number), "line")
    running = start("line@production")
    with Load(running.port) as load:
        for version in (2, 1, 2):
            registry.promote("line", version)
            until(lambda version=version: _served(running, 8) == {version})  # type: ignore[misc]
    assert (load.lost, load.other) == ([], [])
    assert set(load.answers) == {("200", 6.5, 1), ("200", 13.0, 2)}


def _served(running: Running, times: int) -> set[int]:
    """The versions that answer, over as many connections at once."""
    with connections_to(running, times) as connections:
        for connection in connections:
            connection.request("POST", "/predict", ROW)
        return {json.loads(connection.getresponse().read())["version"] for connection in connections}


def test_counts_are_those_of_all_workers_and_never_fall(bundle: Path, start: Start) -> None:
    running = start(bundle)
    with connections_to(running, 4) as connections:
        for connection in connections * 5:
            who(connection)
    until(lambda: running.count("modelyard_requests_total") == 20)
    assert running.count("modelyard_request_seconds_count") == 20
    told = [running.count("modelyard_requests_total") for _ in range(6)]
    os.kill(max(running.workers), signal.SIGKILL)
    until(lambda: len(running.workers) == 2)
    told += [running.count("modelyard_requests_total") for _ in range(6)]
    until(lambda: running.count_ready() == 2)
    told += [running.count("modelyard_requests_total") for _ in range(6)]
    assert told == [20.0] * 18
    text = running.ask("/metrics", None)[1]
    assert len(re.findall(r'^process_resident_memory_bytes\{worker="\d"\} ', text, re.MULTILINE)) == 2
    status, described = running.ask("/v2/models/line/stats", None)
    if status == 200:
        assert json.loads(described)["model_stats"][0]["inference_stats"]["success"]["count"] == 20


def test_a_worker_that_cannot_start_again_is_tried_ever_more_rarely(bundle: Path, tmp_path: Path, start: Start) -> None:
    copy = tmp_path / "copy"
    line(copy)
    running = start(copy)
    copy.rename(tmp_path / "elsewhere")
    os.kill(min(running.workers), signal.SIGKILL)
    until(lambda: len(running.lines("a worker could not start")) >= 2)
    assert "copy" in running.lines("a worker could not start")[0]["error"]
    assert running.ask()[0] == 200
    (tmp_path / "elsewhere").rename(copy)
    until(lambda: running.count_ready() == 2)
    assert len(running.lines("a worker could not start")) <= 6


def test_a_model_loaded_over_a_wire_is_loaded_by_every_worker(bundle: Path, tmp_path: Path, start: Start) -> None:
    registry = Registry.open(tmp_path / "home")
    registry.register(line(tmp_path / "v1"), "line")
    registry.register(line(tmp_path / "other", scale=2), "other")
    registry.register(line(tmp_path / "third", scale=3), "third")
    running = start("line", control=True)
    status, text = running.ask("/v2/repository/models/other/load", b"{}")
    assert status == 200, text
    assert _answers(running, "/models/other/predict") == {200}
    status, text = running.ask("/v2/repository/models/nothing/load", b"{}")
    assert status in (400, 404), text
    assert "nothing" in text
    os.kill(min(running.workers), signal.SIGKILL)  # who takes its place serves what was asked for since and meanwhile
    status, text = running.ask("/v2/repository/models/third/load", b"{}")
    assert status == 200, text
    until(lambda: running.count("modelyard_worker_restarts_total") == 1 and running.count_ready() == 2)
    assert _answers(running, "/models/other/predict") == {200}
    assert _answers(running, "/models/third/predict") == {200}
    assert running.ask("/v2/repository/models/other/unload", b"{}")[0] == 200
    assert _answers(running, "/models/other/predict") == {404}


def test_many_changes_may_be_asked_for_at_once(tmp_path: Path, start: Start) -> None:
    """More than there are threads for it in one worker: each waits for all workers, and so for that very worker."""
    registry = Registry.open(tmp_path / "home")
    names = [f"m{i}" for i in range(10)]
    for i, name in enumerate(names):
        registry.register(line(tmp_path / name, scale=i + 1), name)
    running = start("m0", control=True)
    with connections_to(running, 10) as connections:
        for connection, name in zip(connections, names, strict=True):
            connection.request("POST", f"/v2/repository/models/{name}/load", b"{}")
        assert [connection.getresponse().status for connection in connections] == [200] * 10
    assert _answers(running, "/models/m9/predict") == {200}


def _answers(running: Running, path: str) -> set[int]:
    with connections_to(running, 4) as connections:
        for connection in connections:
            connection.request("POST", path, ROW)
        return {connection.getresponse().status for connection in connections}


def test_limits_changed_at_one_worker_hold_at_all_also_later(bundle: Path, start: Start) -> None:
    running = start(bundle)

    def limits() -> list[int]:
        with connections_to(running, 4) as connections:
            for connection in connections:
                connection.request("GET", "/debug/limits")
            return [json.loads(connection.getresponse().read())["batch_rows"] for connection in connections]

    assert running.ask("/debug/limits", b'{"batch_rows": 77}', "PATCH")[0] == 200
    until(lambda: limits() == [77] * 4)
    os.kill(min(running.workers), signal.SIGKILL)
    until(lambda: running.count("modelyard_worker_restarts_total") == 1 and running.count_ready() == 2)
    assert limits() == [77] * 4


def test_the_processes_of_a_model_are_shared_and_outlive_a_worker(bundle: Path, start: Start) -> None:
    running = start(bundle, isolation="all")
    (model,) = running.models
    os.kill(min(running.workers), signal.SIGKILL)
    until(lambda: running.count("modelyard_worker_restarts_total") == 1 and running.count_ready() == 2)
    assert running.models == {model}
    assert _answers(running, "/predict") == {200}
    running.process.kill()
    until(lambda: not is_alive(model))


class TestStarting:
    def test_in_a_thread(self, bundle: Path) -> None:
        before = children(os.getpid())  # a database that other tests use may be one
        with Server([str(bundle)], port=0, workers=2, drain_seconds=2) as server:
            assert [(model.name, model.example.keys()) for model in server.models] == [("line", {"x1", "x2"})]
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            who(connection)
            connection.close()
            workers = children(os.getpid()) - before
            assert len(workers) == 2
        assert not any(map(is_alive, workers))

    def test_what_stands_in_the_way_is_raised_as_it_is(self, tmp_path: Path) -> None:
        Registry.open(tmp_path / "home")
        before = children(os.getpid())
        with pytest.raises(NotFound, match="no such model: nothing"):
            Server(["nothing"], port=0, workers=2, registry=str(tmp_path / "home")).start()
        assert children(os.getpid()) <= before

    def test_options_that_cannot_be_handed_over_are_told(self, bundle: Path) -> None:
        with pytest.raises(InvalidInput, match="workers: expected 1 where an option cannot be handed"):
            Server([str(bundle)], port=0, workers=2, source=lambda: None).start()
