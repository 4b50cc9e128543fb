"""The LightGBM runtime: its scikit-learn wrappers, native boosters and native text files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelyard.errors import BadBundle, InvalidInput, MissingDependency, NotFound
from modelyard.interfaces import ModelFacts, ModelSpec, Predict
from modelyard.runtimes.answers import matrix, plain_labels, predict_with_answers
from modelyard.runtimes.categories import Codes, encoded
from modelyard.runtimes.forest import Forest, NoForest, Tree
from modelyard.schema import Array, Columns, Signature

FILE = "model.txt"

#: Objectives that classify, and those whose raw scores are turned into predictions; all others give raw scores.
CLASSIFY = ("binary", "multiclass", "multiclassova")
EXP = ("poisson", "gamma", "tweedie")
#: How missing values are known at a node: bits 2 and 3 of its decision type.
NEVER, ZERO, NAN = 0, 1, 2


class LightGBMRuntime:
    """LightGBM's own predictor."""

    name = "lightgbm"
    is_native = True

    def claims(self, thing: object) -> bool:
        """A wrapper, a ``Booster``, or the path of a native text file, known by its content."""
        if isinstance(thing, Path):
            return thing.is_file() and _is_native(thing)
        return type(thing).__module__.partition(".")[0] == "lightgbm" and hasattr(thing, "predict")

    def read(self, path: Path) -> Any:
        """The ``Booster`` in a native file. Raises InvalidInput where LightGBM cannot read it."""
        lgb = _lightgbm()
        if not _is_native(path):
            raise InvalidInput(f"not a LightGBM model (text): {path}")
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            _check(text)
            return lgb.Booster(model_str=text)
        except (lgb.basic.LightGBMError, ValueError, KeyError, IndexError) as error:
            raise InvalidInput(f"LightGBM cannot read {path.name}: {error}") from error

    def describe(self, model: Any) -> ModelFacts:
        """Task and classes from the objective; a wrapper knows its own labels, a native file numbers them."""
        booster = booster_of(model)
        objective, settings = _objective(booster.model_to_string())
        classes = _classes(model, objective, settings)
        return ModelFacts(
            task="regression" if classes is None else "classification",
            kind=f"lightgbm.{'Booster' if isinstance(model, Path) else type(model).__name__}",
            feature_names=_names(model, booster),
            feature_count=booster.num_feature(),
            classes=None if classes is None else plain_labels(classes),
            has_probabilities=classes is not None,
        )

    def predictor(self, model: Any, signature: Signature) -> Predict:
        """The booster as a plain function: double rows, NaN for missing; categories are known by their text, and one
        that the booster never saw is missing."""
        booster = booster_of(model)
        objective, settings = _objective(booster.model_to_string())
        classes = _classes(model, objective, settings)
        names = _order(model, booster, signature)
        codes = codes_of(booster, names)

        def answers(columns: Columns) -> tuple[Any, Any]:
            rows = encoded(columns, names, codes, "float64") if codes else matrix(columns, names, "float64")
            raw = np.asarray(booster.predict(rows, num_threads=1, validate_features=False))
            if classes is None:
                return raw, None
            shares = np.stack([1.0 - raw, raw], axis=1) if raw.ndim == 1 else raw
            return classes[shares.argmax(axis=1)], shares

        return predict_with_answers(answers, signature)

    def save(self, model: Any, folder: Path) -> dict[str, Any]:
        """Write ``model.txt``, with the rounds that the model predicts with; a wrapper's labels go into the options."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(booster_of(model).model_to_string(), encoding="utf-8", newline="\n")
        options: dict[str, Any] = {"file": FILE, "versions": {"lightgbm": str(_lightgbm().__version__)}}
        if hasattr(model, "classes_"):
            options["classes"] = list(plain_labels(model.classes_))
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
        return self.predictor(_Kept(booster, spec.options.get("classes")), signature)


class _Kept:
    """A loaded booster with the labels of the wrapper that it came from, if any."""

    def __init__(self, booster: Any, classes: Any) -> None:
        self.booster = booster
        if classes is not None:
            self.classes_ = np.array([*classes, None], dtype=object)[:-1]


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise MissingDependency.extra("lightgbm", "lightgbm", "a LightGBM model") from error
    return lightgbm


def _is_native(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16).replace(b"\r\n", b"\n").startswith(b"tree\nversion=")


def _check(text: str) -> None:
    """LightGBM trusts the indices in a file, and takes a truncated one for the whole: raises ValueError instead."""
    if "\nend of trees" not in text:
        raise ValueError("it is truncated")
    features = int(_header(text)["max_feature_idx"]) + 1
    for number, block in enumerate(_blocks(text)):
        leaves = len(block["leaf_value"].split())
        if int(block["num_leaves"]) != leaves:
            raise ValueError(f"tree {number} is damaged: leaf_value")
        for name, low, high in (
            ("left_child", -leaves, leaves - 1),
            ("right_child", -leaves, leaves - 1),
            ("split_feature", 0, features),
        ):
            values = [int(value) for value in block.get(name, "").split()]
            if len(values) != leaves - 1 or any(not low <= value < high for value in values):
                raise ValueError(f"tree {number} is damaged: {name}")
        children = [int(value) for side in ("left", "right") for value in block.get(f"{side}_child", "").split()]
        if len(set(children)) != len(children) or 0 in children:
            raise ValueError(f"tree {number} is damaged: its nodes are no tree")


def _blocks(text: str) -> list[dict[str, str]]:
    """The lines of each tree."""
    blocks = text.partition("\nend of trees")[0].split("\nTree=")[1:]
    return [dict(line.partition("=")[::2] for line in block.splitlines()) for block in blocks]


def booster_of(model: Any) -> Any:
    if isinstance(model, Path):
        return LightGBMRuntime().read(model)
    if isinstance(model, _Kept):
        return model.booster
    if not hasattr(model, "get_params"):
        return model
    from sklearn.exceptions import NotFittedError

    try:
        return model.booster_
    except NotFittedError as error:
        raise InvalidInput("the model has not been fitted", hint="call fit first") from error


def _header(text: str) -> dict[str, str]:
    """The lines above the trees: ``key=value``, or a word alone."""
    lines = text.partition("\nTree=")[0].splitlines()
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def _objective(text: str) -> tuple[str, dict[str, str]]:
    """The objective and its settings, of ``binary sigmoid:1``; "custom" where a function of the caller's was used."""
    name, *rest = _header(text).get("objective", "custom").split() or ["custom"]
    return name, {key: value for key, _, value in (part.partition(":") for part in rest)}


