"""The rules as data, and the words in which they say what they expect."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.conformance import DIALECTS, http_rules
from modelyard.conformance.checking import dialect
from modelyard.conformance.client import Answer
from modelyard.conformance.oip_grpc import RULES as GRPC
from modelyard.conformance.rules import (
    alike,
    count,
    error_text,
    header,
    looks,
    misfit,
    no_header,
    refused,
    refused_or_closed,
    status,
    values,
)
from modelyard.errors import NotFound


@pytest.mark.parametrize("protocol", list(DIALECTS))
def test_every_rule_says_what_it_asks_and_why(protocol: str) -> None:
    rules = [*dialect(protocol).rules, *http_rules.RULES, http_rules.STILL_THERE]
    rules += GRPC if protocol == "oip" else []
    assert len({rule.id for rule in rules}) == len(rules)
    for rule in rules:
        assert rule.id == rule.id.lower() and " " not in rule.id
        assert rule.asks.endswith(".") and len(rule.why) > 8 and rule.why.endswith((".", ")")), rule.id
        assert rule.expects and rule.severity in ("must", "should")


@pytest.mark.parametrize(
    ("protocol", "least"),
    [
        ("oip", 100),
        ("tfserving", 40),
        ("mlflow", 30),
        ("sagemaker", 15),
        ("vertex", 15),
        ("seldon", 20),
        ("kserve", 15),
    ],
)
def test_there_are_rules_enough(protocol: str, least: int) -> None:
    assert len(dialect(protocol).rules) >= least


def test_an_unknown_protocol_is_told() -> None:
    with pytest.raises(NotFound, match=r"no such protocol: oop .*oip"):
        dialect("oop")


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ({"a": 1, "b": None, "more": 2}, {"a": int, "b?": str}),
        ([], [str]),
        (["a"], [str]),
        (True, bool),
        (1.5, (int, float)),
        ("x", "x"),
        (None, object),
    ],
)
def test_what_fits(value: Any, shape: Any) -> None:
    assert misfit(value, shape) is None


@pytest.mark.parametrize(
    ("value", "shape", "complaint"),
    [
        ({}, {"a": int}, "the answer: expected a field a, got {}"),
        ({"a": None}, {"a": int}, "a: expected int, got None"),
        ({"a": True}, {"a": int}, "a: expected int, got True"),
        ({"a": [{"b": 1}]}, {"a": [{"b": str}]}, "a[0].b: expected str, got 1"),
        ([1], {}, "the answer: expected an object, got [1]"),
        ({}, [str], "the answer: expected a list, got {}"),
        ("y", "x", "the answer: expected 'x', got 'y'"),
        ("y", (int, float), "the answer: got 'y'"),
    ],
)
def test_what_does_not_fit(value: Any, shape: Any, complaint: str) -> None:
    assert misfit(value, shape) == complaint


def test_numbers_may_differ_in_their_last_digits_only() -> None:
    nan = float("nan")
    assert alike({"a": [1.0000001, nan, "x"]}, {"a": [1, nan, "x"]})
    assert not alike([1.01], [1.0])
    assert not alike([1.0], ["1.0"])
    assert not alike([1.0], [1.0, 1.0])
    assert not alike({"a": 1}, {"b": 1})


class Met:
    def __init__(self) -> None:
        self.values = [1.5, 2.5]


@pytest.mark.parametrize(
    ("expectation", "right", "wrong"),
    [
        (status(200, 204), Answer(204), Answer(201)),
        (refused, Answer(422), Answer(500)),
        (refused, Answer(400), Answer(0, fault="the connection was closed")),
        (refused_or_closed, Answer(0, fault="the connection was closed"), Answer(0, fault="timed out")),
        (refused_or_closed, Answer(431), Answer(200)),
        (header("allow", "post"), Answer(405, {"allow": "GET, POST"}), Answer(405, {"allow": "GET"})),
        (header("allow"), Answer(405, {"allow": ""}), Answer(405)),
        (no_header("allow"), Answer(200), Answer(200, {"allow": "GET"})),
        (error_text(), Answer(400, body=b'{"error":"no"}'), Answer(400, body=b'{"error":""}')),
        (error_text("message"), Answer(400, body=b'{"message":"no"}'), Answer(400, body=b"no")),
        (looks({"a": int}), Answer(200, body=b'{"a":1}'), Answer(200, body=b"<html>")),
        (count("a", lambda m: 2), Answer(200, body=b'{"a":[1,2]}'), Answer(200, body=b'{"a":[1]}')),
        (values(lambda told: told["a"]), Answer(200, body=b'{"a":[1.5,2.5]}'), Answer(200, body=b'{"a":[1.5,9]}')),
        (values(lambda told: told["a"]), Answer(200, body=b'{"a":[1.5,2.5]}'), Answer(200, body=b'{"b":1}')),
    ],
    ids=range(14),
)
def test_expectations_can_fail(expectation: Any, right: Answer, wrong: Answer) -> None:
    assert expectation(right, Met()) is None
    assert expectation(wrong, Met())
