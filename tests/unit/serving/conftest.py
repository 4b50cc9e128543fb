"""Models without a framework, a registry without a disk, and a server on a free port."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from modelyard.errors import NotFound
from modelyard.schema import Field, Signature
from modelyard.serving.server import Server
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle

INPUTS = (Field(name="x1", dtype="float64"), Field(name="x2", dtype="float64"))


def linear(scale: float = 1.0, **options: Any) -> MemoryBundle:
    """prediction = scale * (x1 + 2 x2 + 1)"""
    signature = Signature(inputs=INPUTS, outputs=(Field(name="prediction", dtype="float64"),))
    return MemoryBundle(
        signature,
        lambda c: {"prediction": scale * (c["x1"] + 2 * c["x2"] + 1)},
        {"x1": [1.0, 2.0], "x2": [3.0, 4.0]},
        **options,
    )


def classifier() -> MemoryBundle:
    """P(yes) = x1, the label is the likelier."""
    outputs = (
        Field(name="prediction", dtype="string", categories=("no", "yes")),
        Field(name="probabilities", dtype="float64", shape=(2,), categories=("no", "yes")),
    )

    def predict(columns: Any) -> dict[str, Any]:
        p = columns["x1"]
        return {
            "prediction": np.where(p > 0.5, "yes", "no").astype(object),
            "probabilities": np.stack([1 - p, p], axis=1),
        }

    return MemoryBundle(
        Signature(inputs=INPUTS, outputs=outputs), predict, {"x1": [0.25], "x2": [0.0]}, task="classification"
    )


class MemorySource:
    """A registry in memory: versions by number, aliases that may be moved."""

    def __init__(self) -> None:
        self.bundles: dict[str, list[Any]] = {}
        self.aliases: dict[tuple[str, str], int] = {}
        #: References of bundles that have no version.
        self.folders: dict[str, Any] = {}
        self.forgotten: list[str] = []
        self.changes = 0
        self.gone: Exception | None = None

    def add(self, model: str, bundle: Any, alias: str | None = None) -> int:
        numbered = self.bundles.setdefault(model, [])
        numbered.append(bundle)
        if alias:
            self.aliases[model, alias] = len(numbered)
        self.changes += 1
        return len(numbered)

    def promote(self, model: str, number: int, alias: str = "production") -> None:
        self.aliases[model, alias] = number
        self.changes += 1

    def marker(self) -> int:
        if self.gone:
            raise self.gone
        return self.changes

    def resolve(self, reference: str) -> Wanted:
        if self.gone:
            raise self.gone
        if reference in self.folders:
            folder = self.folders[reference]
            name = reference.partition("=")[0]
            return Wanted(model=name, version="", digest=folder.digest, aliases=(), open=lambda: _opened(folder))
        model, _, rest = reference.replace(":", "@").partition("@")
        if model not in self.bundles:
            raise NotFound.among("model", model, self.bundles)
        if rest.isdigit():
            number = int(rest)
        elif rest:
            number = self.aliases[model, rest]
        else:
            number = self.aliases.get((model, "production"), len(self.bundles[model]))
        bundle = self.bundles[model][number - 1]
        aliases = tuple(alias for (name, alias), n in self.aliases.items() if (name, n) == (model, number))
        digest = getattr(bundle, "digest", "sha256:broken")
        return Wanted(model=model, version=str(number), digest=digest, aliases=aliases, open=lambda: _opened(bundle))

    def versions(self, model: str) -> list[str]:
        if model not in self.bundles:
            raise NotFound.among("model", model, self.bundles)
        return [str(number) for number in range(len(self.bundles[model]), 0, -1)]

    def forget(self, reference: str) -> None:
        self.forgotten.append(reference)


def _opened(bundle: Any) -> Any:
    if isinstance(bundle, Exception):
        raise bundle
    return bundle


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


@pytest.fixture
def serve(source: MemorySource) -> Iterator[Callable[..., Server]]:
    """Start a server of references into ``source``; it is stopped after the test. Its log is ``server.lines()``."""
    started: list[Server] = []

    def start(*references: str, **options: Any) -> Server:
        stream = io.StringIO()
        options = {"port": 0, "poll_seconds": 0.02, "drain_seconds": 5.0, "log_stream": stream, **options}
        server = Server(references, source=lambda: source, **options)
        started.append(server)
        server.start()

        def lines() -> list[dict[str, Any]]:
            server.log.flush()
            return [json.loads(line) for line in stream.getvalue().splitlines()]

        server.lines = lines  # type: ignore[attr-defined]  # for tests only
        return server

    yield start
    for server in started:
        server.stop()