def _classes(model: Any, objective: str, settings: dict[str, str]) -> Array | None:
    """Labels in order; None for a regression."""
    known = getattr(model, "classes_", None)
    if objective not in CLASSIFY:
        return None
    if known is not None:
        return np.asarray(known)
    return np.arange(int(settings.get("num_class", 2)))


def _names(model: Any, booster: Any) -> tuple[str, ...] | None:
    """Column names, or None where LightGBM made them up (Column_0 ...)."""
    names = tuple(str(name) for name in booster.feature_name())
    fitted = getattr(model, "feature_names_in_", None)
    if fitted is not None and not all(str(n) == f"Column_{i}" for i, n in enumerate(fitted)):
        return tuple(str(name) for name in fitted)  # the booster has spaces in them replaced
    return None if all(name == f"Column_{i}" for i, name in enumerate(names)) else names


def _order(model: Any, booster: Any, signature: Signature) -> tuple[str, ...]:
    """The columns in the booster's own order. Raises InvalidInput where they are not those of the signature."""
    given = tuple(field.name for field in signature.inputs)
    known = _names(model, booster)
    if known and set(known) == set(given):
        return known
    if known:  # LightGBM writes spaces as underscores
        plain = {name.replace(" ", "_"): name for name in given}
        if set(plain) == set(known):
            return tuple(plain[name] for name in known)
    shaped = len(given) == 1 and bool(signature.inputs[0].shape)
    if not shaped and (known or len(given) != booster.num_feature()):
        wanted = ", ".join(known) if known else f"{booster.num_feature()} columns"
        raise InvalidInput.at("signature", f"the columns that the booster was fitted on: {wanted}", ", ".join(given))
    return given


