"""The XGBoost runtime: its scikit-learn wrappers, native boosters and native files (JSON and UBJSON)."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.errors import BadBundle, InvalidInput, MissingDependency, NotFound
from modelyard.interfaces import ModelFacts, ModelSpec, Predict
from modelyard.runtimes.answers import matrix, predict_with_answers
from modelyard.runtimes.categories import Codes, encoded
from modelyard.runtimes.forest import Forest, NoForest, Tree, float32_limits
from modelyard.runtimes.xgboost_files import check, is_native
from modelyard.schema import Array, Columns, Signature

FILE = "model.ubj"

#: Objective -> what becomes of the raw score, and what takes the base score to where scores are summed.
LINKS = {
    "binary:logistic": "sigmoid", "reg:logistic": "sigmoid", "multi:softprob": "softmax", "multi:softmax": "softmax",
    "count:poisson": "exp", "reg:gamma": "exp", "reg:tweedie": "exp", "survival:cox": "exp", "survival:aft": "exp",
    "binary:hinge": "identity", "binary:logitraw": "identity", "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity", "reg:absoluteerror": "identity", "reg:pseudohubererror": "identity",
    "reg:quantileerror": "identity", "rank:pairwise": "identity", "rank:ndcg": "identity", "rank:map": "identity",
}  # fmt: skip
CLASSIFY = ("binary:logistic", "binary:hinge", "multi:softprob", "multi:softmax")


class XGBoostRuntime:
    """XGBoost's own predictor; it needs no scikit-learn to load."""

    name = "xgboost"
    is_native = True

    def claims(self, thing: object) -> bool:
        """A wrapper, a ``Booster``, or the path of a native file, known by its content."""
        if isinstance(thing, Path):
            return thing.is_file() and is_native(thing)
        return type(thing).__module__.partition(".")[0] == "xgboost" and hasattr(thing, "predict")

    def read(self, path: Path) -> Any:
        """The ``Booster`` in a native file. Raises InvalidInput where XGBoost cannot read it."""
        xgb = _xgboost()
        if not is_native(path):
            raise InvalidInput(f"not an XGBoost model (JSON or UBJSON): {path}")
        booster = xgb.Booster()
        data = path.read_bytes()
        try:
            check(data)
            booster.load_model(bytearray(data))
        except (xgb.core.XGBoostError, ValueError, TypeError) as error:
            raise InvalidInput(f"XGBoost cannot read {path.name}: {_short(error)}") from error
        return booster

    def describe(self, model: Any) -> ModelFacts:
        """Task and classes from the objective: labels are 0 to k - 1. Raises InvalidInput for an unfitted wrapper."""
        booster = booster_of(model)
        learner = _learner(booster)
        objective = learner["objective"]["name"]
        count = _class_count(learner)
        targets = int(learner["learner_model_param"].get("num_target", 1))
        several = targets > 1
        classify = objective in CLASSIFY
        names = booster.feature_names
        return ModelFacts(
            task="classification" if classify else "regression",
            kind=f"xgboost.{type(model).__name__ if not isinstance(model, Path) else 'Booster'}",
            feature_names=tuple(names) if names else None,
            feature_count=booster.num_features(),
            classes=tuple(range(count)) if classify else None,
            has_probabilities=classify and not several and objective != "binary:hinge",
            targets=targets,
        )

    def predictor(self, model: Any, signature: Signature) -> Predict:
        """The booster as a plain function: float32 rows, NaN for missing; categories are known by their text, and one
        that the booster never saw is missing."""
        booster = booster_of(model)
        learner = _learner(booster)
        objective = learner["objective"]["name"]
        several = int(learner["learner_model_param"].get("num_target", 1)) > 1
        names = _order(booster, signature)
        codes = codes_of(booster, names)
        missing = _missing(model)
        xgb = _xgboost()
        kinds = ["c" if codes.get(name) else "q" for name in names] if codes else None
        margin = objective == "multi:softmax"
        rounds = (0, _rounds(model))
        # Without a DMatrix around each call, which linear boosters and categories want.
        in_place = not codes and learner["gradient_booster"]["name"] != "gblinear"

        def answers(columns: Columns) -> tuple[Any, Any]:
            rows = encoded(columns, names, codes, "float32") if codes else matrix(columns, names, "float32")
            if in_place:
                raw = booster.inplace_predict(
                    rows,
                    iteration_range=rounds,
                    predict_type="margin" if margin else "value",
                    missing=missing,
                    validate_features=False,
                )
                return _answer(objective, raw, several)
            data = xgb.DMatrix(
                rows,
                missing=missing,
                feature_names=booster.feature_names,
                feature_types=kinds,
                enable_categorical=bool(codes),
                nthread=1,
            )
            raw = booster.predict(data, output_margin=margin, iteration_range=rounds)
            return _answer(objective, raw, several)

        return predict_with_answers(answers, signature)

    def save(self, model: Any, folder: Path) -> dict[str, Any]:
        """Write ``model.ubj``, cut to the rounds that the model predicts with."""
        booster = booster_of(model)
        rounds = _rounds(model)
        if rounds and rounds < booster.num_boosted_rounds():
            booster = booster[:rounds]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(bytes(booster.save_raw("ubj")))
        options: dict[str, Any] = {"file": FILE, "versions": {"xgboost": str(_xgboost().__version__)}}
        missing = _missing(model)
        if missing == missing:
            options["missing"] = missing
        return options

    def load(self, folder: Path, spec: ModelSpec, signature: Signature, device: str = "cpu") -> Predict:
        """The kept booster as a plain function. Raises BadBundle where the file is missing or damaged."""
        if device != "cpu":
            raise NotFound.among("device", device, ["cpu"])
        name = str(spec.options.get("file", FILE))
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise BadBundle(f"the bundle has no such model file: {name}")
        try:
            booster = self.read(path)
        except InvalidInput as error:
            raise BadBundle(error.message) from error
        return self.predictor(_Kept(booster, float(spec.options.get("missing", "nan"))), signature)


