"""The server under fire, in a process of its own: ``python target.py OPTIONS`` serves, ``Target`` looks after it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from .seeds import MIXED, OPEN, PAIR, SEVERAL, Seed
from .talk import HELLO, Answer, Line, answers1, answers2, ask, http1, http2

WIRES = {
    "mixed": ["native", "oip", "tfserving", "kserve", "mlflow", "seldon", "azure", "vertex"],
    "pair": ["sagemaker", "kserve", "native", "oip", "tfserving", "seldon", "mlflow", "vertex", "azure"],
    # Of our own API alone: other dialects answer some of its paths too, as Seldon's does GET /predict.
    "several": ["native"],
    "keyed": ["native"],
}
SEEDS: dict[str, list[Seed]] = {"mixed": MIXED, "pair": PAIR, "several": SEVERAL, "keyed": OPEN}

#: What each serves.
REFERENCES = {"mixed": ["m"], "pair": ["xy", "spare"], "several": ["xy", "price:1", "price:2"], "keyed": ["m"]}

_ID = re.compile(rb'"(?:id|request_id|puid|prediction_id)": ?"[0-9a-f]{12}-[0-9a-f]+"')

#: What has no place in a log; what is no line of ours was written by the interpreter.
_FAULT = re.compile(rb"internal error|model failed|Traceback|Exception|^[^{]")


class Target:
    """A server of one of the kinds of ``WIRES``."""

    def __init__(self, kind: str, log: Path) -> None:
        self.kind = kind
        self._log = log
        self._read = 0
        path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "MODELYARD_HOME": str(log.parent / "home")}
        if kind == "pair":
            environment["SAGEMAKER_MULTI_MODEL"] = "true"
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fuzzing.target", kind],
                stdout=subprocess.PIPE, stderr=stream, text=True, env=environment,
            )  # fmt: skip
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, log.read_text()
        port, _, self.key = said.strip().partition(" ")
        self.port = int(port)
        self.seeds = SEEDS[kind]
        self.steady = [seed for seed in self.seeds if seed.is_steady]
        try:
            self._known = {seed.path + str(i): self.ask(seed) for i, seed in enumerate(self.steady)}
        except BaseException:
            self.__exit__()
            raise
        self.files = self._files()

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, seed: Seed) -> list[Answer]:
        """The answers to a well-formed request, without what differs each time."""
        answers = [each._replace(body=_ID.sub(b"", each.body)) for each in ask(self.port, seed)]
        assert [each.status for each in answers] == [200], (seed, answers)
        assert answers[0].grpc <= 0, (seed, answers)
        return answers

    def check(self, number: int) -> None:
        """A well-formed request is answered as it was at first; the process lives, and logged no fault of ours."""
        assert self.process.poll() is None, f"ended with {self.process.returncode}: {self._log.read_text()[-3000:]}"
        i = number % len(self.steady)
        seed = self.steady[i]
        assert self.ask(seed) == self._known[seed.path + str(i)], seed
        with self._log.open("rb") as stream:
            stream.seek(self._read)
            text = stream.read()
        text = text[: text.rfind(b"\n") + 1]  # a line may be half written
        self._read += len(text)
        bad = [line for line in text.splitlines() if _FAULT.search(line)]
        assert not bad, b"\n".join(bad[:3])[:6000].decode().replace("\\n", "\n")

    def check_all(self) -> int:
        """Every well-formed request at once, over one connection of each version of HTTP; how many they were."""
        plain = [seed for seed in self.steady if not seed.is_grpc]
        calls = [seed for seed in self.steady if seed.is_grpc]
        with Line(self.port) as line:
            line.send(b"".join(map(http1, plain)))
            answers = answers1(line.rest())
        assert [each.status for each in answers] == [200] * len(plain)
        with Line(self.port) as line:
            line.send(HELLO + b"".join(part for i, seed in enumerate(calls) for part in http2(seed, 2 * i + 1)))
            answers = answers2(line.rest())
        assert [(each.status, each.grpc) for each in answers] == [(200, 0)] * len(calls)
        return len(self.steady)

    def check_let_go(self) -> None:
        """Every connection is closed."""
        deadline = time.monotonic() + 120
        while self._files() > self.files:
            assert time.monotonic() < deadline, f"{self._files()} descriptors are open, at first {self.files}"
            time.sleep(0.05)

    def _files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    @property
    def resident(self) -> float:
        """MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


# In the server's process.


