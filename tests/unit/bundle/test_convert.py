"""``convert``: what is accepted, what is refused and with which words."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from modelyard.bundle.convert import convert
from modelyard.errors import ModelFailed
from modelyard.interfaces import ModelFacts
from modelyard.runtimes.answers import output_fields
from modelyard.runtimes.onnx import OnnxRuntime
from modelyard.runtimes.sklearn import SklearnRuntime
from modelyard.schema import Signature, infer_fields


def packaged(model, arrays, folder, original=None):
    """Convert as packaging does: the signature from the arrays, the original through its own runtime."""
    runtime = SklearnRuntime()
    facts = runtime.describe(model)
    signature = Signature(inputs=infer_fields(arrays), outputs=output_fields(facts))
    sample = signature.input_layout.from_arrays(arrays)
    original = original or runtime.predictor(model, signature)
    spec, conversion = convert(model, "sklearn", facts, signature, sample, original, folder)
    return spec, conversion, signature, sample, original


@pytest.fixture
def mixed():
    rng = np.random.default_rng(0)
    texts = np.array([*rng.choice(["red", "green", "blue"], 200), None], dtype=object)[:-1]
    texts[::17] = None
    return {"width": rng.normal(size=200), "colour": texts}


def frame(arrays):
    return pd.DataFrame({k: [np.nan if v is None else v for v in values] for k, values in arrays.items()})


def test_the_blog_post_case(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {"x1": rng.normal(size=50), "x2": rng.normal(size=50)}
    model = LinearRegression().fit(pd.DataFrame(arrays), 3 * arrays["x1"] + arrays["x2"])
    spec, conversion, signature, sample, original = packaged(model, arrays, tmp_path)
    assert conversion.accepted
    assert (conversion.source, conversion.target, conversion.method) == ("sklearn", "onnx", "emitter")
    assert conversion.rows > 50
    assert conversion.worst_relative <= 1e-12
    assert spec.options["inputs"] == [{"tensor": "in_float64", "fields": ["x1", "x2"], "dtype": "float64"}]
    predict = OnnxRuntime().load(tmp_path, spec, signature)
    np.testing.assert_allclose(predict(sample)["prediction"], original(sample)["prediction"], rtol=1e-12)


def test_the_same_model_gives_the_same_bytes(tmp_path, mixed):
    pre = ColumnTransformer([("n", StandardScaler(), ["width"]), ("c", OneHotEncoder(), ["colour"])])
    y = mixed["width"] > 0
    model = make_pipeline(pre, RandomForestClassifier(10, random_state=0)).fit(frame(mixed), y)
    packaged(model, mixed, tmp_path / "one")
    packaged(model, mixed, tmp_path / "two")
    assert (tmp_path / "one/model.onnx").read_bytes() == (tmp_path / "two/model.onnx").read_bytes()


def test_a_step_without_a_form_is_named(tmp_path, mixed):
    pre = ColumnTransformer([("n", StandardScaler(), ["width"]), ("text", CountVectorizer(), "colour")])
    filled = frame(mixed).fillna({"colour": "none"})
    model = make_pipeline(pre, LogisticRegression()).fit(filled, mixed["width"] > 0)
    arrays = {name: filled[name].to_numpy() for name in filled}
    spec, conversion, *_ = packaged(model, arrays, tmp_path)
    assert spec is None
    assert conversion.step == "columntransformer.text"
    assert "CountVectorizer has no double form" in conversion.reason
    assert not list(tmp_path.iterdir())


def test_a_lambda_is_refused(tmp_path):
    x = {"a": np.arange(20.0)}
    model = make_pipeline(FunctionTransformer(lambda v: v + 1), LinearRegression()).fit(pd.DataFrame(x), x["a"])
    spec, conversion, *_ = packaged(model, x, tmp_path)
    assert spec is None
    assert conversion.step == "functiontransformer"
    assert "numpy.log1p" in conversion.reason


class Doubling(StandardScaler):
    """A stranger's transformer that inherits a known name's arithmetic and changes it."""

    def transform(self, X, copy=None):
        return 2 * super().transform(X, copy)


def test_a_custom_transformer_is_refused_even_if_it_inherits(tmp_path):
    x = {"a": np.arange(20.0)}
    model = make_pipeline(Doubling(), LinearRegression()).fit(pd.DataFrame(x), x["a"])
    spec, conversion, *_ = packaged(model, x, tmp_path)
    assert spec is None
    assert conversion.step == "doubling"
    assert conversion.reason.startswith("Doubling has no double form")


def test_a_graph_that_disagrees_is_not_accepted(tmp_path):
    x = {"a": np.arange(20.0), "b": np.ones(20)}
    model = LinearRegression().fit(pd.DataFrame(x), x["a"])
    runtime = SklearnRuntime()

    def another(columns):
        answer = runtime.predictor(model, signature)(columns)
        answer.blocks[0][3] += 1e-3
        return answer

    signature = Signature(inputs=infer_fields(x), outputs=output_fields(runtime.describe(model)))
    spec, conversion, *_ = packaged(model, x, tmp_path, original=another)
    assert spec is None
    assert conversion.step == "LinearRegression"
    assert "differ by more than 1e-09" in conversion.reason
    assert "for instance for {" in conversion.reason  # the row, so that it can be tried
    assert conversion.worst_absolute == pytest.approx(1e-3)
    assert not list(tmp_path.iterdir())


def test_rows_that_the_original_refuses_are_left_out_and_noted(tmp_path, mixed):
    pre = ColumnTransformer([("n", StandardScaler(), ["width"]), ("c", OneHotEncoder(), ["colour"])])
    model = make_pipeline(pre, LogisticRegression()).fit(frame(mixed), mixed["width"] > 0)
    _, conversion, *_ = packaged(model, mixed, tmp_path)
    assert conversion.accepted
    assert "colour: an unseen text" in conversion.reason


def test_what_the_original_raises_on_the_sample_passes_through(tmp_path):
    x = {"a": np.arange(20.0)}
    model = LinearRegression().fit(pd.DataFrame(x), x["a"])

    def broken(columns):
        raise ModelFailed("the model failed: for reasons of its own")

    with pytest.raises(ModelFailed, match="reasons of its own"):
        packaged(model, x, tmp_path, original=broken)


def test_facts_name_the_estimator_where_no_step_does(tmp_path):
    signature = Signature(inputs=infer_fields({"a": np.arange(3.0)}))
    sample = signature.input_layout.from_arrays({"a": np.arange(3.0)})
    facts = ModelFacts(task="regression", kind="somewhere.Stranger")
    spec, conversion = convert(object(), "python", facts, signature, sample, lambda c: c, tmp_path)
    assert spec is None
    assert conversion.step == "Stranger"
    assert conversion.target == "python"
