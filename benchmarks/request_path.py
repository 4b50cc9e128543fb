"""Microseconds of each stage of the request path, without a network: the listener's own code on pretended sockets.

python benchmarks/request_path.py [--connections 64] [--profile]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from modelyard.decoding import RowDecoder
from modelyard.messages import Batch, Call, Response
from modelyard.schema import Field, Signature
from modelyard.serving import engine
from modelyard.serving.application import Application
from modelyard.serving.catalog import Loaded, Table
from modelyard.serving.http import Connection
from modelyard.serving.listener import Listener
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle
from modelyard.wires.native import NativeWire

BODY = b'{"x1": 1.5, "x2": 2.0}'
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    % len(BODY)
)


def oip(*, is_binary: bool) -> bytes:
    """The same row for the Open Inference Protocol, in JSON or as bytes after it, which asks for bytes in turn."""
    tensors: list[dict[str, Any]] = [{"name": name, "shape": [1], "datatype": "FP64"} for name in ("x1", "x2")]
    values = {"parameters": {"binary_data_size": 8}} if is_binary else {"data": [1.5]}
    asked: dict[str, Any] = {"inputs": [tensor | values for tensor in tensors]}
    if is_binary:
        asked["parameters"] = {"binary_data_output": True}
    text, path = json.dumps(asked).encode(), b"/v2/models/linear/infer"
    size = len(text)
    if is_binary:
        text += struct.pack("<dd", 1.5, 2.0)
    head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: %d\r\n" % (path, len(text))
    if is_binary:
        return head + b"Inference-Header-Content-Length: %d\r\n\r\n" % size + text
    return head + b"Content-Type: application/json\r\n\r\n" + text


#: The same with a trace context, which is another for each request.
TRACED = HEAD[:-2].replace(b"%", b"%%") + b"traceparent: 00-4bf92f3577b34da6a3ce929d%08x-00f067aa0ba902b7-01\r\n\r\n"


class Transport:
    """A socket that swallows what is written."""

    def __init__(self) -> None:
        self.last = b""

    def write(self, data: bytes) -> None:
        self.last = data

    def is_closing(self) -> bool:
        return False


class Turns:
    """The part of an event loop that the engine asks: what is called soon, is called when we say."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, function: Callable[[], None]) -> None:
        self.soon.append(function)

    call_soon_threadsafe = call_soon

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for function in soon:
            function()


def linear_model(folder: Path) -> Loaded:
    """y = 1.5 x1 + 2.5 x2 + 0.5 as an ONNX graph of doubles, or in numpy where onnx is not installed."""
    fields = (Field(name="x1", dtype="float64"), Field(name="x2", dtype="float64"))
    signature = Signature(inputs=fields, outputs=(Field(name="prediction", dtype="float64"),))
    sample = {"x1": [1.0], "x2": [2.0]}
    weights = np.array([[1.5], [2.5]])
    bundle = MemoryBundle(signature, lambda c: {"prediction": (c.blocks[0] @ weights + 0.5)[:, 0]}, sample)
    predict = bundle.load()
    try:
        from onnx import TensorProto, helper
    except ImportError:
        print("onnx is not installed: the model is numpy's")
    else:
        from modelyard.runtimes.onnx_session import open_session, predict_with

        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["prediction"])],
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["N", 2])],
            [helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, ["N", 1])],
            [
                helper.make_tensor("w", TensorProto.DOUBLE, [2, 1], weights.ravel()),
                helper.make_tensor("b", TensorProto.DOUBLE, [1], [0.5]),
            ],
        )
        opset = [helper.make_opsetid("", 17)]
        path = folder / "linear.onnx"
        path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
        options = {
            "inputs": [{"tensor": "x", "fields": ["x1", "x2"], "dtype": "float64"}],
            "outputs": [{"tensor": "prediction", "field": "prediction"}],
        }
        predict = predict_with(open_session(path), options, signature)
    wanted = Wanted(model="linear", version="1", digest=bundle.digest, aliases=(), open=lambda: bundle)
    return Loaded(wanted, bundle, predict)


