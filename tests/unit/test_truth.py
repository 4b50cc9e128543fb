"""What a label of a model may be, and the one text that it is written as."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from modelyard.errors import InvalidInput
from modelyard.schema import Field, Signature
from modelyard.truth import LONGEST_ID, Truth, check_id, read_label, read_time

X = Field(name="x", dtype="float64")


def classifier(dtype: str, *classes: str, named: str = "probabilities") -> Signature:
    prediction = Field(name="prediction", dtype=dtype, categories=classes if named == "prediction" else None)
    outputs = [prediction]
    if named == "probabilities":
        outputs.append(Field(name="probabilities", dtype="float64", shape=(len(classes),), categories=classes))
    return Signature(inputs=(X,), outputs=tuple(outputs))


REGRESSOR = Signature(inputs=(X,), outputs=(Field(name="prediction", dtype="float64"),))
TEXTS = Truth.of("classification", [classifier("string", "no", "yes", " odd ")])
WHOLE = Truth.of("classification", [classifier("int64", "0", "1", "-2")])
BOOLS = Truth.of("classification", [classifier("bool", "False", "True")])
FLOATS = Truth.of("classification", [classifier("float64", "0.5", "1.0")])
NUMBERS = Truth.of("regression", [REGRESSOR])
NAMELESS = Truth.of("classification", [classifier("int64", named="")])
TEXTS_NAMELESS = Truth.of("classification", [classifier("string", named="")])


@pytest.mark.parametrize(
    ("truth", "given", "text"),
    [
        (TEXTS, "no", "no"), (TEXTS, " yes\n", "yes"), (TEXTS, " odd ", " odd "),
        (WHOLE, 1, "1"), (WHOLE, 1.0, "1"), (WHOLE, "1", "1"), (WHOLE, " 1.0 ", "1"),
        (WHOLE, "-2", "-2"), (WHOLE, -0.0, "0"),
        (BOOLS, True, "True"), (BOOLS, "true", "True"), (BOOLS, "FALSE", "False"),
        (FLOATS, 0.5, "0.5"), (FLOATS, 1, "1.0"), (FLOATS, ".5", "0.5"),
        (NUMBERS, 3, "3.0"), (NUMBERS, "3", "3.0"), (NUMBERS, "1e3", "1000.0"),
        (NUMBERS, -0.0, "0.0"), (NUMBERS, " 2.5", "2.5"),
        (NAMELESS, 7, "7"), (NAMELESS, "7.0", "7"), (TEXTS_NAMELESS, " oak ", "oak"),
    ],
)  # fmt: skip
def test_equal_labels_are_one_text(truth: Truth, given: Any, text: str) -> None:
    assert truth.read(given) == text
    assert truth.read(given) == text  # also once it is known
    assert truth.read(text) == text


@pytest.mark.parametrize(
    ("truth", "given"),
    [
        (TEXTS, "maybe"), (TEXTS, None), (TEXTS, ""), (TEXTS, 3), (TEXTS, True), (TEXTS, ["no"]), (TEXTS, {"no": 1}),
        (WHOLE, True), (WHOLE, "True"), (WHOLE, 2), (WHOLE, 0.5), (WHOLE, float("nan")), (WHOLE, "x"), (WHOLE, " "),
        (BOOLS, 1), (BOOLS, "1"), (BOOLS, None),
        (NUMBERS, "nan"), (NUMBERS, "inf"), (NUMBERS, float("inf")), (NUMBERS, "1_000"),
        (NUMBERS, "3,5"), (NUMBERS, True),
        (NUMBERS, 10**400), (NUMBERS, "abc"), (NUMBERS, []),
        (NAMELESS, "a"), (NAMELESS, None), (TEXTS_NAMELESS, "a\0"), (TEXTS_NAMELESS, "a" * 201), (TEXTS_NAMELESS, 3),
    ],
)  # fmt: skip
def test_what_is_no_label(truth: Truth, given: Any) -> None:
    with pytest.raises(InvalidInput) as raised:
        truth.read(given)
    assert [problem.path for problem in raised.value.problems] == ["label"]
    assert truth.describe() in raised.value.message


def test_1_is_not_known_as_true() -> None:
    """They are equal as keys of a dict."""
    truth = Truth.of("classification", [classifier("int64", "0", "1")])
    assert truth.read(1) == "1"
    with pytest.raises(InvalidInput):
        truth.read(True)


def test_a_class_of_any_version_will_do() -> None:
    truth = Truth.of("classification", [classifier("string", "no", "yes"), classifier("string", "no", "late")])
    assert truth.classes == ("no", "yes", "late") and truth.read("late") == "late"


def test_classes_of_the_prediction_alone() -> None:
    assert Truth.of("classification", [classifier("string", "a", "b", named="prediction")]).classes == ("a", "b")


@pytest.mark.parametrize(
    "outputs",
    [
        (Field(name="prediction", dtype="float64", shape=(2,)),),
        (Field(name="embedding", dtype="float32", shape=(8,)),),
        (),
    ],
)
def test_models_that_no_label_is_about(outputs: tuple[Field, ...]) -> None:
    with pytest.raises(InvalidInput, match="one class or one number"):
        Truth.of("regression", [Signature(inputs=(X,), outputs=outputs)])


@pytest.mark.parametrize("given", [None, "", 3, "a" * (LONGEST_ID + 1), "a\nb", "a\0", "\ud800", "   ", b"a"])
def test_what_is_no_id(given: Any) -> None:
    with pytest.raises(InvalidInput, match="prediction_id"):
        check_id(given)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("2026-11-23", "2026-11-23T00:00:00.000000Z"),
        ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00.000000Z"),
        ("2026-11-23T10:00:00.25+02:00", "2026-11-23T08:00:00.250000Z"),
        (dt.datetime(2026, 11, 23, 10), "2026-11-23T10:00:00.000000Z"),
    ],
)
def test_times(given: Any, text: str) -> None:
    assert read_time(given) == text


@pytest.mark.parametrize(
    "given",
    ["soon", 17, "2026-13-01", [], dt.date(2026, 1, 1), "0001-01-01T00:00:00+23:00", "9999-12-31", "0999-01-01"],
)
def test_what_is_no_time(given: Any) -> None:
    with pytest.raises(InvalidInput, match="time"):
        read_label("a", "no", given, TEXTS)
