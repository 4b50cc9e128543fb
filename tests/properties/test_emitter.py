"""Small random tables: whatever their columns, gaps and texts, the graph says what the pipeline says."""

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from modelyard.bundle.emitter import emit
from modelyard.runtimes.answers import output_fields
from modelyard.runtimes.onnx_session import open_session, predict_with
from modelyard.runtimes.sklearn import SklearnRuntime
from modelyard.schema import Field, Signature

numbers = st.one_of(
    st.none(),
    st.floats(-1e6, 1e6),
    st.sampled_from([0.0, -0.0, 1.0, 1e-300, 16777217.0, 0.1, 1 / 3]),
)
texts = st.one_of(st.none(), st.text(max_size=4), st.sampled_from(["a", "b", "ä", "嗨"])).filter(lambda t: t != "")
rows = st.lists(st.tuples(numbers, numbers, texts, texts), min_size=6, max_size=25)
MODELS = {
    "ridge": Ridge,
    "logistic": LogisticRegression,
    "forest": lambda: RandomForestClassifier(4, random_state=0),
    "histogram": lambda: HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=1),
}
ENCODERS = {
    "one-hot": lambda: OneHotEncoder(handle_unknown="ignore"),
    "rare": lambda: OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=2),
    "ordinal": lambda: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
}
FIELDS = (
    Field(name="n", dtype="float64", nullable=True),
    Field(name="s", dtype="string", nullable=True),
    Field(name="m", dtype="float64", nullable=True),
    Field(name="t", dtype="string", nullable=True),
)


def columns_of(signature, table):
    n, m, s, t = zip(*table, strict=True)
    return signature.input_layout.from_arrays(
        {"n": np.array(n, dtype=object), "m": np.array(m, dtype=object), "s": list(s), "t": list(t)}
    )


def frame_of(columns):
    gaps = {name: [np.nan if v is None else v for v in columns[name].tolist()] for name in columns}
    return pd.DataFrame(gaps).astype({"s": object, "t": object})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fit=rows, ask=rows, kind=st.sampled_from(sorted(MODELS)), encoder=st.sampled_from(sorted(ENCODERS)))
def test_the_graph_says_what_the_pipeline_says(fit, ask, kind, encoder):
    inputs = Signature(inputs=FIELDS)
    known = columns_of(inputs, fit)
    scale = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    chain = make_column_transformer((scale, ["n", "m"]), (ENCODERS[encoder](), ["s", "t"]), sparse_threshold=0)
    y = np.arange(len(fit)) % 3 if kind in ("logistic", "forest") else np.arange(len(fit)) ** 1.5
    model = make_pipeline(chain, MODELS[kind]()).fit(frame_of(known), y)
    runtime = SklearnRuntime()
    signature = Signature(inputs=FIELDS, outputs=output_fields(runtime.describe(model)))
    made = emit(model, signature, ["n", "s", "m", "t"])
    graph = predict_with(open_session(made.model.SerializeToString()), {"inputs": made.inputs}, signature)
    asked = columns_of(signature, [*ask, *fit])
    expected, got = runtime.predictor(model, signature)(asked), graph(asked)
    for name in expected:
        if name == "prediction" and "probabilities" in expected:
            best = np.sort(expected["probabilities"], axis=1)
            clear = best[:, -1] - best[:, -2] > 1e-9
            assert (expected[name] == got[name])[clear].all()
        else:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, atol=1e-9)