def microseconds(function: Callable[[], Any], each: int = 1, rounds: int = 5, seconds: float = 0.15) -> float:
    """The least over rounds of one call's CPU time, divided by ``each``; a busy machine hardly disturbs that."""
    function()
    count = 1
    while True:
        started = process_time()
        for _ in range(count):
            function()
        if process_time() - started > seconds / 5:
            break
        count *= 2
    found = []
    for _ in range(rounds):
        started = process_time()
        for _ in range(count):
            function()
        found.append((process_time() - started) / count / each * 1e6)
    return min(found)


def stages(many: int, *, with_profile: bool = False) -> dict[str, float]:
    """Microseconds a request takes in each stage, ``many`` of them in one turn of the loop."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = linear_model(Path(folder))
    engine.INLINE_SECONDS = 1e9  # a busy machine must not send the calls to a thread
    turns = Turns()
    loop: Any = turns
    application = Application(["linear"], wires=["native", "oip"])
    application.loop = loop
    application.catalog.table = Table([("linear", loaded)])
    listener = Listener(application, loop, lost=lambda: None)
    lane_of = application.lane
    connections = []
    for _ in range(many):
        connection = Connection(listener)
        transport: Any = Transport()
        connection.connection_made(transport)
        connections.append(connection)

    def ticking(data: bytes) -> Callable[[], None]:
        """One turn, in which every connection brings ``data``."""

        def tick() -> None:
            for connection in connections:
                connection.data_received(data)
            turns.turn()

        tick()
        assert b"HTTP/1.1 200 " in transport.last
        tick()
        return tick

    tick = ticking(HEAD + BODY)

    count = itertools.count()

    def fresh() -> None:
        """Heads that differ each time, as those that carry a trace do."""
        for connection in connections:
            connection.data_received(TRACED % next(count) + BODY)
        turns.turn()

    lane, codec = lane_of(loaded), NativeWire().codec(Call("predict"), loaded)
    rows = RowDecoder.of(loaded.signature.inputs)
    requests = [rows.decode(BODY) for _ in range(many)]
    tuples = [request.tuples[0] for request in requests if request.tuples]
    columns = lane.loaded.signature.input_layout.from_tuples(tuples)
    one = lane.loaded.signature.input_layout.from_tuples(tuples[:1])

    def encode() -> None:
        batch = Batch(outputs)
        for i, request in enumerate(requests):
            codec.encode(request, Response(batch, i, i + 1, "abcdef012345-1"))

    outputs = loaded.predict(columns)
    found = {
        "whole path, joined": microseconds(tick, many),
        "whole path, heads that carry a trace": microseconds(fresh, many),
        "whole path, OIP in JSON": microseconds(ticking(oip(is_binary=False)), many),
        "whole path, OIP in bytes": microseconds(ticking(oip(is_binary=True)), many),
        "  decode a record": microseconds(lambda: codec.decode(BODY, {})),
        "  rows to an array": microseconds(lambda: columns.layout.from_tuples(tuples), many),
        "  model, joined": microseconds(lambda: loaded.predict(columns), many),
        "  encode": microseconds(encode, many),
        "model, one row": microseconds(lambda: loaded.predict(one)),
    }
    inside = sum(value for name, value in found.items() if name.startswith("  "))
    found["  the rest: head, exchange, order, counts"] = found["whole path, joined"] - inside
    if with_profile:
        import cProfile

        profile = cProfile.Profile()
        profile.runcall(lambda: [tick() for _ in range(2000)])
        profile.print_stats("tottime")
    application.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--profile", action="store_true", help="also print where Python spends its time")
    given = parser.parse_args()
    found = stages(given.connections, with_profile=given.profile)
    print(f"microseconds a request, {given.connections} in one turn of the loop")
    for name, value in found.items():
        print(f"{value:8.2f}  {name}")


if __name__ == "__main__":
    asyncio.set_event_loop(None)
    main()
