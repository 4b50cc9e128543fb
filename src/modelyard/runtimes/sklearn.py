"""The scikit-learn runtime: live estimators, and those kept in a bundle because no faithful ONNX form exists.

An estimator is kept as skops, which names types and runs no code, where all its types are known; else as a pickle,
which this runtime writes and never reads: ``modelyard.bundle.trust`` decides about that.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.errors import BadBundle, InvalidInput, MissingDependency, NotFound, Refused
from modelyard.interfaces import ModelFacts, ModelSpec, Predict
from modelyard.runtimes.answers import plain_labels, predict_with_answers
from modelyard.runtimes.sklearn_files import check_versions, read_skops, to_pickle, to_skops, versions_of
from modelyard.runtimes.sklearn_frame import found_out, names_of, table_maker
from modelyard.schema import Columns, Signature

#: Libraries with a runtime of their own; a pipeline that ends with one of theirs is still scikit-learn's.
OTHERS = ("xgboost", "lightgbm")


class SklearnRuntime:
    """Anything that predicts and has parameters as scikit-learn's estimators do."""

    name = "sklearn"

    def claims(self, thing: object) -> bool:
        """A live estimator, or the path of a skops file."""
        if isinstance(thing, Path):
            return thing.is_file() and thing.suffix == ".skops"
        kind = type(thing)
        if thing is None or isinstance(thing, type) or kind.__module__.partition(".")[0] in OTHERS:
            return False
        return callable(getattr(kind, "get_params", None)) and hasattr(thing, "predict")

    def read(self, path: Path) -> Any:
        """The estimator in a skops file. Raises Refused where it holds types that are not known to be harmless."""
        return read_skops(path)

    def describe(self, model: Any) -> ModelFacts:
        """What the estimator is. Raises InvalidInput where it has not been fitted."""
        _check_fitted(model)
        count = getattr(model, "n_features_in_", None)
        classes = getattr(model, "classes_", None)
        several = isinstance(classes, list)  # one array of labels for each target
        task = _task(model)
        targets = _targets(model, task)
        if classes is not None and task == "classification":
            classes = np.unique(np.concatenate(classes)) if several else classes
        else:
            classes = None
        return ModelFacts(
            task=task,
            kind=kind_of(model),
            feature_names=names_of(model),
            feature_count=None if count is None else int(count),
            classes=None if classes is None else plain_labels(classes),
            has_probabilities=classes is not None and targets == 1 and hasattr(model, "predict_proba"),
            targets=targets,
        )

    def settle(self, model: Any, signature: Signature, rows: Columns) -> dict[str, Any]:
        """Options by which ``predictor_as`` calls the model as it was fitted: ``takes`` where only a trial on ``rows``
        tells. Raises ModelFailed where it fails on them in any form.
        """
        takes = found_out(model, signature, lambda form: self.predictor_as(model, signature, {"takes": form}), rows)
        return {"takes": takes} if takes else {}

    def predictor(self, model: Any, signature: Signature) -> Predict:
        """The estimator as a plain function; also for one that the caller has unpickled under its own rules.

        It is given what it was fitted on: a data frame with the fitted names in their order, or an array of numbers.
        """
        return self.predictor_as(model, signature, {})

    def predictor_as(self, model: Any, signature: Signature, options: Mapping[str, Any]) -> Predict:
        """The same, where ``options`` may hold what ``settle`` has found out."""
        make = table_maker(model, names_of(model), signature, str(options.get("takes", "")))
        shares = any(field.name == "probabilities" for field in signature.outputs)

        def answers(columns: Columns) -> tuple[Any, Any]:
            table = make(columns)
            return model.predict(table), model.predict_proba(table) if shares else None

        return predict_with_answers(answers, signature)

    def save(self, model: Any, folder: Path) -> dict[str, Any]:
        """Write ``model.skops`` where all types are known, else ``model.pkl``; the options say which, with versions.

        Raises InvalidInput where the estimator cannot be written at all.
        """
        folder.mkdir(parents=True, exist_ok=True)
        data, reason = to_skops(model)
        options: dict[str, Any] = {"file": "model.skops" if data else "model.pkl", "versions": versions_of(model)}
        if not data:
            data = to_pickle(model)
            options["reason"] = reason
        (folder / options["file"]).write_bytes(data)
        return options

    def load(self, folder: Path, spec: ModelSpec, signature: Signature, device: str = "cpu") -> Predict:
        """The kept estimator as a plain function.

        Raises Refused for a pickle, for another version of scikit-learn than it was saved with (before anything is
        imported), and for types that are not known; BadBundle where the file is missing or damaged.
        """
        if device != "cpu":
            raise NotFound.among("device", device, ["cpu"])
        name = str(spec.options.get("file", "model.skops"))
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise BadBundle(f"the bundle has no such model file: {name}")
        if path.suffix != ".skops":
            raise Refused(
                f"reading a pickle runs code from it, and nobody vouched for this one: {name}",
                hint="name its digest with --trust sha256:...",
                file=name,
            )
        check_versions(spec.options.get("versions", {}))
        return self.predictor_as(read_skops(path), signature, spec.options)


def kind_of(model: Any) -> str:
    """Library and class, without private modules: ``sklearn.linear_model.LinearRegression``."""
    kind = type(model)
    public = itertools.takewhile(lambda part: not part.startswith("_"), kind.__module__.split("."))
    return ".".join([*public, kind.__qualname__])


def _check_fitted(model: Any) -> None:
    try:
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted
    except ImportError as error:
        raise MissingDependency.extra("scikit-learn", "sklearn", "a scikit-learn model") from error
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise InvalidInput(f"the model has not been fitted: {kind_of(model)}", hint="call fit first") from error
    except TypeError:
        pass  # no estimator of scikit-learn's kind, and so nothing that it could tell


def _task(model: Any) -> str:
    from sklearn.base import is_classifier, is_regressor

    try:
        if is_classifier(model):
            return "classification"
        if is_regressor(model):
            return "regression"
    except (AttributeError, TypeError):  # an estimator in all but its tags
        return "classification" if hasattr(model, "classes_") else "regression"
    return "other"


def _final(model: Any) -> Any:
    """The estimator that answers, inside pipelines, searches and target transformers."""
    for _ in range(10):
        if isinstance(getattr(model, "steps", None), list):
            model = model.steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif hasattr(model, "regressor_"):
            model = model.regressor_
        else:
            break
    return model


def _targets(model: Any, task: str) -> int:
    """How many numbers or labels a row's prediction has."""
    final = _final(model)
    if isinstance(getattr(model, "classes_", None), list):
        return len(model.classes_)
    if type(final).__name__.startswith(("MultiOutput", "RegressorChain", "ClassifierChain")):
        return len(final.estimators_)
    if getattr(final, "multilabel_", False):
        return len(final.classes_)
    count = getattr(final, "n_outputs_", None)
    if count is not None and (task == "regression" or type(final).__name__ != "MLPClassifier"):
        return int(count)
    if task != "regression":
        return 1
    if getattr(getattr(final, "_y", None), "ndim", 1) == 2:  # neighbours keep their targets
        return int(final._y.shape[1])
    coefficients = getattr(final, "coef_", None)
    if isinstance(coefficients, np.ndarray) and coefficients.ndim == 2:
        return int(coefficients.shape[0])
    return 1
