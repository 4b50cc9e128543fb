"""What a live object answers, as columns: gaps, kinds, and what breaks its own signature."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelyard.errors import ModelFailed
from modelyard.messages import Batch, Call, Request, Response
from modelyard.runtimes.answers import predict_with_answers
from modelyard.schema import Columns, Field, Signature
from modelyard.testing.wires import KitServed
from modelyard.wires.native import NativeWire

INPUTS = (Field(name="x1", dtype="float64"),)


def answered(signature: Signature, prediction: Any, probabilities: Any = None) -> Columns:
    predict = predict_with_answers(lambda _: (prediction, probabilities), signature)
    return predict(signature.input_layout.from_arrays({"x1": np.zeros(len(prediction))}))


def test_an_answer_that_is_no_number_is_null_on_the_wire_with_a_warning() -> None:
    outputs = (
        Field(name="prediction", dtype="float64"),
        Field(name="probabilities", dtype="float64", shape=(2,), categories=("a", "b")),
    )
    signature = Signature(inputs=INPUTS, outputs=outputs)
    columns = answered(signature, [1.5, np.nan], [[0.5, 0.5], [np.nan, np.inf]])
    codec = NativeWire().codec(Call("predict"), KitServed(signature=signature))
    told = json.loads(codec.encode(Request(2), Response(Batch(columns), 0, 2, "id")).body)
    assert told["predictions"] == [
        {"prediction": 1.5, "probabilities": {"a": 0.5, "b": 0.5}},
        {"prediction": None, "probabilities": {"a": None, "b": None}},
    ]
    assert told["warnings"] == [
        "prediction is not a finite number in 1 of 2 rows, written as null",
        "probabilities is not a finite number in 1 of 2 rows, written as null",
    ]


@pytest.mark.parametrize("wrong", [np.nan, 0.5, np.inf])
def test_a_label_that_is_no_whole_number_is_never_rounded(wrong: float) -> None:
    signature = Signature(inputs=INPUTS, outputs=(Field(name="prediction", dtype="int64"),))
    assert answered(signature, np.array([3.0]))["prediction"].tolist() == [3]
    with pytest.raises(ModelFailed, match="the model's prediction is not a whole number"):
        answered(signature, np.array([1.0, wrong]))