class _Kept:
    """A loaded booster with the value that stands for missing in its rows."""

    def __init__(self, booster: Any, missing: float) -> None:
        self.booster = booster
        self.missing = missing


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise MissingDependency.extra("xgboost", "xgboost", "an XGBoost model") from error
    return xgboost


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def booster_of(model: Any) -> Any:
    if isinstance(model, Path):
        return XGBoostRuntime().read(model)
    if isinstance(model, _Kept):
        return model.booster
    if not hasattr(model, "get_booster"):
        return model
    from sklearn.exceptions import NotFittedError

    try:
        return model.get_booster()
    except NotFittedError as error:
        raise InvalidInput("the model has not been fitted", hint="call fit first") from error


def _rounds(model: Any) -> int:
    """Rounds to predict with: a wrapper stops at the best one, as its own predict does; 0 for all of them."""
    if not hasattr(model, "get_booster"):
        return 0
    best = model.get_booster().attributes().get("best_iteration")
    return 0 if best is None or model.get_params().get("booster") == "gblinear" else int(best) + 1


def _missing(model: Any) -> float:
    value = getattr(model, "missing", float("nan"))
    return float("nan") if value is None else float(value)


def _learner(booster: Any) -> Any:
    return json.loads(booster.save_config())["learner"]


def _class_count(learner: Any) -> int:
    return max(int(learner["learner_model_param"]["num_class"]), 2)


def _order(booster: Any, signature: Signature) -> tuple[str, ...]:
    """The columns in the booster's own order. Raises InvalidInput where they are not those of the signature."""
    given = tuple(field.name for field in signature.inputs)
    known = tuple(booster.feature_names or ())
    if known and set(known) == set(given):
        return known
    shaped = len(given) == 1 and bool(signature.inputs[0].shape)
    if not shaped and (known or len(given) != booster.num_features()):
        wanted = ", ".join(known) if known else f"{booster.num_features()} columns"
        raise InvalidInput.at("signature", f"the columns that the booster was fitted on: {wanted}", ", ".join(given))
    return given


def codes_of(booster: Any, names: tuple[str, ...]) -> Codes:
    """For each categorical column the code of each of its categories, as the booster itself keeps them."""
    kinds = booster.feature_types or []
    if "c" not in kinds:
        return {}
    kept = _model(booster)["cats"]["enc"]
    codes: Codes = {}
    for at, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        if kind == "c":
            values = _category_values(kept[at]) if at < len(kept) else []
            if not values:
                raise InvalidInput(
                    f"the booster keeps no categories for column {name}: their codes cannot be known",
                    hint="fit it with XGBoost 3.1 or newer, or encode the column inside a pipeline",
                )
            codes[name] = {value: code for code, value in enumerate(values)}
    return codes


