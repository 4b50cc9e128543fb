"""Small tables, targets and pipelines for the emitter's tests, and ``proved``: convert and prove a model."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from modelyard.bundle.convert import convert
from modelyard.runtimes.answers import output_fields
from modelyard.runtimes.onnx import OnnxRuntime
from modelyard.runtimes.sklearn import SklearnRuntime
from modelyard.schema import Signature, infer_fields


@functools.cache
def numeric(seed=0, rows=200):
    """Columns of numbers of very different sizes."""
    rng = np.random.default_rng(seed)
    return {f"x{i}": rng.normal(size=rows) * 10.0 ** (i - 1) + 3 * i for i in range(4)}


@functools.cache
def mixed(seed=0, rows=200, unseen=False):
    """Numbers with gaps, whole numbers, truth values, texts with gaps; with ``unseen``, texts of no training row."""
    rng = np.random.default_rng(seed)
    arrays = dict(numeric(seed, rows))
    for name in arrays:
        arrays[name] = np.where(rng.random(rows) < 0.08, np.nan, arrays[name])
    arrays["count"] = rng.integers(0, 9, rows)
    arrays["flag"] = rng.random(rows) < 0.4
    for name, choices in (("colour", ["red", "green", "blue", "grey"]), ("kind", ["a", "b"])):
        texts = rng.choice(choices, rows).astype(object)
        texts[rng.random(rows) < 0.08] = None
        if unseen:
            texts[: rows // 20] = "unheard of"
        arrays[name] = texts
    return arrays


def target(arrays, classes, labels=None):
    """A number for each row, or one of 2 or 3 classes."""
    rng = np.random.default_rng(7)
    score = np.nan_to_num(arrays["x0"]) * 20 + np.nan_to_num(arrays["x2"]) + rng.normal(size=len(arrays["x0"]))
    if "colour" in arrays:
        score = score + 9 * (arrays["colour"] == "red") + 5 * arrays["flag"]
    if not classes:
        return score + 70
    codes = np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))
    return codes if labels is None else np.array(labels)[codes]


def frame(arrays):
    """A data frame with NaN for missing texts, as pandas reads files."""
    return pd.DataFrame({k: _series(values) for k, values in arrays.items()})


def _series(values):
    if values.dtype != object:
        return values
    return pd.Series([np.nan if v is None else v for v in values], dtype=object)


def prepare(numbers=None):
    """Impute, scale and encode the mixed table."""
    numbers = numbers or make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return ColumnTransformer(
        [
            ("numbers", numbers, ["x0", "x1", "x2", "x3", "count"]),
            ("texts", OneHotEncoder(handle_unknown="ignore"), ["colour", "kind"]),
            ("flag", "passthrough", ["flag"]),
        ]
    )


def proved(model, arrays):
    """Convert ``model`` with ``arrays`` as its sample; returns the conversion, and the spec."""
    runtime = SklearnRuntime()
    facts = runtime.describe(model)
    signature = Signature(inputs=infer_fields(arrays), outputs=output_fields(facts))
    sample = signature.input_layout.from_arrays(arrays)
    original = runtime.predictor(model, signature)
    with tempfile.TemporaryDirectory() as folder:
        spec, conversion = convert(model, "sklearn", facts, signature, sample, original, Path(folder))
        if spec is not None:
            loaded = OnnxRuntime().load(Path(folder), spec, signature)(sample)
            assert list(loaded) == [field.name for field in signature.outputs]
    return conversion, spec


def assert_exact(model, arrays, within=1e-12):
    """The model converts by the emitter alone and agrees to ``within``, on the sample and on strange rows."""
    conversion, spec = proved(model, arrays)
    assert conversion.accepted, f"{conversion.step}: {conversion.reason}"
    assert conversion.method == "emitter"
    assert conversion.worst_relative <= within, conversion
    assert conversion.label_flips == 0
    assert conversion.rows > len(next(iter(arrays.values())))
    return spec
