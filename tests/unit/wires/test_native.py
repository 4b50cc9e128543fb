"""The native wire's answers, in every form, for every kind of output."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelyard.messages import Batch, Call, Request, Response
from modelyard.schema import Columns, Field, Signature
from modelyard.testing.wires import KitServed, outputs
from modelyard.wires import segments
from modelyard.wires.native import NativeWire


def answer(
    fields: tuple[Field, ...], columns: Columns, form: str, start: int = 0, stop: int | None = None, **about: Any
) -> Any:
    served = KitServed(signature=Signature(inputs=(), outputs=fields), **about)
    codec = NativeWire().codec(Call("predict"), served)
    stop = columns.rows if stop is None else stop
    message = codec.encode(Request(stop - start, form=form), Response(Batch(columns), start, stop, "id-1"))
    return json.loads(message.body)


def simple(fields: tuple[Field, ...], values: dict[str, Any]) -> Columns:
    return Signature(inputs=(), outputs=fields).output_layout.from_arrays(values)


REGRESSION = (Field(name="prediction", dtype="float64"),)
CLASSES = KitServed().signature.outputs


class TestForms:
    def test_a_record(self) -> None:
        assert answer(REGRESSION, simple(REGRESSION, {"prediction": [6.5]}), "record") == {
            "prediction": 6.5, "model": "kit", "version": 3, "request_id": "id-1",
        }  # fmt: skip

    def test_a_record_with_probabilities(self) -> None:
        told = answer(CLASSES, outputs(1, start=80), "record")
        assert told["prediction"] == "yes"
        assert told["probabilities"] == {"no": pytest.approx(0.2), "yes": 0.8}

    def test_records(self) -> None:
        told = answer(CLASSES, outputs(60), "records", 50, 52)
        assert [row["prediction"] for row in told["predictions"]] == ["no", "yes"]
        assert [row["probabilities"]["yes"] for row in told["predictions"]] == [0.5, 0.51]

    def test_columns(self) -> None:
        told = answer(CLASSES, outputs(60), "columns", 50, 52)
        assert told["prediction"] == ["no", "yes"]
        assert told["probabilities"] == {"no": [0.5, 0.49], "yes": [0.5, 0.51]}

    @pytest.mark.parametrize("form", ["record", "columns"])
    def test_other_outputs_are_an_object(self, form: str) -> None:
        fields = (Field(name="low", dtype="float64"), Field(name="high", dtype="float64"))
        told = answer(fields, simple(fields, {"low": [1.0], "high": [2.0]}), form)
        assert told["prediction"] == ({"low": 1.0, "high": 2.0} if form == "record" else {"low": [1.0], "high": [2.0]})

    def test_several_targets_are_a_list(self) -> None:
        fields = (Field(name="prediction", dtype="float64", shape=(3,)),)
        columns = simple(fields, {"prediction": [[1.0, 2.0, 3.0]]})
        assert answer(fields, columns, "record")["prediction"] == [1.0, 2.0, 3.0]
        assert answer(fields, columns, "columns")["prediction"] == [[1.0, 2.0, 3.0]]


class TestValues:
    @pytest.mark.parametrize(
        ("dtype", "stored", "told"),
        [
            ("int64", 2**62, 2**62), ("bool", True, True), ("float64", 0.1, 0.1), ("string", 'a"b\u2028', 'a"b\u2028'),
            ("datetime", "2020-01-01", "2020-01-01T00:00:00Z"), ("float64", 1e300, 1e300),
        ],
    )  # fmt: skip
    def test_labels_of_every_type(self, dtype: str, stored: Any, told: Any) -> None:
        fields = (Field(name="prediction", dtype=dtype),)
        got = answer(fields, simple(fields, {"prediction": [stored, stored]}), "records")["predictions"][1][
            "prediction"
        ]
        assert got == told and type(got) is type(told)

    def test_percent_signs_and_quotes_in_names(self) -> None:
        fields = (Field(name='100 % "a"', dtype="float64"),)
        told = answer(fields, simple(fields, {'100 % "a"': [1.0]}), "record", name="50%d")
        assert told["prediction"] == {'100 % "a"': 1.0} and told["model"] == "50%d"
        labels = ("100 %", '"')
        fields = (
            Field(name="prediction", dtype="string"),
            Field(name="probabilities", dtype="float64", shape=(2,), categories=labels),
        )
        columns = simple(fields, {"prediction": ["100 %"], "probabilities": [[0.5, 0.5]]})
        assert answer(fields, columns, "record")["probabilities"] == dict.fromkeys(labels, 0.5)
        assert answer(fields, columns, "columns")["probabilities"] == {label: [0.5] for label in labels}

    def test_not_finite_numbers_are_null_and_named(self) -> None:
        columns = Columns(Signature(inputs=(), outputs=REGRESSION).output_layout, [np.array([[np.inf], [1.0]])], 2)
        told = answer(REGRESSION, columns, "records")
        assert [row["prediction"] for row in told["predictions"]] == [None, 1.0]
        assert told["warnings"] == ["prediction is not a finite number in 1 of 2 rows, written as null"]
        assert "warnings" not in answer(REGRESSION, columns, "record", 1, 2)

    @pytest.mark.parametrize(("version", "told"), [("12", 12), ("v12", "v12"), ("", None)])
    def test_a_version_is_a_number_where_it_is_one(self, version: str, told: Any) -> None:
        got = answer(REGRESSION, simple(REGRESSION, {"prediction": [1.0]}), "record", version=version)
        assert got.get("version") == told


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/", ()), ("/a", ("a",)), ("/a/", ("a",)), ("/a%20b/%2F", ("a b", "/")), ("//a", ("", "a")), ("*", ("*",)),
        ("/%ff", ("%ff",)), ("/a//", ("a", "")), ("/%", ("%",)),
    ],
)  # fmt: skip
def test_segments(path: str, parts: tuple[str, ...]) -> None:
    assert segments(path) == parts


def test_decoding_goes_by_the_signature() -> None:
    codec = NativeWire().codec(Call("predict"), KitServed())
    assert codec.decode(b'{"x1":1,"x2":2,"city":null}', {}).rows == 1
