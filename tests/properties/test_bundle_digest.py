"""Canonical bytes: equal things have equal bytes, in whatever order they were made, and come back equal."""

from __future__ import annotations

import math
import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.bundle.manifest import (
    FORMAT,
    Conversion,
    Distribution,
    Environment,
    FileEntry,
    Manifest,
    canonical,
    digest_of,
    read_manifest,
)
from modelyard.interfaces import ModelSpec
from modelyard.schema import Field, Signature

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
floats = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | floats | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
digests = st.binary(max_size=4).map(digest_of)
manifests = st.builds(
    Manifest,
    format=st.just(FORMAT),
    modelyard=st.just("0.1.0"),
    task=st.sampled_from(["regression", "classification", "other"]),
    signature=st.lists(names, min_size=1, max_size=4, unique=True).map(
        lambda found: Signature(inputs=tuple(Field(name=name, dtype="float64") for name in found))
    ),
    model=st.builds(ModelSpec, runtime=names, options=st.dictionaries(names, values, max_size=3)),
    environment=st.builds(
        Environment,
        python=names, implementation=names, platform=names, machine=names,
        distributions=st.lists(st.builds(Distribution, name=names, version=names), max_size=3).map(tuple),
        local=st.dictionaries(names, digests, max_size=2),
    ),
    conversion=st.none() | st.builds(Conversion, source=names, target=names, accepted=st.booleans(), tolerance=floats),
    metrics=st.dictionaries(names, values, max_size=4),
    files=st.dictionaries(names, st.builds(FileEntry, digest=digests, size=st.integers(0, 2**50)), max_size=4),
)  # fmt: skip


def shuffled(thing, seed):
    """The same with every mapping built in another order."""
    if isinstance(thing, dict):
        items = [(key, shuffled(value, seed)) for key, value in thing.items()]
        random.Random(seed).shuffle(items)
        return dict(items)
    return [shuffled(item, seed) for item in thing] if isinstance(thing, list) else thing


@settings(max_examples=100, deadline=None)
@given(manifest=manifests, seed=st.integers(0, 99))
def test_order_of_making_does_not_count(manifest, seed):
    data = manifest.to_json()
    again = msgspec.convert(shuffled(msgspec.to_builtins(manifest), seed), Manifest)
    assert again.to_json() == data
    assert digest_of(again.to_json()) == digest_of(data)


@settings(max_examples=100, deadline=None)
@given(manifest=manifests)
def test_manifests_come_back_equal_and_with_the_same_bytes(manifest):
    data = manifest.to_json()
    back = read_manifest(data, "b")
    assert back == manifest
    assert back.to_json() == data


@settings(max_examples=100, deadline=None)
@given(one=values, two=values)
def test_different_things_have_different_bytes(one, two):
    same = canonical(one) == canonical(two)
    assert same == (msgspec.json.decode(canonical(one)) == msgspec.json.decode(canonical(two))) or _only_type(one, two)


def _only_type(one, two):
    """1, 1.0 and True are equal in Python and different in JSON; so are 0.0 and -0.0."""
    return one == two or (isinstance(one, float) and isinstance(two, float) and math.isclose(one, two, abs_tol=0.0))