def _category_values(kept: Any) -> list[Any]:
    """Categories as XGBoost stores them: texts joined into one run of bytes with offsets, or plain numbers."""
    if "offsets" in kept:
        joined, ends = bytes(value & 0xFF for value in kept["values"]), kept["offsets"]
        if not joined.isascii():
            # XGBoost 3.2 counts characters and stores as many bytes: beyond ASCII the texts are cut.
            raise InvalidInput(
                "the booster keeps only pieces of its categories: XGBoost cuts texts beyond ASCII",
                hint="encode the column inside a pipeline, or name its categories in ASCII",
            )
        return [joined[start:stop].decode() for start, stop in itertools.pairwise(ends)]
    return list(kept["values"])


def _model(booster: Any) -> Any:
    gradient = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    return gradient.get("gbtree", gradient)["model"]


def _answer(objective: str, raw: Array, several: bool) -> tuple[Any, Any]:
    """Prediction and probabilities, as the wrappers' ``predict`` and ``predict_proba`` give them."""
    if objective == "binary:logistic":
        if several:
            return (raw > 0.5).astype("int64"), None
        return (raw > 0.5).astype("int64"), np.stack([np.float32(1.0) - raw, raw], axis=1)
    if objective == "multi:softmax":
        shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
        raw = shifted / shifted.sum(axis=1, keepdims=True)
    if objective.startswith("multi:"):
        return raw.argmax(axis=1), raw
    return (raw.astype("int64"), None) if objective == "binary:hinge" else (raw, None)


# -- as trees ----------------------------------------------------------------------------------------------------


def forest_of(model: Any) -> Forest:
    """The trees of a wrapper, a ``Booster`` or a native file. Raises NoForest naming what cannot be told in trees."""
    booster = booster_of(model)
    rounds = _rounds(model)
    if rounds and rounds < booster.num_boosted_rounds():
        booster = booster[:rounds]
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    gradient, parameters = learner["gradient_booster"], learner["learner_model_param"]
    objective = learner["objective"]["name"]
    if gradient["name"] not in ("gbtree", "dart"):
        raise NoForest(f"a {gradient['name']} booster is not made of trees")
    if objective not in LINKS:
        raise NoForest(f"no form is known for the objective {objective}")
    kept = gradient.get("gbtree", gradient)["model"]
    weights = gradient.get("weight_drop") or [1.0] * len(kept["trees"])
    targets = max(int(parameters["num_class"]), int(parameters["num_target"]), 1)
    trees = [
        _tree(tree, target, float(np.float32(weight)))
        for tree, target, weight in zip(kept["trees"], kept["tree_info"], weights, strict=True)
    ]
    several = int(parameters["num_target"]) > 1
    if several and objective in CLASSIFY:
        raise NoForest("a classifier of several targets has no single prediction")
    missing = _missing(model)
    return Forest(
        trees=trees,
        base=np.broadcast_to(_base(parameters["base_score"], objective), (targets,)),
        link=LINKS[objective],
        classes=np.arange(_class_count(learner)) if objective in CLASSIFY else None,
        has_probabilities=objective != "binary:hinge",
        missing=missing if missing == missing else None,
    )


def _base(text: str, objective: str) -> Array:
    """Base scores on the scale on which leaves are summed; the file has them as predictions."""
    score = np.atleast_1d(np.asarray(json.loads(text), dtype="float64"))
    if LINKS[objective] == "sigmoid":
        return np.asarray(-np.log(1.0 / score - 1.0))
    return np.asarray(np.log(score)) if LINKS[objective] == "exp" else score


def _tree(kept: Any, target: int, weight: float) -> Tree:
    if int(kept["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise NoForest("its leaves hold vectors (multi_strategy='multi_output_tree')")
    left, right = np.asarray(kept["left_children"]), np.asarray(kept["right_children"])
    missing_left = np.asarray(kept["default_left"]).astype(bool)
    values = np.asarray(kept["split_conditions"], dtype="float32")
    members: dict[int, Array] = {}
    for node, start, size in zip(
        kept["categories_nodes"], kept["categories_segments"], kept["categories_sizes"], strict=True
    ):
        # XGBoost lists the categories that go right: turn the node round.
        members[int(node)] = np.asarray(kept["categories"][start : start + size], dtype="float64")
        left[node], right[node] = right[node], left[node]
        missing_left[node] = not missing_left[node]
    return Tree(
        # Leaves ask for no feature; those of pruned nodes hold 2**31 - 1 there.
        feature=np.where(left < 0, 0, kept["split_indices"]),
        threshold=float32_limits(values),
        left=left,
        right=right,
        missing_left=missing_left,
        leaves=values.astype("float64") * weight,
        target=target,
        members=members,
    )
