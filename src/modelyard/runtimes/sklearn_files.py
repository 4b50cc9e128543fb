"""Estimators as files: skops made deterministic, pickles as the last resort, and the versions that both depend on."""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any, ClassVar

import numpy as np

from modelyard.errors import BadBundle, InvalidInput, MissingDependency, Refused

#: Types beyond skops' own list that hold numbers only and do nothing when they are built from a file. skops checks
#: names before it builds anything.
HARMLESS = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._gb_losses.BinomialDeviance",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.LogLink",
    "sklearn._loss.link.HalfLogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss._loss.CyHalfBinomialLoss",
    "sklearn._loss._loss.CyHalfMultinomialLoss",
    "sklearn._loss._loss.CyHalfSquaredError",
    "sklearn._loss._loss.CyAbsoluteError",
    "sklearn._loss._loss.CyPinballLoss",
    "sklearn._loss._loss.CyHuberLoss",
    "sklearn._loss._loss.CyHalfPoissonLoss",
    "sklearn._loss._loss.CyHalfGammaLoss",
    "sklearn._loss._loss.CyHalfTweedieLoss",
    "sklearn._loss._loss.CyHalfTweedieLossIdentity",
    "sklearn._loss._loss.CyExponentialLoss",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn._loss.loss.HalfSquaredError",
    "sklearn._loss.loss.AbsoluteError",
    "sklearn._loss.loss.PinballLoss",
    "sklearn._loss.loss.HuberLoss",
    "sklearn._loss.loss.HalfPoissonLoss",
    "sklearn._loss.loss.HalfGammaLoss",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.ExponentialLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    *(
        f"sklearn.gaussian_process.kernels.{name}"
        for name in (
            "CompoundKernel",
            "ConstantKernel",
            "DotProduct",
            "ExpSineSquared",
            "Exponentiation",
            "Hyperparameter",
            "Matern",
            "Product",
            "RBF",
            "RationalQuadratic",
            "Sum",
            "WhiteKernel",
        )
    ),
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.preprocessing._label.LabelBinarizer",
    "sklearn.utils._bunch.Bunch",
    "collections.defaultdict",
    "collections.Counter",
    "numpy.dtype",
    "numpy.bool",
    "modelyard.preprocessing.DateParts",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRegressor",
    "xgboost.sklearn.XGBRanker",
    "xgboost.sklearn.XGBRFClassifier",
    "xgboost.sklearn.XGBRFRegressor",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "lightgbm.sklearn.LGBMRanker",
)

_EPOCH = (1980, 1, 1, 0, 0, 0)


def to_skops(model: Any) -> tuple[bytes, str]:
    """``model`` as a skops file, equal for equal models; empty with the reason where it cannot be one.

    Raises MissingDependency without skops.
    """
    try:
        import skops.io
    except ImportError as error:
        raise MissingDependency.extra("skops", "sklearn", "keeping a scikit-learn model") from error
    try:
        data = normalised(skops.io.dumps(model))
        unknown = [name for name in skops.io.get_untrusted_types(data=data) if name not in HARMLESS]
        if unknown:
            return b"", f"it holds types that are not known to be harmless: {', '.join(unknown[:5])}"
        skops.io.loads(data, trusted=list(HARMLESS))
    except Exception as error:  # skops meets every oddity of foreign objects: whatever it is, a pickle may still do
        return b"", f"skops cannot keep it: {type(error).__name__}: {error}"
    return data, ""


def read_skops(path: Path) -> Any:
    """The object in a skops file.

    Raises Refused where it names types that are not known to be harmless, BadBundle where it cannot be read.
    """
    try:
        import skops.io
    except ImportError as error:
        raise MissingDependency.extra("skops", "sklearn", "a scikit-learn model kept as skops") from error
    try:
        data = path.read_bytes()  # once: what is checked is what is loaded
        unknown = [name for name in skops.io.get_untrusted_types(data=data) if name not in HARMLESS]
        if unknown:
            raise Refused(
                f"the model file holds types that are not known to be harmless: {', '.join(unknown[:10])}",
                types=unknown,
            )
        return skops.io.loads(data, trusted=list(HARMLESS))
    except Refused:
        raise
    except Exception as error:  # a damaged zip, a damaged schema, a type that is gone: skops lets them all through
        raise BadBundle(f"the skops file cannot be read: {path.name} ({type(error).__name__}: {error})") from error


