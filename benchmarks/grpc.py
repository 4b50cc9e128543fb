"""Calls a second over gRPC, and what one costs the server: an echo, and one row of a linear model over OIP.

python benchmarks/grpc.py [--calls 20000] [--peer .clients/triton/bin/python]

Needs h2load (of nghttp2) as the client: one in Python takes longer for a call than the server. ``--peer`` is a Python
with grpcio, whose ``grpc.aio`` then echoes beside us. On two cores or more, server and client have one each.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from modelyard.interfaces import Catalog, Codec, Served
from modelyard.messages import Call, Message
from modelyard.schema import Field, Signature
from modelyard.serving.server import Server
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle
from modelyard.wires.oip.protos import messages

#: Connections, and calls at once on each.
LOADS = ((1, 1), (1, 16), (1, 64), (8, 1), (8, 2), (8, 8), (64, 1))

ECHO, INFER = "/bench.Echo/Echo", "/inference.GRPCInferenceService/ModelInfer"

PEER = """
import asyncio, grpc, sys
async def echo(request, context): return request
class Any(grpc.GenericRpcHandler):
    def service(self, details): return grpc.unary_unary_rpc_method_handler(echo)
async def main():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Any(),))
    server.add_insecure_port("127.0.0.1:" + sys.argv[1])
    await server.start()
    await server.wait_for_termination()
asyncio.run(main())
"""


class EchoWire:
    """Answers a message with itself."""

    name = "echo-grpc"
    prefix = "/bench.Echo"

    def match(self, method: str, path: str) -> Call | None:
        return Call("echo", scope="open") if path == ECHO else None

    def codec(self, call: Call, served: Served) -> Codec:
        raise NotImplementedError

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        return Message(message.body, content_type="application/grpc")

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(b"", {"grpc-message": str(error)}, "internal", "application/grpc")


class OneModel:
    """A registry of one model: prediction = x1 + 2 x2 + 1."""

    def __init__(self) -> None:
        signature = Signature(
            inputs=(Field(name="x1", dtype="float64"), Field(name="x2", dtype="float64")),
            outputs=(Field(name="prediction", dtype="float64"),),
        )
        self._bundle = MemoryBundle(
            signature, lambda c: {"prediction": c["x1"] + 2 * c["x2"] + 1}, {"x1": [1.0], "x2": [3.0]}
        )

    def marker(self) -> int:
        return 0

    def resolve(self, reference: str) -> Wanted:
        return Wanted(model="m", version="1", digest=self._bundle.digest, aliases=(), open=lambda: self._bundle)


def serve(port: int) -> None:
    Server(["m"], source=OneModel, wires=["native", "oip", EchoWire()], port=port, log_level="error").run()


def infer() -> bytes:
    request = messages().ModelInferRequest(model_name="m")
    for name in ("x1", "x2"):
        tensor = request.inputs.add(name=name, datatype="FP64", shape=[1])
        tensor.contents.fp64_contents.append(1.5)
    body: bytes = request.SerializeToString()
    return body


@contextmanager
def running(command: Sequence[str], port: int, core: int | None) -> Iterator[int]:
    """A server; its process id once it listens."""
    process = subprocess.Popen([*command, str(port)])
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        for _ in range(200):
            time.sleep(0.1)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        time.sleep(0.5)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def seconds_of(pid: int) -> float:
    """Processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(
    port: int, pid: int, path: str, body: bytes, calls: int, connections: int, at_once: int
) -> tuple[float, float]:
    """Calls a second, and the microseconds of the server's processor that one took."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\0" + len(body).to_bytes(4, "big") + body)
        file.flush()
        before = seconds_of(pid)
        told = subprocess.run(
            ["h2load", "-n", str(calls), "-c", str(connections), "-m", str(at_once), "-d", file.name,
             "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{path}"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        spent = seconds_of(pid) - before
    rate, done = re.search(r", ([\d.]+) req/s", told), re.search(r"(\d+) succeeded", told)
    if rate is None or done is None or int(done[1]) != calls:
        raise SystemExit(told)
    return float(rate[1]), spent / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--peer", help="a Python with grpcio")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed: apt-get install nghttp2-client")
    cores = sorted(os.sched_getaffinity(0))
    core = cores[0] if len(cores) > 1 else None
    if core is not None:
        os.sched_setaffinity(0, set(cores[1:]))
    row = infer()
    jobs = [("modelyard", [sys.executable, __file__, "--serve"], (("echo", ECHO, bytes(100)), ("one row", INFER, row)))]
    if options.peer:
        jobs.append(("grpc.aio", [options.peer, "-c", PEER], (("echo", ECHO, bytes(100)),)))
    print(f"{'server':<12}{'call':<10}{'connections':>12}{'at once':>9}{'calls/s':>10}{'us CPU':>8}")
    for server, command, calls in jobs:
        port = free_port()
        with running(command, port, core) as pid:
            for name, path, body in calls:
                load(port, pid, path, body, 2000, 1, 16)  # warm up
                for connections, at_once in LOADS:
                    rate, cost = load(port, pid, path, body, options.calls, connections, at_once)
                    print(f"{server:<12}{name:<10}{connections:>12}{at_once:>9}{rate:>10,.0f}{cost:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