def _bundles() -> dict[str, Any]:
    from modelyard.schema import Field, Signature
    from modelyard.testing.memory import MemoryBundle
    from yes_or_no import SIGNATURE, predict

    inputs = (
        Field(name="x", dtype="float64"), Field(name="n", dtype="int32"),
        Field(name="city", dtype="string", nullable=True), Field(name="flag", dtype="bool"),
        Field(name="when", dtype="datetime", nullable=True), Field(name="v", dtype="float32", shape=(2,)),
    )  # fmt: skip

    def mixed(columns: Any) -> dict[str, Any]:
        with np.errstate(all="ignore"):
            total = columns["x"] + columns["n"] + columns["flag"] + columns["v"].sum(axis=1)
            yes = 1 / (1 + np.exp(-np.clip(total, -50, 50)))
        labels = np.where(yes > 0.5, "yes", "no").astype(object)
        return {"prediction": labels, "probabilities": np.stack([1 - yes, yes], axis=1)}

    sample = {
        "x": [1.0], "n": [2], "city": np.array(["Rome"], object), "flag": [True], "when": [0.0],
        "v": np.zeros((1, 2), "float32"),
    }  # fmt: skip
    pair = MemoryBundle(SIGNATURE, np.errstate(all="ignore")(predict), {"x1": [0.0], "x2": [1.0]})
    return {
        "m": MemoryBundle(Signature(inputs=inputs, outputs=SIGNATURE.outputs), mixed, sample),
        "xy": pair,
        "spare": pair,
        "price:1": _price(),
        "price:2": _price_and_more(),
    }


def _price() -> Any:
    """A regression over the kinds of input that ``m`` has not."""
    from modelyard.schema import Field, Signature
    from modelyard.testing.memory import MemoryBundle

    inputs = (
        Field(name="rooms", dtype="int64", nullable=True), Field(name="floor", dtype="int8"),
        Field(name="lot", dtype="uint64"), Field(name="built", dtype="datetime"),
        Field(name="kind", dtype="string", categories=("flat",)), Field(name="new", dtype="bool", nullable=True),
        Field(name="area", dtype="float64", nullable=True, minimum=10.0, maximum=900.0),
        Field(name="rate", dtype="float16"),
    )  # fmt: skip
    sample = {
        "rooms": [3], "floor": [1], "lot": np.array([7], "uint64"), "built": [0.0], "kind": np.array(["flat"], object),
        "new": [1.0], "area": [80.0], "rate": np.array([0.5], "float16"),
    }  # fmt: skip

    def predict(columns: Any) -> dict[str, Any]:
        with np.errstate(all="ignore"):
            return {"prediction": columns["area"] * columns["rate"] + columns["floor"]}

    outputs = (Field(name="prediction", dtype="float64"),)
    return MemoryBundle(Signature(inputs=inputs, outputs=outputs), predict, sample, task="regression")


def _price_and_more() -> Any:
    """Its next version, over rows of shapes, with outputs of every kind."""
    from modelyard.schema import Field, Signature
    from modelyard.testing.memory import MemoryBundle

    inputs = (
        Field(name="view", dtype="float64", shape=(2, 2)), Field(name="trace", dtype="int32", shape=(-1,)),
        Field(name="words", dtype="string", shape=(2,)), Field(name="rooms", dtype="int64"),
    )  # fmt: skip
    outputs = (
        Field(name="low", dtype="float32"), Field(name="rooms", dtype="int64"), Field(name="dear", dtype="bool"),
        Field(name="word", dtype="string"), Field(name="built", dtype="datetime"),
        Field(name="parts", dtype="float64", shape=(2, 2)),
    )  # fmt: skip
    sample = {
        "view": np.zeros((1, 2, 2)), "trace": np.array([[1, 2]]), "words": np.array([["a", "b"]], object), "rooms": [3],
    }  # fmt: skip

    def predict(columns: Any) -> dict[str, Any]:
        with np.errstate(all="ignore"):
            low = columns["view"].sum(axis=(1, 2)).astype("float32")
        return {
            "low": low, "rooms": columns["rooms"], "dear": low > 1, "word": columns["words"][:, 0],
            "built": np.zeros(len(low)), "parts": columns["view"],
        }  # fmt: skip

    return MemoryBundle(Signature(inputs=inputs, outputs=outputs), predict, sample)


class _Source:
    """Models in memory."""

    def __init__(self) -> None:
        self._bundles = _bundles()

    def marker(self) -> int:
        return 0

    def versions(self, model: str) -> list[str]:
        return ["2", "1"] if model == "price" else ["1"]

    def forget(self, reference: str) -> None: ...

    def resolve(self, reference: str) -> Any:
        from modelyard.errors import NotFound
        from modelyard.serving.sources import Wanted

        if reference not in self._bundles:
            raise NotFound.among("model", reference, self._bundles)
        bundle = self._bundles[reference]
        model, _, version = reference.partition(":")
        aliases = () if version == "2" else ("production",)
        return Wanted(model=model, version=version or "1", digest=bundle.digest, aliases=aliases, open=lambda: bundle)


def _serve(kind: str) -> None:
    from modelyard.registry import Registry
    from modelyard.serving.server import serve

    options: dict[str, Any] = {}
    key = ""
    if kind == "keyed":
        registry = Registry.open()
        _, key = registry.keys.create("all", scopes=("admin",))
        options = {"keys": True, "registry": registry}
    serve(
        REFERENCES[kind],
        source=_Source, wires=WIRES[kind], port=0, max_body=1 << 20, max_rows=20_000, control=kind == "pair",
        on_ready=lambda server: print(server.port, key, flush=True), **options,
    )  # fmt: skip


if __name__ == "__main__":
    _serve(sys.argv[1])
