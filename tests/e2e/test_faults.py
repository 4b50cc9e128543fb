"""What goes wrong around a server: descriptors run out, nobody reads its log, clocks jump, processes stand still.

What models do wrong is in ``test_isolation``, workers that are killed in ``test_workers``, what clients do wrong in
``tests/unit/serving`` and ``tests/properties/test_fuzz_server.py``.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.serving import gate, listener
from modelyard.serving.server import Server
from receivers import until
from yes_or_no import Source

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked at in /proc")

PROGRAM = """
import json, sys
from modelyard.serving.server import serve
from yes_or_no import Source

serve(["m"], source=Source, port=0, on_ready=lambda server: print(server.port, flush=True), **json.loads(sys.argv[1]))
"""
BODY = b'{"x1": 2, "x2": 1}'
ASK = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
MISS = b"GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n"


def read(client: socket.socket) -> bytes:
    """One answer, or b"" where there will be none."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = client.recv(65536)
        if not part:
            return b""
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    size = int(head.partition(b"content-length: ")[2].split()[0])
    while len(body) < size:
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


def ask(port: int, host: str = "127.0.0.1") -> Any:
    with socket.create_connection((host, port), timeout=60) as client:
        client.sendall(ASK)
        return json.loads(read(client).partition(b"\r\n\r\n")[2])["prediction"]


def children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def seconds(processes: list[int]) -> float:
    """The time of a core that processes have taken."""
    fields = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in processes]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


class Running:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    @property
    def resident(self) -> float:
        """MB."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(stderr: Any = subprocess.DEVNULL, files: int = 0, workers: int = 1, **options: Any) -> Running:
        command = [sys.executable, "-c", PROGRAM, json.dumps({"workers": workers, **options})]
        if files:
            command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
        path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path}
        running.append(
            Running(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment))
        )
        return running[-1]

    yield begin
    for each in running:
        each.process.kill()
        each.process.communicate()


@pytest.mark.parametrize("workers", [1, 2])
def test_when_descriptors_run_out_nothing_spins_and_all_is_well_afterwards(
    start: Callable[..., Running], workers: int
) -> None:
    running = start(files=64, workers=workers)
    clients = [socket.create_connection(("127.0.0.1", running.port), timeout=60) for _ in range(200)]
    processes = [running.process.pid, *children(running.process.pid)]
    time.sleep(0.3)
    before = seconds(processes)
    time.sleep(1)
    assert seconds(processes) - before < 0.5
    outcomes: Counter[bytes] = Counter()
    for client in clients:
        with contextlib.suppress(ConnectionError):
            client.sendall(ASK)
            outcomes[read(client)[9:12]] += 1
        client.close()
    assert outcomes[b"200"] >= 30 and set(outcomes) <= {b"200", b""}
    until(lambda: _is_good(running.port))
    assert {ask(running.port) for _ in range(100)} == {"yes"}


def _is_good(port: int) -> bool:
    try:
        return bool(ask(port) == "yes")
    except (OSError, ValueError):
        return False


@pytest.mark.parametrize("kind", ["full", "closed", "unread"])
def test_a_log_that_takes_nothing_stops_nothing(start: Callable[..., Running], kind: str) -> None:
    reading, writing = os.pipe()
    if kind == "full":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    elif kind == "closed":
        os.close(reading)
    running = start(stderr=writing)
    os.close(writing)
    with socket.create_connection(("127.0.0.1", running.port), timeout=60) as client:
        for _ in range(2):
            for _ in range(700):  # lines for more than a pipe holds
                client.sendall(MISS)
                assert read(client).startswith(b"HTTP/1.1 404")
            time.sleep(1.1)  # they are written once a second
    assert ask(running.port) == "yes"
    running.process.terminate()
    assert running.process.wait(120) == 0
    if kind != "closed":
        os.close(reading)


def test_a_thousand_connections_that_idle_cost_little(start: Callable[..., Running]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("too few descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    clients: list[socket.socket] = []
    try:
        running = start()
        ask(running.port)
        before = running.resident
        for _ in range(1000):
            clients.append(socket.create_connection(("127.0.0.1", running.port), timeout=60))
        assert {ask(running.port) for _ in range(50)} == {"yes"}
        assert running.resident - before < 20
        for client in clients[::50]:
            client.sendall(ASK)
            assert read(client).startswith(b"HTTP/1.1 200")
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_worker_that_stood_still_for_a_while_loses_nothing(start: Callable[..., Running]) -> None:
    running = start(workers=2)
    answers: Counter[Any] = Counter()
    stopping = threading.Event()

    def call() -> None:
        with socket.create_connection(("127.0.0.1", running.port), timeout=60) as client:
            while not stopping.is_set():
                client.sendall(ASK)
                answers[read(client)[9:12]] += 1

    callers = [threading.Thread(target=call) for _ in range(4)]
    for each in callers:
        each.start()
    until(lambda: answers.total() > 50)
    workers = children(running.process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.2)
        os.kill(worker, signal.SIGCONT)
    now = answers.total()
    until(lambda: answers.total() > now + 50)
    stopping.set()
    for each in callers:
        each.join(120)
    assert set(answers) == {b"200"}
    assert children(running.process.pid) == workers


def test_clocks_that_jump_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as closing, Server(["m"], source=Source, port=0, log_stream=io.StringIO()) as server:
        idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        closing.callback(idle.close)
        for jump in (-1e6, 1e6):
            for module in (listener, gate):
                monkeypatch.setattr(module, "time", lambda jump=jump: time.time() + jump)
            time.sleep(1.2)  # what is done once a second is done
            idle.request("POST", "/predict", BODY, {"x-request-timeout": "60"})
            answer = idle.getresponse()
            assert (answer.status, json.loads(answer.read())["prediction"]) == (200, "yes")


def test_ipv6(start: Callable[..., Running]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    for workers in (1, 2):
        assert ask(start(host="::1", workers=workers).port, "::1") == "yes"
