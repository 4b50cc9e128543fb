"""A server with keys and TLS as it is run: by the command line, with worker processes, asked by real clients."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority
from clients import interpreter
from commands import Done, Place, environment
from receivers import until

ROW = json.dumps({"x1": 1.0, "x2": 1.0})


class Running:
    """``modelyard serve line`` in a process of its own."""

    def __init__(self, place: Place, log: Path, *options: str) -> None:
        self.log = log
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modelyard", "serve", "line:1", "--port", "0", "--json", *options],
                cwd=place.folder, env=environment(place.home), stdout=subprocess.PIPE, stderr=stream, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        assert told, log.read_text()
        self.url: str = json.loads(told)["url"]
        self.port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=120)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def serve(place: Place, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*options: str) -> Running:
        started.append(Running(place, tmp_path / f"log{len(started)}", *options))
        return started[-1]

    yield start
    for running in started:
        running.stop()


def ask(connection: http.client.HTTPConnection, key: str = "", path: str = "/predict") -> int:
    connection.request("POST", path, ROW, {"authorization": f"Bearer {key}"} if key else {})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_keys_open_and_close_every_worker_and_are_never_logged(
    cli: Callable[..., Done], serve: Callable[..., Running]
) -> None:
    key: str = cli("keys", "create", "shop", "--json").json["key"]
    server = serve("--keys", "--workers", "2", "--access-log", "all")
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(6)]
    assert [ask(each) for each in connections] == [401] * 6
    for _ in range(3):
        assert [ask(each, key) for each in connections] == [200] * 6
    assert ask(connections[0], path=f"/predict?api_key={key}") == 401  # a key in a target is none, and no secret left
    assert ask(connections[0], path=f"/{key}") == 401
    assert cli("keys", "revoke", "shop").code == 0
    until(lambda: [ask(each, key) for each in connections] == [401] * 6)
    for each in connections:
        each.close()
    server.stop()
    log = server.log.read_text()
    assert '"target":"/predict?api_key=***"' in log and '"status":200' in log
    assert key[-43:] not in log and key[-20:] not in log


@pytest.mark.parametrize("clients", [False, True])
def test_triton_clients_over_tls(
    clients: bool, cli: Callable[..., Done], serve: Callable[..., Running], tmp_path: Path
) -> None:
    python = interpreter("triton")
    key: str = cli("keys", "create", "shop", "--json").json["key"]
    labels: str = cli("keys", "create", "labels", "--scope", "label", "--json").json["key"]
    few: str = cli("keys", "create", "few", "--rate", "1/h", "--json").json["key"]
    elsewhere: str = cli("keys", "create", "elsewhere", "--models", "flowers", "--json").json["key"]
    authority = Authority(tmp_path)
    certificate, private = authority.sign("server")
    options = ["--tls-certificate", str(certificate), "--tls-key", str(private)]
    told: dict[str, Any] = {"authority": str(authority.path), "headers": {}}
    if clients:
        options += ["--tls-clients", str(authority.path)]
        told["certificate"], told["key"] = map(str, authority.sign("caller"))
    server = serve("--keys", *options)
    assert server.url.startswith("https://")
    told["address"] = f"localhost:{server.port}"
    told["headers"] = {
        "bearer": {"authorization": f"Bearer {key}"},
        "header": {"x-api-key": key},
        "none": {},
        "wrong": {"authorization": f"Bearer {key[:-1]}"},
        "labels": {"authorization": f"Bearer {labels}"},
        "few": {"authorization": f"Bearer {few}"},
        "elsewhere": {"authorization": f"Bearer {elsewhere}"},
    }
    script = Path(__file__).parents[1] / "clients" / "security_client.py"
    done = subprocess.run([python, script, json.dumps(told)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for protocol, unknown, forbidden, limited in (
        ("http", "401", "403", "429"),
        ("grpc", "StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED", "StatusCode.RESOURCE_EXHAUSTED"),
    ):
        assert found[f"{protocol} bearer"] == found[f"{protocol} header"] == "ok"
        assert [found[f"{protocol} {name}"][0] for name in ("none", "wrong", "labels", "few", "elsewhere")] == [
            unknown, unknown, forbidden, limited, forbidden,
        ]  # fmt: skip
        assert "this server wants an API key" in found[f"{protocol} none"][1]
        assert "no such API key" in found[f"{protocol} wrong"][1]
        assert "it allows label" in found[f"{protocol} labels"][1]
        assert "used up its calls" in found[f"{protocol} few"][1]
        assert "this key is not for line: it is for flowers" in found[f"{protocol} elsewhere"][1]


def test_a_stream_ends_with_its_key(cli: Callable[..., Done], serve: Callable[..., Running]) -> None:
    python = interpreter("triton")
    key: str = cli("keys", "create", "shop", "--json").json["key"]
    server = serve("--keys")
    script = Path(__file__).parents[1] / "clients" / "stream_client.py"
    with subprocess.Popen(
        [python, script, str(server.port), key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stream:
        assert stream.stdin is not None and stream.stdout is not None

        def send() -> str:
            print("again", file=stream.stdin, flush=True)
            return stream.stdout.readline().strip()  # type: ignore[union-attr]

        assert [send() for _ in range(3)] == ["4.0"] * 3
        assert cli("keys", "revoke", "shop").code == 0
        said = ["4.0"]
        until(lambda: said.append(send()) or said[-1] != "4.0")  # type: ignore[func-returns-value]
        assert "no such API key, or it was revoked" in said[-1]
        stream.stdin.close()


def test_worker_processes_speak_tls_and_have_an_admin_port(serve: Callable[..., Running], tmp_path: Path) -> None:
    import socket

    authority = Authority(tmp_path)
    certificate, private = authority.sign("server")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    options = ["--tls-certificate", str(certificate), "--tls-key", str(private), "--admin-port", str(port)]
    server = serve("--workers", "2", *options)
    context = ssl.create_default_context(cafile=str(authority.path))

    def get(port: int, path: str) -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    for _ in range(4):
        assert [get(server.port, path) for path in ("/health/ready", "/metrics", "/models")] == [200, 404, 200]
        assert [get(port, path) for path in ("/health/ready", "/metrics", "/models")] == [200, 200, 404]


def test_a_public_address_wants_keys_or_a_word(cli: Callable[..., Done]) -> None:
    done = cli("serve", "line:1", "--host", "0.0.0.0", "--port", "0")
    assert done.code == 5
    assert "error: whoever reaches 0.0.0.0 could call this server" in done.err
    assert "hint: modelyard serve ... --keys" in done.err and "hint: modelyard serve ... --public" in done.err
