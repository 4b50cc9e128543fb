"""Every transformer with a double form, before a linear model and before a tree; and what selects columns."""

import numpy as np
import pandas as pd
import pytest
from sklearn import decomposition, feature_selection, impute, preprocessing
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.tree import DecisionTreeRegressor

from modelyard.preprocessing import DateParts

from .tables import assert_exact, frame, mixed, numeric, prepare, proved, target

NUMBERS = ["x0", "x1", "x2", "x3"]

NUMERIC = [
    preprocessing.StandardScaler(),
    preprocessing.StandardScaler(with_mean=False),
    preprocessing.MinMaxScaler(),
    preprocessing.MinMaxScaler(clip=True),
    preprocessing.MaxAbsScaler(),
    preprocessing.RobustScaler(),
    preprocessing.Normalizer(),
    preprocessing.Normalizer("l1"),
    preprocessing.Normalizer("max"),
    preprocessing.PowerTransformer(),
    preprocessing.QuantileTransformer(n_quantiles=20),
    preprocessing.PolynomialFeatures(3),
    preprocessing.PolynomialFeatures(2, interaction_only=True, include_bias=False),
    preprocessing.KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    preprocessing.KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"),
    preprocessing.Binarizer(threshold=3.0),
    preprocessing.FunctionTransformer(),
    preprocessing.FunctionTransformer(np.tanh),
    decomposition.PCA(2),
    decomposition.PCA(2, whiten=True),
    decomposition.TruncatedSVD(2),
    feature_selection.VarianceThreshold(0.01),
    feature_selection.SelectKBest(feature_selection.f_regression, k=2),
    FeatureUnion([("a", preprocessing.StandardScaler()), ("b", decomposition.PCA(1))], transformer_weights={"a": 2.0}),
]


def _id(step):
    """A step's name, without the address that the ``repr`` of a function holds: it must be alike in every process."""
    return repr(step).partition(" at 0x")[0]


@pytest.mark.parametrize("last", [Ridge(), DecisionTreeRegressor(max_depth=4, random_state=0)], ids=["linear", "tree"])
@pytest.mark.parametrize("step", NUMERIC, ids=_id)
def test_numeric(step, last):
    model = make_pipeline(step, last).fit(frame(numeric()), target(numeric(), 0))
    assert_exact(model, numeric(1, 60), 1e-11)


def test_logarithms_of_positive_numbers():
    positive = {name: np.exp(values / 1000) for name, values in numeric().items()}
    steps = (preprocessing.FunctionTransformer(np.log1p), preprocessing.PowerTransformer("box-cox"))
    for step in steps:
        model = make_pipeline(step, Ridge()).fit(frame(positive), target(positive, 0))
        conversion, _ = proved(model, positive)
        assert conversion.accepted, conversion.reason
        assert conversion.worst_relative <= 1e-11


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent", "constant"])
@pytest.mark.parametrize("last", [Ridge(), DecisionTreeRegressor(max_depth=5, random_state=0)], ids=["linear", "tree"])
def test_imputation_of_numbers_with_flags(strategy, last):
    imputer = impute.SimpleImputer(strategy=strategy, add_indicator=True)
    model = make_pipeline(make_column_transformer((imputer, NUMBERS)), last)
    model.fit(frame(mixed()), target(mixed(), 0))
    assert_exact(model, mixed(1, 60))


def test_imputation_of_a_marker_and_an_empty_column():
    arrays = dict(numeric(), gone=np.full(200, np.nan))
    arrays["x1"] = np.where(np.arange(200) % 7 == 0, -1.0, arrays["x1"])
    chain = make_column_transformer(
        (impute.SimpleImputer(missing_values=-1.0), ["x0", "x1"]),
        (impute.SimpleImputer(), ["gone", "x2"]),
        (impute.SimpleImputer(keep_empty_features=True), ["gone", "x3"]),
    )
    with pytest.warns(UserWarning, match="without any observed"):
        model = make_pipeline(chain, Ridge()).fit(frame(arrays), target(arrays, 0))
        assert_exact(model, arrays)


