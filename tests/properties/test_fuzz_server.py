"""Real servers with every wire get whatever comes: nothing may be our fault, and those who ask well are answered well.

``benchmarks/fuzz.py`` does the same for as long as it is told.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from fuzzing.described import examine
from fuzzing.rounds import ROUNDS, outcome, play
from fuzzing.seeds import rest
from fuzzing.talk import ask
from fuzzing.target import Target

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="a server's descriptors are counted in /proc")

KINDS = ("mixed", "pair")
DESCRIBED = ("several", "keyed")
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    folder = tmp_path_factory.mktemp("fuzz")
    with Target("mixed", folder / "mixed.log") as mixed, Target("pair", folder / "pair.log") as pair:
        yield {"mixed": mixed, "pair": pair}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ROUNDS)
def test_rounds(targets: dict[str, Target], kind: str, how: str) -> None:
    target = targets[kind]
    for number in range(250):
        play(target, how, number)
        target.check(number)
    target.check_let_go()


@pytest.mark.parametrize("kind", KINDS)
@SETTINGS
@given(random=st.randoms(use_true_random=False))
def test_values_that_hypothesis_chooses(targets: dict[str, Target], kind: str, random: Random) -> None:
    outcome(ROUNDS["values"](targets[kind], random))
    targets[kind].check(random.randrange(100))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_stays(targets: dict[str, Target], kind: str) -> None:
    """What came once, whatever had to be loaded for it, takes no more when it comes again."""
    target = targets[kind]
    for number in range(10_000, 10_250):
        play(target, "http1", number)
    before = target.resident
    for number in range(10_000, 10_250):
        play(target, "http1", number)
    assert target.resident < before + 16


# What the description of our own API says.


@pytest.mark.parametrize("kind", DESCRIBED)
def test_schemathesis_finds_nothing(kind: str, tmp_path: Path) -> None:
    with Target(kind, tmp_path / "log") as target:
        found = examine(target, tmp_path, "--seed", "1", "--max-examples", "5")
        assert not found, found
        for number in range(len(target.steady)):
            target.check(number)


class Described:
    """Makes values from the schemas of a document, and checks values against them."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def valid(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        """Values that fit."""
        if "$ref" in schema:
            return self.valid(self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        if "oneOf" in schema:
            return st.one_of([self.valid(each) for each in schema["oneOf"]])
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return st.one_of([self._kind(kind, schema) for kind in kinds])

    def _kind(self, kind: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        is_open = {"exclude_min": "exclusiveMinimum" in schema, "exclude_max": "exclusiveMaximum" in schema}
        match kind:
            case "object":
                return st.fixed_dictionaries({name: self.valid(each) for name, each in schema["properties"].items()})
            case "array":  # columns must be of one length, which no schema can say
                least = schema.get("minItems", 1)
                return st.lists(self.valid(schema["items"]), min_size=least, max_size=least)
            case "string" if schema.get("format") == "date-time":
                return st.datetimes(timezones=st.just(dt.UTC)).map(lambda when: when.isoformat())
            case "string" if "pattern" in schema:
                longest = schema.get("maxLength", 1_000)
                return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: len(text) <= longest)
            case "string":
                return st.text(max_size=20)
            case "boolean":
                return st.booleans()
            case "integer":
                return st.integers(low, high)
            case "number":
                return st.floats(low, high, allow_nan=False, allow_infinity=False, **is_open)
        return st.none()

    def operations(self) -> list[tuple[str, dict[str, Any]]]:
        return [(path, told["post"]) for path, told in self.document["paths"].items() if "post" in told]

    def check(self, operation: dict[str, Any], status: int, body: bytes) -> None:
        """An answer is one of those that the document tells."""
        schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": self.document["components"]}).validate(json.loads(body))


@pytest.fixture(scope="module")
def described(targets: dict[str, Target]) -> Described:
    (answer,) = ask(targets["mixed"].port, rest("/openapi.json", b"")._replace(method="GET"))
    return Described(json.loads(answer.body))


@SETTINGS
@given(data=st.data())
def test_what_our_document_allows_is_answered_as_it_says(
    targets: dict[str, Target], described: Described, data: st.DataObject
) -> None:
    path, operation = data.draw(st.sampled_from(described.operations()))
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    (answer,) = ask(targets["mixed"].port, rest(path, data.draw(described.valid(schema))))
    assert answer.status == 200, answer
    described.check(operation, answer.status, answer.body)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "n", "city", "flag", "v"]), inner)
    ),
    max_leaves=8,
)


@SETTINGS
@given(data=st.data())
def test_anything_else_is_answered_as_it_says_too(
    targets: dict[str, Target], described: Described, data: st.DataObject
) -> None:
    path, operation = data.draw(st.sampled_from(described.operations()))
    (answer,) = ask(targets["mixed"].port, rest(path, data.draw(ANYTHING)))
    described.check(operation, answer.status, answer.body)
    assert answer.status < 500