def normalised(data: bytes) -> bytes:
    """A skops file without what differs from one saving to the next: dates, addresses of objects, order of sets."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        schema = json.loads(source.read("schema.json"))
        names: dict[str, str] = {}
        tidy = _tidied(schema, {}, names)
        files = {new: source.read(old) for old, new in names.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for name, content in files.items():
            target.writestr(
                zipfile.ZipInfo(name, _EPOCH), _without_padding(content) if name.endswith(".npy") else content
            )
        target.writestr(zipfile.ZipInfo("schema.json", _EPOCH), json.dumps(tidy, separators=(",", ":")))
    return out.getvalue()


def _tidied(node: Any, ids: dict[int, int], names: dict[str, str]) -> Any:
    """The schema with addresses and file names numbered in order of appearance."""
    if isinstance(node, list):
        return [_tidied(item, ids, names) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("__loader__") == "SetNode" and isinstance(node.get("content"), list):
        node = {**node, "content": sorted(node["content"], key=_without_ids)}
    tidy: dict[str, Any] = {}
    for key, value in node.items():
        if key == "__id__" and isinstance(value, int):
            # Whether two equal texts or numbers are one object depends on who made them, and nothing depends on it.
            fresh = node.get("__loader__") == "JsonNode"
            number = len(ids)
            tidy[key] = ids.setdefault(-number - 1 if fresh else value, number)
        elif key == "file" and isinstance(value, str):
            tidy[key] = names.setdefault(value, f"{len(names)}{Path(value).suffix}")
        else:
            tidy[key] = _tidied(value, ids, names)
    return tidy


def _without_ids(node: Any) -> str:
    """A node of the schema as text, without what differs between processes at any depth."""
    return re.sub(r'"(__id__|file)": ("[^"]*"|\d+)', "", json.dumps(node, sort_keys=True))


def _without_padding(content: bytes) -> bytes:
    """An array file with zeros between the fields of its records, where memory holds anything."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype.names is None:
        return content
    clean = np.zeros(array.shape, array.dtype)
    for name in array.dtype.names:
        clean[name] = array[name]
    out = io.BytesIO()
    np.save(out, clean, allow_pickle=False)
    return out.getvalue()


def to_pickle(model: Any) -> bytes:
    """``model`` as a pickle. Raises InvalidInput where it holds what cannot be pickled, such as a lambda.

    A pickle records which of its equal texts are one object, which differs between a model that was just fitted and
    one that was read; after one round they are alike. Sets are written in an order that does not depend on hashes.
    """
    out = io.BytesIO()
    try:
        _Pickler(out, protocol=5).dump(pickle.loads(pickle.dumps(model, protocol=5)))
    except Exception as error:  # pickling calls methods of the objects, which may raise anything
        raise InvalidInput(
            f"the model cannot be saved: {error}", hint="use functions that are defined in a module, not lambdas"
        ) from error
    return out.getvalue()


#: The standard library's pickler written in Python, one method per type: the one in C does not let sets be sorted.
_Base: Any = pickle._Pickler


class _Pickler(_Base):  # type: ignore[misc]  # see above
    dispatch: ClassVar[dict[type, Callable[..., None]]] = dict(_Base.dispatch)

    def save_set(self, values: set[Any]) -> None:
        self.write(pickle.EMPTY_SET)
        self.memoize(values)  # before what is in it, which may refer to it
        self.write(pickle.MARK)
        for value in _in_order(values):
            self.save(value)
        self.write(pickle.ADDITEMS)

    dispatch[set] = save_set

    def save_frozenset(self, values: frozenset[Any]) -> None:
        self.write(pickle.MARK)
        for value in _in_order(values):
            self.save(value)
        if id(values) in self.memo:  # something in it referred to it, and so wrote it
            self.write(pickle.POP_MARK + self.get(self.memo[id(values)][0]))
            return
        self.write(pickle.FROZENSET)
        self.memoize(values)

    dispatch[frozenset] = save_frozenset


def _in_order(values: Iterable[Any]) -> list[Any]:
    """The members of a set in an order of their own where they are texts, numbers, classes or groups of these."""
    try:
        return sorted(values, key=_sort_key)
    except TypeError:
        return list(values)


def _sort_key(value: Any) -> str:
    if isinstance(value, (tuple, frozenset)):
        keys = [_sort_key(item) for item in value]
        return f"{type(value).__name__} {keys if isinstance(value, tuple) else sorted(keys)}"
    if isinstance(value, (str, bytes, int, float, complex, np.generic, NoneType)):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    raise TypeError


def versions_of(model: Any) -> dict[str, str]:
    """The versions of the libraries whose loaded modules a file of ``model`` depends on."""
    from modelyard.runtimes.sklearn_frame import parts_of

    tops = {kind.__module__.partition(".")[0] for part in parts_of(model) for kind in type(part).__mro__}
    found = {}
    for module, distribution in (
        ("sklearn", "scikit-learn"), ("xgboost", "xgboost"), ("lightgbm", "lightgbm"), ("numpy", "numpy"),
    ):  # fmt: skip
        if module in tops or module == "numpy":
            found[distribution] = str(sys.modules[module].__version__)
    return found


def check_versions(saved: dict[str, str]) -> None:
    """Refuse where scikit-learn is of another minor version than the one that saved the model. Imports nothing.

    Some models of another version fail to load; worse, some load and answer wrongly.
    """
    from importlib.metadata import PackageNotFoundError, version

    wanted = saved.get("scikit-learn")
    if not wanted:
        return
    try:
        here = version("scikit-learn")
    except PackageNotFoundError as error:
        raise MissingDependency.extra("scikit-learn", "sklearn", "this model") from error
    if here.split(".")[:2] != wanted.split(".")[:2]:
        minor = ".".join(wanted.split(".")[:2])
        raise Refused(
            f"the model was saved by another version of scikit-learn: {wanted}, here is {here}",
            hint=f"pip install 'scikit-learn=={minor}.*', or train and package the model again with {here}",
            saved=wanted,
            installed=here,
        )
