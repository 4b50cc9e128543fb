"""Stock tools of gRPC against a running server: those who watch its health, and those who ask what it speaks."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clients import interpreter
from modelyard.errors import ModelFailed, NotFound
from modelyard.registry import Registry
from modelyard.schema import Field, Signature
from modelyard.serving.server import Server
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle

SCRIPT = Path(__file__).parents[1] / "clients" / "grpc_client.py"

SIGNATURE = Signature(
    inputs=(Field(name="x1", dtype="float64"), Field(name="x2", dtype="float64")),
    outputs=(Field(name="prediction", dtype="float64"),),
)


class Broken(MemoryBundle):
    def check_golden(self, predict: Any) -> None:
        raise ModelFailed("golden rows differ in output: prediction")


def bundle(kind: type[MemoryBundle], digit: str) -> MemoryBundle:
    def predict(columns: Any) -> dict[str, Any]:
        return {"prediction": columns["x1"] + 2 * columns["x2"] + 1}

    return kind(SIGNATURE, predict, {"x1": [0.0], "x2": [1.0]}, digest="sha256:" + digit * 64)


class Source:
    """The models ``m`` and ``spare``, and one that cannot be loaded."""

    def __init__(self) -> None:
        self.bundles = {"m": bundle(MemoryBundle, "1"), "spare": bundle(MemoryBundle, "2"), "ill": bundle(Broken, "3")}

    def marker(self) -> int:
        return 0

    def forget(self, reference: str) -> None: ...

    def resolve(self, reference: str) -> Wanted:
        found = self.bundles.get(reference)
        if found is None:
            raise NotFound.among("model", reference, self.bundles)
        return Wanted(model=reference, version="1", digest=found.digest, aliases=(), open=lambda: found)


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[Server] = []

    def start(**options: Any) -> Server:
        server = Server(["m"], source=Source, port=0, access_log="off", **options)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()


def words(server: Server, case: str, *more: str) -> list[str]:
    return [str(interpreter("triton")), str(SCRIPT), str(server.port), case, *more]


def run(server: Server, case: str, *more: str) -> None:
    done = subprocess.run(words(server, case, *more), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


class Watcher:
    """A process that watches services, and what it was told of each."""

    def __init__(self, server: Server, *services: str) -> None:
        command = words(server, "watch", *services)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def hears(self, *expected: str) -> None:
        """The next lines, in whatever order."""
        assert self._process.stdout is not None
        assert sorted(self._process.stdout.readline().strip() for _ in expected) == sorted(expected)

    def end(self) -> None:
        assert self._process.wait(timeout=120) == 0
        assert self._process.stdout is not None and self._process.stdout.read() == ""
        self._process.stdout.close()


def test_who_watches_is_told_of_each_change(serve: Serve) -> None:
    server = serve(control=True)
    catalog = server.catalog
    watcher = Watcher(server, "", "m", "spare", "ill", "inference.GRPCInferenceService")
    watcher.hears(
        "SERVING", "m SERVING", "spare SERVICE_UNKNOWN", "ill SERVICE_UNKNOWN",
        "inference.GRPCInferenceService SERVING",
    )  # fmt: skip
    catalog.load("spare")
    watcher.hears("spare SERVING")
    with pytest.raises(ModelFailed):
        catalog.load("ill")
    watcher.hears("ill NOT_SERVING")
    gc.disable()
    try:
        catalog.unload("spare")
        watcher.hears("spare NOT_SERVING")
        watcher.hears("spare SERVICE_UNKNOWN")  # nobody holds the version any more: the watch did not
    finally:
        gc.enable()
    server.stop()
    watcher.hears(
        "NOT_SERVING", "m NOT_SERVING", "inference.GRPCInferenceService NOT_SERVING", "ended OK", "m ended OK",
        "spare ended OK", "ill ended OK", "inference.GRPCInferenceService ended OK",
    )  # fmt: skip
    watcher.end()


def test_a_stop_does_not_wait_for_who_watches(serve: Serve) -> None:
    server = serve(drain_seconds=3600)
    watcher = Watcher(server, "m")
    watcher.hears("m SERVING")
    server.stop()
    watcher.hears("m NOT_SERVING", "m ended OK")
    watcher.end()


def test_who_leaves_is_forgotten(serve: Serve) -> None:
    server = serve()
    run(server, "leave")
    watches = server._worker.listener.watches
    assert watches is not None and watches._count == 0 and not watches._asked


@pytest.mark.parametrize("case", ["reflect", "ask_each"])
def test_reflection(serve: Serve, case: str) -> None:
    run(serve(), case)


def test_reflection_where_it_is_not_wanted(serve: Serve) -> None:
    run(serve(reflection="off"), "absent", "UNIMPLEMENTED")
    run(serve(production=True), "absent", "UNIMPLEMENTED")
    run(serve(production=True, reflection="on"), "absent", "OK")


def test_reflection_takes_any_key(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    with closing(Registry.open()) as registry:
        _, key = registry.keys.create("teller", scopes=["label"])
        server = serve(keys=True, registry=registry)
        run(server, "absent", "UNAUTHENTICATED")
        run(server, "absent", "OK", key)
        server.stop()
