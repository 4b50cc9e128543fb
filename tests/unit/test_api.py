"""The Python face: what a loaded model takes, and what it says of what it does not take."""

from __future__ import annotations

import re
import tempfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from modelyard import api
from modelyard.errors import InvalidInput, RemoteFailed
from modelyard.schema import Field, Signature

TABLE = pd.DataFrame({"x2": np.arange(30.0), "x1": np.arange(30.0) ** 2})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> api.Model:
    folder = tmp_path_factory.mktemp("api") / "linear"
    api.package(LinearRegression().fit(TABLE, TABLE.x1 - TABLE.x2), sample=TABLE, out=folder)
    return api.load(folder)


@pytest.mark.parametrize("rows", [np.array([[1.0, 5.0]]), [[1.0, 5.0]], np.array([[1, 5]], dtype=object)])
def test_a_matrix_is_taken_in_the_signatures_order(model, rows):
    assert model.predict(rows).tolist() == pytest.approx([4.0])


@pytest.mark.parametrize(
    ("rows", "got"),
    [(np.ones((1, 3)), r"numpy\.ndarray of shape \(1, 3\), 3"), ([[1.0]], "rows, 1")],
)
def test_a_matrix_of_another_width_is_told_the_columns(model, rows, got):
    with pytest.raises(InvalidInput, match=rf"table: expected 2 columns \(x2, x1\), got {got}"):
        model.predict(rows)


def test_a_single_row_without_names_is_told_what_would_do(model):
    with pytest.raises(InvalidInput, match=r"a matrix with 2 columns \(x2, x1\), got numpy.ndarray of shape \(2,\)"):
        model.predict(np.ones(2))


def test_an_array_is_the_one_column_that_has_its_shape():
    signature = Signature(
        inputs=(Field(name="pixels", dtype="float64", shape=(4,)),),
        outputs=(Field(name="prediction", dtype="float64"),),
    )

    def predict(columns):
        return signature.output_layout.from_arrays({"prediction": columns["pixels"].sum(axis=1)})

    bundle = SimpleNamespace(signature=signature)
    assert api.Model(bundle, predict).predict(np.ones((2, 4))).tolist() == [4.0, 4.0]


def test_more_columns_than_the_model_takes_come_with_a_remedy_that_works(model):
    rows = TABLE.assign(y=1.0)
    with pytest.raises(InvalidInput, match="y: expected no such column") as caught:
        model.predict(rows)
    pasted = re.search(r"rows\[.*\]", caught.value.hint)
    assert pasted is not None
    assert len(model.predict(eval(pasted[0]))) == 30
    with pytest.raises(InvalidInput) as caught:
        model.predict({"x1": 1.0, "x2": 2.0, "y": 3.0})
    assert caught.value.hint == "leave out y"


def test_a_temporary_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(
        RemoteFailed, match=f"cannot make a temporary folder in {tmp_path}/gone: No such file"
    ) as caught:
        api.package(LinearRegression().fit(TABLE, TABLE.x1), sample=TABLE, name="linear", registry=str(tmp_path / "r"))
    assert "TMPDIR" in caught.value.hint