ENCODERS = [
    preprocessing.OneHotEncoder(handle_unknown="ignore"),
    preprocessing.OneHotEncoder(handle_unknown="ignore", drop="first"),
    preprocessing.OneHotEncoder(handle_unknown="ignore", drop="if_binary"),
    preprocessing.OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=45),
    preprocessing.OneHotEncoder(handle_unknown="ignore", max_categories=3),
    preprocessing.OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=3, drop="first"),
    preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    preprocessing.OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=99, encoded_missing_value=-2, max_categories=3
    ),
    make_pipeline(impute.SimpleImputer(strategy="most_frequent"), preprocessing.OneHotEncoder(handle_unknown="ignore")),
    make_pipeline(
        impute.SimpleImputer(strategy="constant", fill_value="none", add_indicator=True),
        preprocessing.OneHotEncoder(handle_unknown="ignore"),
    ),
    preprocessing.TargetEncoder(random_state=0),
]


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@pytest.mark.parametrize("last", [Ridge(), DecisionTreeRegressor(max_depth=5, random_state=0)], ids=["linear", "tree"])
@pytest.mark.parametrize("step", ENCODERS, ids=lambda e: repr(e).replace("\n", "")[:70])
def test_encoders_of_texts(step, last):
    model = make_pipeline(make_column_transformer((step, ["colour", "kind"])), last)
    model.fit(frame(mixed()), target(mixed(), 0))
    assert_exact(model, mixed(1, 60, unseen=True))


@pytest.mark.parametrize("step", ENCODERS[:8], ids=lambda e: repr(e).replace("\n", "")[:70])
@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_encoders_of_numbers(step):
    def table(seed, rows):
        rng = np.random.default_rng(seed)
        with_gaps = np.where(rng.random(rows) < 0.1, np.nan, rng.integers(0, 5, rows))
        return {
            "x0": rng.normal(size=rows),
            "x2": with_gaps,
            "whole": rng.integers(0, 4, rows),
            "flag": rng.random(rows) < 0.5,
        }

    train = table(0, 200)
    model = make_pipeline(make_column_transformer((step, ["x2", "whole", "flag"])), Ridge())
    model.fit(frame(train), target(train, 0))
    assert_exact(model, table(1, 60))


def test_target_encoding_of_three_classes():
    model = make_pipeline(
        make_column_transformer((preprocessing.TargetEncoder(random_state=0), ["colour", "kind"])), LogisticRegression()
    )
    model.fit(frame(mixed()), target(mixed(), 3))
    assert_exact(model, mixed(1, 60, unseen=True))


def test_missing_texts_as_empty_ones():
    filled = {name: np.where(v == None, "", v) if v.dtype == object else v for name, v in mixed().items()}  # noqa: E711
    chain = make_pipeline(
        impute.SimpleImputer(missing_values="", strategy="most_frequent"),
        preprocessing.OneHotEncoder(handle_unknown="ignore"),
    )
    model = make_pipeline(make_column_transformer((chain, ["colour", "kind"])), Ridge())
    model.fit(frame(filled), target(filled, 0))
    assert_exact(model, filled)
    assert_exact(model, mixed(1, 60))


def test_selectors_slices_masks_positions_and_the_rest():
    train = mixed()
    table = frame(train)
    encode = preprocessing.OneHotEncoder(handle_unknown="ignore")
    scale = make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler())
    chains = [
        ColumnTransformer(
            [("t", encode, make_column_selector(dtype_include=object))], remainder=impute.SimpleImputer()
        ),
        ColumnTransformer([("s", scale, slice(1, 3)), ("m", "drop", [0])], remainder="drop"),
        ColumnTransformer([("m", scale, np.array([True, False, True] + [False] * 5))]),
        ColumnTransformer([("p", scale, [-4, 0]), ("none", scale, []), ("f", "passthrough", ["flag", "count"])]),
        ColumnTransformer([("c", scale, lambda t: [c for c in t if c.startswith("x")]), ("t", encode, ["kind"])]),
    ]
    for chain in chains:
        model = make_pipeline(chain, Ridge()).fit(table, target(train, 0))
        assert_exact(model, mixed(1, 60))


