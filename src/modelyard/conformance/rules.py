"""What a rule is, and the words in which rules say what they expect.

A rule is a row of data: what it asks in words, why, the request, and what the answer must be. Requests are made from
the model under test, an ``Example`` of each protocol, so that rules work with any model. Making a request may raise
``Skip`` where a rule does not apply: the server does not advertise the extension, or the model has no such input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from modelyard.conformance.client import Answer, Client, Request


class Skip(Exception):
    """A rule does not apply, and why."""


class Example(Protocol):
    """A model under test: a request that it must answer, and the answer that it gave when it was met."""

    @property
    def good(self) -> Request:
        """The request that is answered."""

    @property
    def model(self) -> str:
        """The model's name; "" where the protocol has none."""

    @property
    def values(self) -> Any:
        """The values that the good request was answered with, whatever their form in the protocol."""


E = TypeVar("E", bound=Example)

#: Says what is wrong with an answer, or None.
Expectation = Callable[[Answer, Any], str | None]


@dataclass(frozen=True)
class Rule(Generic[E]):
    """One row. ``why`` names the section of the specification, or the client that would break."""

    id: str
    asks: str
    why: str
    request: Callable[[E], Request]
    expects: Sequence[Expectation]
    severity: Literal["must", "should"] = "must"

    def broken(self, answer: Answer, example: E) -> str:
        """The first thing that is wrong with ``answer``; "" where it is as expected."""
        try:
            return next((complaint for each in self.expects if (complaint := each(answer, example))), "")
        except Exception as error:  # whatever a server can make of its answer
            return f"the answer cannot be read ({type(error).__name__}: {error}): {answer}"


@dataclass(frozen=True)
class Dialect(Generic[E]):
    """The rules of a protocol, and how to meet a model that speaks it."""

    name: str
    title: str
    meet: Callable[[Client, Asked], E]
    rules: Sequence[Rule[E]]


@dataclass(frozen=True)
class Asked:
    """What the caller knows about the server."""

    model: str = ""
    #: What stands before the paths of the protocol; for Vertex AI, the route of health.
    path: str = ""
    #: Vertex AI: the route of prediction.
    predict: str = ""
    #: An example request, and its type.
    body: bytes = b""
    content_type: str = "application/json"


def status(*allowed: int) -> Expectation:
    """One of these statuses."""

    def expect(answer: Answer, _example: Any) -> str | None:
        if answer.status in allowed:
            return None
        return f"expected {' or '.join(map(str, allowed))}, got {answer}"

    return expect


def refused(answer: Answer, _example: Any) -> str | None:
    """A status from 400 to 499: the caller's fault, told as such."""
    return None if 400 <= answer.status < 500 else f"expected a status from 400 to 499, got {answer}"


def refused_or_closed(answer: Answer, example: Any) -> str | None:
    """A status from 400 to 499, or the connection closed without a word."""
    if not answer.status and "timed out" not in answer.fault:
        return None
    return refused(answer, example)


def failed(answer: Answer, _example: Any) -> str | None:
    """Any status from 400 on."""
    return None if answer.status >= 400 else f"expected a status from 400 on, got {answer}"


def no_fault_of_the_server(answer: Answer, _example: Any) -> str | None:
    """Any status below 500."""
    return None if 200 <= answer.status < 500 else f"expected a status below 500, got {answer}"


def header(name: str, *words: str) -> Expectation:
    """A header whose value has all of ``words``."""

    def expect(answer: Answer, _example: Any) -> str | None:
        value = answer.headers.get(name)
        if value is None:
            return f"expected a header {name}, got none"
        missing = [word for word in words if word not in value.lower()]
        return f"expected {' and '.join(missing)} in the header {name}, got {value}" if missing else None

    return expect


def no_header(name: str) -> Expectation:
    """No such header."""

    def expect(answer: Answer, _example: Any) -> str | None:
        return f"expected no header {name}, got {answer.headers[name]}" if name in answer.headers else None

    return expect


def looks(shape: Any) -> Expectation:
    """JSON of this shape, see ``misfit``."""

    def expect(answer: Answer, _example: Any) -> str | None:
        try:
            value = answer.json
        except ValueError:
            return f"expected JSON, got {answer.body[:120]!r}"
        return misfit(value, shape)

    return expect


def misfit(value: Any, shape: Any, path: str = "") -> str | None:
    """What about ``value`` is not as ``shape`` says, or None.

    A type stands for its values; ``{"name": str, "id?": str}`` for an object with a name, maybe an id (null is as good
    as none), and others;
    ``[str]`` for a list of texts; ``(int, str)`` for either; anything else for itself. A number is no boolean.
    """
    where = path or "the answer"
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{where}: expected an object, got {_brief(value)}"
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if name in value and (name == key or value[name] is not None):
                if complaint := misfit(value[name], inner, f"{path}.{name}" if path else name):
                    return complaint
            elif name == key:
                return f"{where}: expected a field {name}, got {_brief(value)}"
        return None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where}: expected a list, got {_brief(value)}"
        faults = (misfit(each, shape[0], f"{path}[{i}]") for i, each in enumerate(value))
        return next((fault for fault in faults if fault), None)
    if isinstance(shape, tuple):
        return None if any(misfit(value, each) is None for each in shape) else f"{where}: got {_brief(value)}"
    if isinstance(shape, type):
        is_right = isinstance(value, shape) and (shape is bool or not isinstance(value, bool) or shape is object)
        return None if is_right else f"{where}: expected {shape.__name__}, got {_brief(value)}"
    return None if value == shape else f"{where}: expected {shape!r}, got {_brief(value)}"


def values(read: Callable[[Any], Any]) -> Expectation:
    """The values that the good request was answered with, as ``read`` finds them in the answer."""

    def expect(answer: Answer, example: Any) -> str | None:
        try:
            got = read(answer.json)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return f"no values in the answer ({type(error).__name__}: {error}): {answer}"
        if alike(got, example.values):
            return None
        return f"expected {_brief(example.values)} as for the plain request, got {_brief(got)}"

    return expect


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same but for the last digits of numbers, which batches of another size may change."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) or isinstance(other, float):
        try:
            return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6) or (one != one and other != other)
        except TypeError:
            return False
    return bool(one == other)


def encoded(name: str) -> str:
    """Every letter of ``name`` percent-encoded."""
    return "".join(f"%{byte:02X}" for byte in name.encode())


def _brief(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 120 else f"{shown[:119]}…"


def that(is_right: Callable[[Answer, Any], bool], expected: str) -> Expectation:
    """``is_right`` of the answer and the example; ``expected`` says in words what that means."""

    def expect(answer: Answer, example: Any) -> str | None:
        return None if is_right(answer, example) else f"expected {expected}, got {answer}"

    return expect


def count(field: str, rows: Callable[[Any], int]) -> Expectation:
    """A list under ``field`` with one value for each of ``rows`` of the example."""

    def expect(answer: Answer, example: Any) -> str | None:
        got, expected = answer.json[field], rows(example)
        if isinstance(got, list) and len(got) == expected:
            return None
        return f"{field}: expected {expected} values, got {_brief(got)}"

    return expect


def error_text(field: str = "error") -> Expectation:
    """A JSON object in which ``field`` is a text, and not an empty one."""

    def expect(answer: Answer, _example: Any) -> str | None:
        try:
            told = answer.json
        except ValueError:
            told = None
        is_right = isinstance(told, dict) and isinstance(told.get(field), str) and told[field]
        return None if is_right else f"expected JSON with a text {field}, got {answer}"

    return expect
