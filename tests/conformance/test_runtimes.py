"""Every runtime in the tree against the kit that we give to others."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest
import xgboost
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from modelyard import plugins
from modelyard.interfaces import ModelFacts, Runtime
from modelyard.runtimes.answers import output_fields
from modelyard.runtimes.onnx import bind
from modelyard.schema import Field, Signature
from modelyard.testing import runtimes as kit
from modelyard.testing.runtimes import (
    CHECKS,
    Case,
    MemoryModel,
    MemoryRuntime,
    check_runtime,
)

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(RNG.normal(size=(80, 3)), columns=["a", "b", "c"])
TABLE.loc[::9, "b"] = np.nan
SCORE = TABLE.a + TABLE.b.fillna(0)
LABEL = np.where(SCORE > 0.5, "high", np.where(SCORE < -0.5, "low", "mid"))
WORDS = RNG.choice(["x", "y", "z"], len(TABLE)).astype(object)
WORDS[::11] = None


def case_of(runtime: Runtime, model: Any, sample: dict[str, Any]) -> Case:
    fields = tuple(
        Field(name=name, dtype="string" if values.dtype == object else "float64", nullable=True)
        for name, values in sample.items()
    )
    outputs = output_fields(runtime.describe(model))
    # One row alone may be summed in another order than many at once.
    return Case(runtime, model, sample, Signature(inputs=fields, outputs=outputs), tolerance=1e-12)


def arrays(table: Any) -> dict[str, Any]:
    return {name: table[name].to_numpy() for name in table}


def onnx_case() -> Case:
    weights = numpy_helper.from_array(np.array([[1.0], [10.0], [100.0]]), "w")
    codes = {"keys_strings": ["", "x", "y"], "values_floats": [0.5, 1.0, 2.0], "default_float": 7.0}
    nodes = [
        helper.make_node("MatMul", ["n", "w"], ["sum"]),
        helper.make_node("LabelEncoder", ["word"], ["code"], domain="ai.onnx.ml", **codes),
        helper.make_node("Cast", ["code"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["sum", "wide"], ["y"]),
    ]
    given = [("n", TensorProto.DOUBLE, ["N", 3]), ("word", TensorProto.STRING, ["N", 1])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*g) for g in given],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["N", 1])],
        [weights],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    _, signature = bind(model, ["a", "word", "b", "c"])
    fields = tuple(Field(name=f.name, dtype=f.dtype, nullable=f.dtype == "string") for f in signature.inputs)
    sample = {**arrays(TABLE.fillna(0.0)), "word": WORDS}
    return Case(
        plugins.find("runtimes", "onnx"), model, sample, Signature(inputs=fields, outputs=signature.outputs), 1e-15
    )


def numeric_onnx_case() -> Case:
    """One tensor of numbers: the road of the bound buffers."""
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0, axes=[1])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=9)
    _, signature = bind(model, ["a", "b", "c"])
    sample = {name: values.astype("float32") for name, values in arrays(TABLE.fillna(0.0)).items()}
    return Case(plugins.find("runtimes", "onnx"), model, sample, signature, tolerance=1e-6)


def sklearn_case() -> Case:
    table = TABLE.assign(word=pd.Series(WORDS, dtype=object))
    encode = make_column_transformer(
        (SimpleImputer(), ["a", "b", "c"]), (OneHotEncoder(handle_unknown="ignore"), ["word"])
    )
    model = make_pipeline(encode, LogisticRegression()).fit(table, LABEL)
    return case_of(plugins.find("runtimes", "sklearn"), model, arrays(table))


def sklearn_array_case() -> Case:
    model = LinearRegression().fit(TABLE.fillna(0).to_numpy(), np.c_[SCORE, -SCORE])
    return case_of(plugins.find("runtimes", "sklearn"), model, arrays(TABLE.fillna(0)))


def xgboost_case() -> Case:
    model = xgboost.XGBClassifier(n_estimators=5).fit(TABLE, np.unique(LABEL, return_inverse=True)[1])
    return case_of(plugins.find("runtimes", "xgboost"), model, arrays(TABLE))


def xgboost_categories_case() -> Case:
    table = TABLE.assign(word=pd.Series(WORDS, dtype="category"))
    model = xgboost.XGBRegressor(n_estimators=5, enable_categorical=True).fit(table, SCORE + (WORDS == "x"))
    return case_of(plugins.find("runtimes", "xgboost"), model, {**arrays(TABLE), "word": WORDS})


def lightgbm_case() -> Case:
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(TABLE, LABEL)
    return case_of(plugins.find("runtimes", "lightgbm"), model, arrays(TABLE))


def lightgbm_booster_case() -> Case:
    table = TABLE.assign(word=pd.Series(WORDS, dtype="category"))
    parameters = {"objective": "regression", "verbose": -1, "min_data_in_leaf": 3, "min_data_per_group": 3}
    model = lightgbm.train(parameters, lightgbm.Dataset(table, SCORE + (WORDS == "x")), 5)
    return case_of(plugins.find("runtimes", "lightgbm"), model, {**arrays(TABLE), "word": WORDS})


def memory_case() -> Case:
    model = MemoryModel("doubled", lambda columns: {"prediction": columns["a"] * 2})
    return case_of(MemoryRuntime(), model, arrays(TABLE))


CASES = [
    onnx_case, numeric_onnx_case, sklearn_case, sklearn_array_case, xgboost_case, xgboost_categories_case,
    lightgbm_case, lightgbm_booster_case, memory_case,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__.removesuffix("_case"))
def test_runtime(make: Callable[[], Case], check: Callable[[Case], None]) -> None:
    check(_made(make))


@cache
def _made(make: Callable[[], Case]) -> Case:
    return make()


class Careless(MemoryRuntime):
    """Breaks one rule of the seam at a time."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def claims(self, thing: object) -> bool:
        return self.fault == "claims" or super().claims(thing)

    def describe(self, model: MemoryModel) -> ModelFacts:
        return ModelFacts(task="regression", kind="memory", targets=2 if self.fault == "describes" else 1)

    def save(self, model: MemoryModel, folder: Any) -> dict[str, Any]:
        options = super().save(model, folder)
        if self.fault == "bytes":
            (folder / "noise").write_text(str(RNG.random()))
        return options

    def load(self, folder: Any, spec: Any, signature: Signature, device: str = "cpu") -> Any:
        if self.fault == "damaged":
            return lambda columns: None
        predict = super().load(folder, spec, signature, device)
        if self.fault == "loads":
            return lambda columns: signature.output_layout.from_arrays({"prediction": np.zeros(columns.rows)})
        if self.fault == "rows":
            return lambda columns: predict(columns.slice(0, 1)) if columns.rows > 1 else predict(columns)
        if self.fault == "order":
            return lambda columns: signature.output_layout.from_arrays({"prediction": columns.blocks[0][:, 0] * 2})
        if self.fault == "alone":

            def spoil(columns: Any) -> Any:
                answer = predict(columns)
                columns.blocks[0][...] = 0
                return answer

            return spoil
        if self.fault == "alive":
            one = np.zeros((1, 1))

            def reuse(columns: Any) -> Any:
                answer = predict(columns)
                if columns.rows == 1:
                    one[...] = answer.blocks[0]
                    answer.blocks = [one]
                return answer

            return reuse
        return predict  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "check", "message"),
    [
        ("claims", kit.claims_its_own, "it claims None"),
        ("describes", kit.describes_what_the_signature_says, "wrong number of targets"),
        ("bytes", kit.saves_equal_bytes, "bytes differ"),
        ("damaged", kit.refuses_a_damaged_bundle, "was loaded"),
        ("loads", kit.loads_what_it_saved, "saved and loaded: prediction differs"),
        ("rows", kit.takes_any_number_of_rows, "row by row|no rows give rows"),
        ("order", kit.does_not_mind_the_order_of_columns, "laid out another way"),
        ("alone", kit.leaves_the_callers_rows_alone, "the caller's rows were changed"),
        ("alive", kit.leaves_the_callers_rows_alone, "an answer changed with the next call"),
        ("alive", kit.predicts_in_threads, "in threads: prediction differs"),
    ],
)
def test_the_kit_notices(fault: str, check: Callable[[Case], None], message: str) -> None:
    good = memory_case()
    check(Case(Careless(), good.model, good.sample, good.signature))
    with pytest.raises(AssertionError, match=message):
        check(Case(Careless(fault), good.model, good.sample, good.signature))


def test_the_kit_notices_imports() -> None:
    good = memory_case()
    with pytest.raises(AssertionError, match=r"fresh process|imports .*sklearn"):
        check_runtime(Careless(), good.model, good.sample, good.signature)