def test_columns_come_in_the_models_own_order():
    train = numeric()
    model = Ridge().fit(frame(train)[["x3", "x0", "x2", "x1"]], target(train, 0))
    assert_exact(model, train)


def test_one_field_with_a_shape():
    rows = np.column_stack(list(numeric().values()))
    model = make_pipeline(preprocessing.StandardScaler(), RandomForestRegressor(5, random_state=0))
    model.fit(rows, target(numeric(), 0))
    spec = assert_exact(model, {"pixels": rows})
    assert spec.options["inputs"] == [{"tensor": "of_pixels", "fields": ["pixels"], "dtype": "float64"}]


def test_several_targets():
    train = numeric()
    y = np.column_stack([target(train, 0), -target(train, 0)])
    for model in (LinearRegression(), RandomForestRegressor(5, random_state=0), DecisionTreeRegressor(max_depth=3)):
        assert_exact(model.fit(frame(train), y), numeric(1, 60))


def test_dates():
    rng = np.random.default_rng(0)
    moments = rng.uniform(-1e9, 2e9, 200)
    moments[::9] = np.nan
    arrays = {"x0": rng.normal(size=200), "x2": rng.normal(size=200), "when": moments.round()}
    fill = impute.SimpleImputer()
    chain = make_column_transformer((make_pipeline(DateParts(), fill), ["when"]), remainder="passthrough")
    model = make_pipeline(chain, preprocessing.StandardScaler(), Ridge()).fit(frame(arrays), target(arrays, 0))
    assert_exact(model, arrays, 1e-11)
    stamps = dict(arrays, when=(moments * 1e6).astype("datetime64[us]"))
    conversion, _ = proved(model, stamps)
    assert conversion.accepted, conversion.reason


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_histogram_boosting_with_its_own_categories_and_gaps(classes):
    def table(seed, rows, unseen=0):
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 12 + unseen, rows).astype("float64")
        codes[rng.random(rows) < 0.1] = np.nan
        return dict(numeric(seed, rows), code=codes)

    train = table(0, 400)
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    model = kind(max_iter=20, categorical_features=["code"], min_samples_leaf=3)
    y = np.nan_to_num(train["code"]) % 3 * 20 + train["x0"] * 10
    y = np.digitize(y, np.quantile(y, np.arange(1, classes) / classes)) if classes else y
    model.fit(frame(train), y)
    assert any(p.raw_left_cat_bitsets.size for stage in model._predictors for p in stage)
    assert_exact(model, table(1, 150, unseen=3))


def test_histogram_boosting_with_categories_from_a_data_frame():
    train = {k: v for k, v in mixed().items() if k != "flag"}
    table = frame(train).astype({"colour": "category", "kind": "category"})
    chain = make_column_transformer(
        (preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), ["colour", "kind"]),
        remainder="passthrough",
    )
    model = make_pipeline(chain, HistGradientBoostingRegressor(max_iter=15, categorical_features=[0, 1]))
    model.fit(table.astype({"colour": object, "kind": object}), target(mixed(), 0))
    held_out = {k: v for k, v in mixed(1, 60, unseen=True).items() if k != "flag"}
    assert_exact(model, held_out)


def test_a_linear_model_takes_scaling_into_its_weights():
    model = make_pipeline(preprocessing.StandardScaler(), LinearRegression())
    model.fit(frame(numeric()), target(numeric(), 0))
    assert operators(model, numeric()) == ["Gemm"]


def test_a_forest_takes_imputation_scaling_and_rounding_into_its_thresholds():
    numbers = {k: v for k, v in mixed().items() if k in NUMBERS}
    model = make_pipeline(
        impute.SimpleImputer(), preprocessing.StandardScaler(), RandomForestRegressor(3, random_state=0)
    )
    model.fit(frame(numbers), target(mixed(), 0))
    assert operators(model, numbers) == ["TreeEnsemble"]
    assert_exact(model, numbers)


