"""Golden rows: chosen by what is in the data, written without loss, compared with sense."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.bundle.golden import FEWEST, MOST, Golden, choose_rows
from modelyard.errors import BadBundle, ModelFailed
from modelyard.schema import Columns, Field, Layout, Signature


def columns(fields, **arrays):
    layout = Layout.of(tuple(fields))
    return layout.from_arrays(arrays)


NUMBER = Field(name="prediction", dtype="float64")
LABEL = (
    Field(name="prediction", dtype="string"),
    Field(name="probabilities", dtype="float64", shape=(2,), categories=("no", "yes")),
)


def test_rows_with_missing_values_extremes_and_each_label_are_chosen():
    count = 3000
    rng = np.random.default_rng(0)
    x = rng.normal(size=count)
    x[1234] = np.nan
    x[1501], x[1777] = 1e9, -1e9
    texts = np.array(["a"] * count, dtype=object)
    texts[2222] = None
    labels = np.zeros(count, dtype="int64")
    labels[2345] = 7
    inputs = columns(
        [Field(name="x", dtype="float64", nullable=True), Field(name="c", dtype="string", nullable=True)], x=x, c=texts
    )
    chosen = choose_rows(inputs, columns([Field(name="prediction", dtype="int64")], prediction=labels)).tolist()
    assert {1234, 1501, 1777, 2222, 2345} <= set(chosen)
    assert FEWEST <= len(chosen) <= MOST
    assert chosen == sorted(set(chosen))


def test_few_rows_are_all_kept_and_many_columns_stay_few_rows():
    inputs = columns([Field(name="x", dtype="float64")], x=np.arange(3.0))
    assert choose_rows(inputs, inputs).tolist() == [0, 1, 2]
    wide = columns(
        [Field(name=f"x{i}", dtype="float64") for i in range(80)],
        **{f"x{i}": np.random.default_rng(i).normal(size=500) for i in range(80)},
    )
    assert len(choose_rows(wide, inputs)) == MOST
    images = columns(
        [Field(name="image", dtype="float32", shape=(200, 200))], image=np.zeros((40, 200, 200), "float32")
    )
    assert 1 <= len(choose_rows(images, inputs)) <= 5


def test_every_value_comes_back_from_json():
    fields = (
        Field(name="f", dtype="float64", nullable=True), Field(name="g", dtype="float32", nullable=True),
        Field(name="i", dtype="int64"), Field(name="n", dtype="int32", nullable=True), Field(name="b", dtype="bool"),
        Field(name="s", dtype="string", nullable=True), Field(name="t", dtype="datetime", nullable=True),
        Field(name="v", dtype="float64", shape=(2,)),
    )  # fmt: skip
    given = {
        "f": np.array([np.nan, np.inf, -np.inf, 0.1]), "g": np.array([0.1, np.nan, np.inf, -1], "float32"),
        "i": np.array([2**62, -1, 0, 1]), "n": np.array([1.0, np.nan, 3, 4]), "b": np.array([True, False] * 2),
        "s": np.array(["", None, "é\ud800", "inf"], dtype=object), "t": np.array([0.25, np.nan, 1e9, -1.5]),
        "v": np.arange(8.0).reshape(4, 2) / 3,
    }  # fmt: skip
    given["s"][2] = "é\n"
    inputs = columns(fields, **given)
    signature = Signature(inputs=fields, outputs=(NUMBER,))
    golden = Golden(inputs, columns([NUMBER], prediction=np.array([1.0, np.pi, 3, 4])), 1e-9)
    back = Golden.from_json(golden.to_json(), signature)
    for name in inputs:
        assert back.inputs[name].dtype == inputs[name].dtype
        assert np.array_equal(back.inputs[name], inputs[name], equal_nan=inputs[name].dtype.kind == "f"), name
    assert back.to_json() == golden.to_json()


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"tolerance": 1, "inputs": {"x": [1]}, "outputs": {}}',
             b'{"tolerance": 1, "inputs": {"x": [1, 2]}, "outputs": {"prediction": [1]}}',
             b'{"tolerance": 1, "inputs": {"x": ["a"]}, "outputs": {"prediction": [1]}}',
             b'{"tolerance": 1, "inputs": {"x": [[1]]}, "outputs": {"prediction": [1]}}'],
)  # fmt: skip
def test_rows_that_do_not_fit_the_signature_are_refused(data):
    with pytest.raises(BadBundle, match=r"golden\.json"):
        Golden.from_json(data, Signature(inputs=(Field(name="x", dtype="float64"),), outputs=(NUMBER,)))


def golden_of(expected, tolerance=1e-6):
    inputs = columns([Field(name="x", dtype="float64")], x=np.arange(float(len(expected["prediction"]))))
    fields = LABEL if "probabilities" in expected else (NUMBER,)
    return Golden(inputs, columns(fields, **expected), tolerance)


def answering(golden, **got):
    def predict(given):
        return golden.outputs.layout.from_arrays({**golden.outputs, **got})

    return predict


def test_the_row_the_output_and_both_values_are_named():
    golden = golden_of({"prediction": np.array([1.0, 2.0, 3.0])})
    golden.check(answering(golden, prediction=np.array([1.0, 2.0, 3.0000001])))
    with pytest.raises(ModelFailed, match=r"golden row 2 .* prediction, expected 3\.0, got 3\.1"):
        golden.check(answering(golden, prediction=np.array([1.0, 2.0, 3.1])))
    with pytest.raises(ModelFailed, match="got None"):
        golden.check(lambda given: Columns(golden.outputs.layout, [np.full((3, 1), np.nan)], 3))
    with pytest.raises(ModelFailed, match="2 rows for 3"):
        golden.check(lambda given: golden.outputs.slice(0, 2))


def test_labels_may_differ_only_where_they_tie():
    expected = {
        "prediction": np.array(["no", "yes"], dtype=object),
        "probabilities": np.array([[0.5, 0.5], [0.2, 0.8]]),
    }
    golden = golden_of(expected)
    golden.check(answering(golden, prediction=np.array(["yes", "yes"], dtype=object)))
    with pytest.raises(ModelFailed, match=r"golden row 1 .* expected 'yes', got 'no'"):
        golden.check(answering(golden, prediction=np.array(["no", "no"], dtype=object)))
    with pytest.raises(ModelFailed, match="expected 'no', got 'maybe'"):
        golden.check(answering(golden, prediction=np.array(["maybe", "yes"], dtype=object)))
    with pytest.raises(ModelFailed, match="probabilities"):
        golden.check(answering(golden, probabilities=np.array([[0.5, 0.5], [0.3, 0.7]])))