def codes_of(booster: Any, names: tuple[str, ...]) -> Codes:
    """For each column of pandas categories the code of each; the booster keeps them in the order of the columns."""
    kept = booster.pandas_categorical or []
    if not kept:
        return {}
    infos = _header(booster.model_to_string()).get("feature_infos", "").split()
    categorical = [name for name, info in zip(names, infos, strict=True) if ":" in info and not info.startswith("[")]
    if len(categorical) != len(kept):
        raise InvalidInput(
            f"the booster keeps {len(kept)} lists of categories for {len(categorical)} columns: "
            "which belongs to which cannot be known",
            hint="leave out the column of categories that no tree could use",
        )
    return {
        name: {value: code for code, value in enumerate(values)} for name, values in zip(categorical, kept, strict=True)
    }


# -- as trees ----------------------------------------------------------------------------------------------------


def forest_of(model: Any) -> Forest:
    """The trees of a wrapper, a ``Booster`` or a native file. Raises NoForest naming what cannot be told in trees."""
    text = booster_of(model).model_to_string()
    header = _header(text)
    objective, settings = _objective(text)
    targets = int(header["num_tree_per_iteration"])
    blocks = _blocks(text)
    share = targets / len(blocks) if "average_output" in header and blocks else 1.0
    kept = [_tree(block, share) for block in blocks]
    missing = {kind for _, kinds in kept for kind in kinds}
    if ZERO in missing and missing != {ZERO}:
        raise NoForest("zeros are missing values in some of its columns and not in others")
    trees = [tree for tree, _ in kept]
    for number, tree in enumerate(trees):
        tree.target = number % targets
    classes = _classes(model, objective, settings)
    link = "identity"
    if objective in ("binary", "multiclassova", "cross_entropy"):
        link = "sigmoid"
    elif objective == "multiclass":
        link = "softmax"
    elif objective in EXP:
        link = "exp"
    elif objective == "cross_entropy_lambda":
        link = "softplus"
    elif "sqrt" in settings:
        link = "square"
    slope = float(settings.get("sigmoid", 1.0))
    return Forest(trees, np.zeros(targets), link, slope, classes, zero_is_missing=ZERO in missing)


def _tree(kept: dict[str, str], share: float) -> tuple[Tree, set[int]]:
    """A tree from its lines, and the ways in which its nodes know missing values."""
    if int(kept.get("is_linear", "0")):
        raise NoForest("its leaves hold linear models (linear_tree)")

    def numbers(name: str, dtype: str = "int64") -> Array:
        return np.array(kept.get(name, "").split(), dtype=dtype)

    leaves = numbers("leaf_value", "float64") * share
    inner = len(leaves) - 1
    if inner == 0:
        none = np.array([-1])
        return Tree(np.zeros(1, int), np.zeros(1), none, none, np.zeros(1, bool), leaves), set()
    decision, threshold = numbers("decision_type"), numbers("threshold", "float64")
    # Inner nodes come first; a child below zero is leaf number -child - 1.
    children = [np.where(side < 0, inner - side - 1, side) for side in (numbers("left_child"), numbers("right_child"))]
    tail = np.full(len(leaves), -1)
    kinds = decision >> 2 & 3
    by_category = (decision & 1).astype(bool)
    # A node that knows no missing value takes NaN for zero.
    missing_left = np.where(kinds == NEVER, threshold >= 0.0, decision >> 1 & 1).astype(bool)
    members: dict[int, Array] = {}
    bounds, words = numbers("cat_boundaries"), numbers("cat_threshold", "uint32")
    for node in np.flatnonzero(by_category).tolist():
        at = int(threshold[node])
        bits = words[bounds[at] : bounds[at + 1]]
        flags = np.unpackbits(bits.astype("<u4").view("uint8"), bitorder="little")
        members[node] = np.flatnonzero(flags).astype("float64")
        missing_left[node] = False  # a missing category is in no set
    filler = np.zeros(len(leaves))
    tree = Tree(
        feature=np.concatenate([numbers("split_feature"), filler.astype(int)]),
        threshold=np.concatenate([np.where(by_category, 0.0, threshold), filler]),
        left=np.concatenate([children[0], tail]),
        right=np.concatenate([children[1], tail]),
        missing_left=np.concatenate([missing_left, filler.astype(bool)]),
        leaves=np.concatenate([np.zeros(inner), leaves]),
        members=members,
    )
    return tree, set(kinds[~by_category].tolist())
