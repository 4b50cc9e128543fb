"""Estimators made of estimators: voting, stacking, calibration, AdaBoost, one against the rest, searches, targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modelyard.bundle.emitter import answers, forests, numeric
from modelyard.bundle.emitter.answers import Answer
from modelyard.bundle.emitter.columns import Column
from modelyard.bundle.emitter.graph import Graph, NotConvertible
from modelyard.bundle.emitter.piecewise import interpolate
from modelyard.schema import Array


def _inner(graph: Graph, name: str, model: Any, columns: list[Column]) -> Answer:
    from modelyard.bundle.emitter import compose

    with graph.step(name):
        return compose.estimate(graph, model, columns)


def _weighted(graph: Graph, parts: Sequence[str], weights: Sequence[float] | None) -> str:
    """The mean of tensors of one shape."""
    total = graph.node("Sum", *parts) if weights is None else ""
    if weights is not None:
        total = graph.node(
            "Sum", *(graph.node("Mul", p, graph.constant(float(w))) for p, w in zip(parts, weights, strict=True))
        )
    scale = len(parts) if weights is None else float(np.sum(weights))
    return str(graph.node("Div", total, graph.constant(float(scale))))


def _members(model: Any) -> list[tuple[str, Any]]:
    """The fitted members with their names, dropped ones left out."""
    names = [name for name, member in model.estimators if not (isinstance(member, str) and member == "drop")]
    return list(zip(names, model.estimators_, strict=True))


def _probabilities(answer: Answer) -> str:
    if not answer.probabilities:
        raise NotConvertible("a member gives no probabilities")
    return answer.probabilities


def _voting_regressor(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    parts = [_inner(graph, name, member, columns).value for name, member in _members(model)]
    return answers.regression(_weighted(graph, parts, model._weights_not_none))


def _voting_classifier(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    made = [_inner(graph, name, member, columns) for name, member in _members(model)]
    if model.voting == "soft":
        shares = _weighted(graph, [_probabilities(answer) for answer in made], model._weights_not_none)
        return answers.by_probability(graph, model.classes_, shares)
    eye = graph.constant(np.eye(len(model.classes_)))
    if any(not answer.index for answer in made):
        raise NotConvertible("a member gives labels only", "use voting='soft'")
    votes = [graph.node("Gather", eye, answer.index, axis=0) for answer in made]
    total = graph.node("Squeeze", _weighted(graph, votes, model._weights_not_none), graph.constant([1], "int64"))
    return Answer(classes=model.classes_, index=answers.largest(graph, total))


def _stacking(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    out: list[Column] = []
    for (name, member), method in zip(_members(model), model.stack_method_, strict=True):
        out += _stacked(graph, model, _inner(graph, name, member, columns), method)
    if model.passthrough:
        out += columns
    answer = _inner(graph, "final_estimator", model.final_estimator_, out)
    if answer.classes is not None:
        # Members and the final estimator work on numbered classes.
        answer.classes = np.asarray(model.classes_)
        if answer.label:
            raise NotConvertible("the final estimator gives labels only", "use another final estimator")
    return answer


def _stacked(graph: Graph, model: Any, answer: Answer, method: str) -> list[Column]:
    classes = len(getattr(model, "classes_", ()))
    if method == "predict_proba":
        made = graph.columns(_probabilities(answer), classes)
        return made[1:] if classes == 2 else made
    if method == "decision_function" and answer.decision:
        return graph.columns(answer.decision, 1 if classes == 2 else classes)
    if method == "predict" and answer.value:
        return graph.columns(answer.value, answer.targets)
    if method == "predict" and answer.index:
        name, dtype = answers.label(graph, answer)
        return graph.columns(name if dtype == "float64" else graph.cast(name, "float64"), 1)
    raise NotConvertible(f"a member gives no {method}")


# -- calibration -------------------------------------------------------------------------------------------------


def _calibrated(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    shares = [_one_calibrated(graph, part, columns, len(model.classes_)) for part in model.calibrated_classifiers_]
    return answers.by_probability(graph, model.classes_, _weighted(graph, shares, None))


def _one_calibrated(graph: Graph, part: Any, columns: list[Column], classes: int) -> str:
    if part.method not in ("sigmoid", "isotonic"):
        raise NotConvertible(f"calibration by {part.method} has no form", "use sigmoid or isotonic")
    if len(part.estimator.classes_) != classes:
        raise NotConvertible("a member has not seen every class")
    answer = _inner(graph, "estimator", part.estimator, columns)
    if hasattr(part.estimator, "decision_function"):
        if not answer.decision:
            raise NotConvertible("the calibrated estimator gives no decision function")
        scores = answer.decision
    else:
        scores = _probabilities(answer)
        if classes == 2:
            scores = graph.node("Gather", scores, graph.constant([1], "int64"), axis=1)
    if part.method == "sigmoid":
        slopes = graph.constant([[-float(c.a_) for c in part.calibrators]])
        shifts = graph.constant([[-float(c.b_) for c in part.calibrators]])
        each = answers.sigmoid(graph, graph.node("Add", graph.node("Mul", scores, slopes), shifts))
    else:
        each = interpolate(graph, scores, [_isotonic_line(c) for c in part.calibrators])
    if classes == 2:
        return answers.both(graph, each)
    return answers.divided(graph, each, classes)


def _isotonic_line(calibrator: Any) -> tuple[Array, Array]:
    x, y = np.asarray(calibrator.X_thresholds_), np.asarray(calibrator.y_thresholds_)
    if calibrator.out_of_bounds != "clip":
        raise NotConvertible("isotonic regression that does not clip has no form", "use out_of_bounds='clip'")
    return x.astype("float64"), y.astype("float64")


# -- AdaBoost ----------------------------------------------------------------------------------------------------


def _ada_boost(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    """Each tree votes with its weight for one class, and a little against the others."""
    classes = len(model.classes_)
    if any(type(member).__name__ not in forests.SINGLE for member in model.estimators_):
        raise NotConvertible("AdaBoost of other estimators than trees has no double form", "boost decision trees")
    if any(len(member.classes_) != classes for member in model.estimators_):
        raise NotConvertible("a member has not seen every class")
    weights = model.estimator_weights_[: len(model.estimators_)] / model.estimator_weights_.sum()
    values = []
    for member, weight in zip(model.estimators_, weights, strict=True):
        best = member.tree_.value[:, 0, :].argmax(axis=1)
        if classes == 2:
            values.append(2.0 * weight * np.where(best == 1, 1.0, -1.0)[:, None])
        else:
            values.append(weight * np.where(np.eye(classes)[best] == 1.0, 1.0, -1.0 / (classes - 1)))
    decision = forests.total(graph, columns, model.estimators_, values)
    if classes == 2:
        shares = answers.two_classes(graph, decision)
        index = answers.above(graph, decision)
    else:
        scaled = graph.node("Div", decision, graph.constant(float(classes - 1)))
        shares = str(graph.node("Softmax", scaled, axis=1))
        index = answers.largest(graph, decision)
    return Answer(classes=model.classes_, index=index, probabilities=shares, decision=decision)


# -- one against the rest ----------------------------------------------------------------------------------------


def _one_against_rest(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    if model.multilabel_:
        raise NotConvertible("a classifier of several labels at once has no single prediction")
    made = [_inner(graph, f"estimators[{i}]", member, columns) for i, member in enumerate(model.estimators_)]
    positive = graph.constant([1], "int64")
    scores = [a.decision or graph.node("Gather", _probabilities(a), positive, axis=1) for a in made]
    shares = ""
    if all(answer.probabilities for answer in made):
        if len(made) == 1:
            shares = made[0].probabilities
        else:
            each = [graph.node("Gather", answer.probabilities, positive, axis=1) for answer in made]
            joined = graph.node("Concat", *each, axis=1)
            total = graph.node("ReduceSum", joined, positive, keepdims=1)
            none = graph.node("Equal", total, graph.constant(0.0))
            shares = graph.node("Div", joined, graph.node("Where", none, graph.constant(1.0), total))
    if len(made) == 1:
        index = answers.above(graph, scores[0], 0.0 if made[0].decision else 0.5)
    else:
        index = answers.largest(graph, str(graph.node("Concat", *scores, axis=1)))
    return Answer(classes=np.asarray(model.classes_), index=index, probabilities=shares)


# -- wrappers ----------------------------------------------------------------------------------------------------


def _search(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    return _inner(graph, "best_estimator_", model.best_estimator_, columns)


def _frozen(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    return _inner(graph, "estimator", model.estimator, columns)


def _target(graph: Graph, model: Any, columns: list[Column]) -> Answer:
    answer = _inner(graph, "regressor", model.regressor_, columns)
    with graph.step("transformer"):
        return answers.regression(_back(graph, model.transformer_, answer.value), answer.targets)


def _back(graph: Graph, step: Any, value: str) -> str:
    """The inverse of a transformer of targets."""
    kind = type(step).__name__
    if kind == "FunctionTransformer":
        if step.inverse_func is None:
            return value
        form: Callable[[Graph, str], Any] | None = numeric.unary(step.inverse_func)
        if form is not None:
            return str(form(graph, value))
    if kind == "StandardScaler":
        value = graph.node("Mul", value, graph.constant(step.scale_)) if step.with_std else value
        return str(graph.node("Add", value, graph.constant(step.mean_))) if step.with_mean else value
    if kind == "MinMaxScaler":
        return str(graph.node("Div", graph.node("Sub", value, graph.constant(step.min_)), graph.constant(step.scale_)))
    if kind == "RobustScaler":
        value = graph.node("Mul", value, graph.constant(step.scale_)) if step.with_scaling else value
        return str(graph.node("Add", value, graph.constant(step.center_))) if step.with_centering else value
    raise NotConvertible(
        f"the inverse of {kind} has no form", "use a numpy function such as numpy.expm1, or a scaler, on the target"
    )


FORMS = {
    "VotingRegressor": _voting_regressor,
    "VotingClassifier": _voting_classifier,
    "StackingRegressor": _stacking,
    "StackingClassifier": _stacking,
    "CalibratedClassifierCV": _calibrated,
    "AdaBoostClassifier": _ada_boost,
    "OneVsRestClassifier": _one_against_rest,
    "TransformedTargetRegressor": _target,
    "FrozenEstimator": _frozen,
    **dict.fromkeys(("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"), _search),
}
