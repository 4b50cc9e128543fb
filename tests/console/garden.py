"""Models for the pages about models: inputs of every kind, another signature, code that nobody vouched for."""

from __future__ import annotations

import datetime as dt
import getpass
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import faulty
from console.conftest import Yard
from modelyard import api
from modelyard.registry import Registry


class Garden(NamedTuple):
    """``garden``: versions 1 and 2 take the same, 3 takes no colour. ``odd``: one version, that is a pickle."""

    registry: Registry
    url: str
    user: str


@pytest.fixture(scope="session")
def garden(yard: Yard) -> Iterator[Garden]:
    registry = Registry.open(str(yard.home))
    for options in ({"candidates": ["linear"]}, {"candidates": ["tree"]}, {"exclude": ["colour"]}):
        api.train(
            plants(), "kind", name="garden", registry=registry, **{"candidates": ["linear"], "folds": 2, **options}
        )  # fmt: skip
    sample = {"order": np.zeros(30), "value": np.arange(30.0)}
    api.package(faulty.Faulty().fit(), sample=sample, name="odd", registry=registry)
    yield Garden(registry, yard.url, getpass.getuser())
    registry.close()


@pytest.fixture
def lane(garden: Garden, request: pytest.FixtureRequest) -> str:
    """A model of a test's own, called after it, with the versions of ``garden``."""
    name: str = request.node.name.partition("[")[0].removeprefix("test_")[:60].rstrip("_")
    name = f"{name}-{request.node.name.partition('[')[2].strip(']')}".strip("-")
    for number in (1, 2, 3):
        bundle = garden.registry.fetch(garden.registry.resolve(f"garden:{number}"))
        garden.registry.register(bundle, name)
    return name


def plants() -> Any:
    """240 plants, by which two kinds can be told apart."""
    import pandas as pd

    dice = np.random.default_rng(0)
    kind = dice.integers(0, 2, 240)
    height = kind * 1.5 + dice.normal(10, 1, 240)
    height[dice.random(240) < 0.1] = np.nan
    first = dt.datetime(2026, 1, 1)
    return pd.DataFrame({
        "height": height, "petals": dice.integers(3, 9, 240) + kind, "is_tall": (kind + dice.integers(0, 2, 240)) > 1,
        "colour": np.where(dice.random(240) < 0.3, "white", np.where(kind == 1, "red", "blue")),
        "planted": [first + dt.timedelta(days=int(day)) for day in dice.integers(0, 300, 240)],
        "kind": np.where(kind == 1, "rose", "iris"),
    })  # fmt: skip
