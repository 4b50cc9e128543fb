"""Trying a version out: what it takes, and what it answers to one row, in this process."""

from __future__ import annotations

from functools import lru_cache
from time import perf_counter
from typing import Any

import msgspec

from modelyard import api
from modelyard.decoding import RowDecoder
from modelyard.registry import Registry
from modelyard.schema import Field


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What a version takes and gives, and a row of its golden ones to begin with."""

    model: str
    version: int
    task: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    example: dict[str, Any]


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one row. ``seconds`` the model took for it, without any server around it."""

    model: str
    version: int
    outputs: dict[str, Any]
    #: The labels of the values of an output that has several, one each.
    labels: dict[str, tuple[str, ...]]
    seconds: float


def form(registry: Registry, model: str, version: int) -> Form:
    """What a version takes: its inputs with what its reference rows held, and an example."""
    found = registry.resolve(f"{model}:{version}")
    bundle = registry.fetch(found)
    inputs, _ = bundle.golden()
    return Form(
        model=model, version=version, task=found.task, inputs=bundle.signature.inputs,
        outputs=bundle.signature.outputs, example=inputs.slice(0, 1).records()[0],
    )  # fmt: skip


def try_out(registry: Registry, model: str, version: int, row: dict[str, Any]) -> Tried:
    """Ask a version for one row, here and now: no server is asked, and nothing is recorded.

    The row is checked as a server would. A version whose files are not trusted is not loaded.
    """
    found = registry.resolve(f"{model}:{version}")
    bundle = registry.fetch(found)
    request = RowDecoder.of(bundle.signature.inputs).decode(msgspec.json.encode(row))
    loaded = _loaded(registry, f"{model}@{found.digest}")
    inputs = request.columns or bundle.signature.input_layout.from_tuples(request.tuples or [])
    begun = perf_counter()
    outputs = loaded.columns(inputs)
    return Tried(
        model=model, version=version, seconds=perf_counter() - begun, outputs=outputs.slice(0, 1).records()[0],
        labels={
            field.name: field.categories
            for field in bundle.signature.outputs if len(field.shape) == 1 and field.categories
        },
    )  # fmt: skip


@lru_cache(maxsize=4)
def _loaded(registry: Registry, ref: str) -> api.Model:
    """Kept, for loading takes longer than asking; by digest, for a version that is made anew is another."""
    return api.load(ref, registry=registry)