def test_large_offsets_are_not_folded():
    far = {name: values + 1e9 for name, values in numeric().items()}
    model = make_pipeline(preprocessing.StandardScaler(), Ridge()).fit(frame(far), target(numeric(), 0))
    assert operators(model, far) == ["Sub", "Div", "Gemm"]
    assert_exact(model, far)


def operators(model, arrays):
    from modelyard.bundle.emitter import emit
    from modelyard.schema import Signature, infer_fields

    graph = emit(model, Signature(inputs=infer_fields(arrays))).model.graph
    return [node.op_type for node in graph.node]


def test_pandas_keeps_the_names(tmp_path):
    chain = prepare().set_output(transform="default")
    model = make_pipeline(chain, Ridge()).fit(frame(mixed()), pd.Series(target(mixed(), 0)))
    assert_exact(model, mixed(1, 60))


def test_every_storage_type():
    rng = np.random.default_rng(0)
    gaps = np.arange(120) % 9 == 0
    arrays = {
        "x0": rng.normal(size=120),
        "x2": rng.normal(size=120).astype("float32"),
        "tiny": rng.integers(-100, 100, 120).astype("int8"),
        "large": rng.integers(0, 2**40, 120),
        "flag": rng.random(120) < 0.5,
        "unsure": np.array([None if g else bool(v) for g, v in zip(gaps, rng.random(120) < 0.5, strict=True)]),
        "when": rng.integers(0, 10**9, 120).astype("datetime64[s]"),
    }
    table = pd.DataFrame({k: v for k, v in arrays.items() if k not in ("unsure", "when")})
    table["unsure"] = pd.Series([np.nan if v is None else v for v in arrays["unsure"]], dtype=object)
    table["when"] = arrays["when"].astype("int64").astype("float64")
    chain = make_column_transformer(
        (preprocessing.OneHotEncoder(handle_unknown="ignore"), ["unsure", "flag"]),
        (DateParts(parts=("hour", "year_sin")), ["when"]),
        remainder=preprocessing.StandardScaler(),
    )
    for last in (Ridge(), HistGradientBoostingRegressor(max_iter=10, min_samples_leaf=3)):
        conversion, spec = proved(make_pipeline(chain, last).fit(table, table["x0"]), arrays)
        assert conversion.accepted, conversion.reason
        assert conversion.worst_relative <= 1e-6
        if isinstance(last, Ridge):  # trees that do not look at a column do not ask for it
            storages = {entry["dtype"] for entry in spec.options["inputs"]}
            assert storages == {"float64", "float32", "int8", "int64", "bool"}


@pytest.mark.parametrize("step", [preprocessing.PolynomialFeatures(3), preprocessing.QuantileTransformer()], ids=_id)
def test_boosting_decides_at_the_last_digit(step):
    train = numeric(0, 900)
    model = make_pipeline(step, HistGradientBoostingRegressor(max_iter=20)).fit(frame(train), target(train, 0))
    assert_exact(model, train)


def test_a_step_that_trees_cannot_follow_to_the_last_digit_is_named():
    train = numeric(0, 900)
    model = make_pipeline(preprocessing.PowerTransformer(), HistGradientBoostingRegressor(max_iter=20))
    conversion, spec = proved(model.fit(frame(train), target(train, 0)), train)
    assert spec is None
    assert conversion.step == "powertransformer"
    assert conversion.reason.endswith("leave it out, trees do not need it")


def test_an_empty_text_is_imputed_only_where_texts_may_be_missing():
    arrays = dict(mixed())
    arrays["kind"] = np.where(arrays["kind"] == "a", "a", "b").astype(object)  # never missing, colour is
    texts = make_pipeline(
        impute.SimpleImputer(strategy="most_frequent"), preprocessing.OneHotEncoder(handle_unknown="ignore")
    )
    columns = make_column_transformer((texts, ["colour", "kind"]), (impute.SimpleImputer(), NUMBERS))
    model = make_pipeline(columns, RandomForestRegressor(10, random_state=0))
    assert_exact(model.fit(frame(arrays), target(arrays, 0)), arrays, 1e-12)
