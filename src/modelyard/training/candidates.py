"""The families of models that are tried, from the simplest on, each with settings that suit most tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput, NotFound
from modelyard.schema import Array
from modelyard.training.preprocess import preprocessing

#: A support vector machine takes time with the square of the rows.
MOST_ROWS_FOR_SVM = 3000
MOST_CLASSES_FOR_SVM = 10
#: Rows that each tree of a forest is grown on at most.
MOST_ROWS_FOR_A_TREE = 20_000


@dataclass(frozen=True)
class Facts:
    """What a family may know of the rows that it is fitted on."""

    is_classification: bool
    targets: Array
    seed: int

    @property
    def rows(self) -> int:
        return len(self.targets)

    @property
    def classes(self) -> int:
        return len(np.unique(self.targets))

    @property
    def rarest(self) -> int:
        """Rows of the rarest class."""
        return int(np.unique(self.targets, return_counts=True)[1].min()) if self.is_classification else self.rows


@dataclass(frozen=True)
class Family:
    """One family: its short name, its title, and a function that makes an unfitted estimator."""

    name: str
    title: str
    make: Callable[[Facts], Any]
    #: Fitted on at most this many rows, drawn at random; 0: on all.
    most_rows: int = 0
    #: Fitted on targets with mean 0 and deviation 1; the last layer is scaled back afterwards.
    scales_targets: bool = False


def _linear(facts: Facts) -> Any:
    from sklearn.linear_model import LogisticRegression, RidgeCV

    if facts.is_classification:
        return LogisticRegression(max_iter=1000)
    # Plain least squares where the columns allow it, shrunk where they do not: leave-one-out decides.
    return RidgeCV(alphas=np.logspace(-6, 3, 10))


def _tree(facts: Facts) -> Any:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    kind = DecisionTreeClassifier if facts.is_classification else DecisionTreeRegressor
    smallest = max(5, min(20, facts.rows // 50))
    return kind(max_depth=8 if facts.is_classification else 10, min_samples_leaf=smallest, random_state=facts.seed)


def _svm(facts: Facts) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import SVC, SVR

    if facts.is_classification:
        if facts.classes > MOST_CLASSES_FOR_SVM:
            raise InvalidInput(f"not tried with more than {MOST_CLASSES_FOR_SVM} classes: it would take long")
        # one machine, its margin turned into probabilities by a sigmoid; of many classes one machine each
        machine = CalibratedClassifierCV(SVC(gamma="auto"), ensemble=False, cv=max(2, min(3, facts.rarest)))
        return machine if facts.classes == 2 else OneVsRestClassifier(machine)
    spread = float(np.std(facts.targets)) or 1.0
    return SVR(gamma="auto", C=spread, epsilon=0.1 * spread)  # as if the targets were scaled


def _forest(facts: Facts) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if facts.is_classification else RandomForestRegressor
    share = MOST_ROWS_FOR_A_TREE / facts.rows
    return kind(
        n_estimators=100,
        min_samples_leaf=2 if facts.rows < 5000 else 4,
        max_leaf_nodes=2000,
        max_features="sqrt" if facts.is_classification else 0.5,
        max_samples=share if share < 1 else None,
        random_state=facts.seed,
        n_jobs=1,
    )


def _boosting(facts: Facts) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if facts.is_classification else HistGradientBoostingRegressor
    early = facts.rows >= 500 and facts.rarest >= 10
    return kind(
        learning_rate=0.06,
        max_iter=400 if early else 100,
        max_leaf_nodes=31 if facts.rows >= 2000 else 15,
        l2_regularization=1.0,
        early_stopping=early,
        n_iter_no_change=15,
        random_state=facts.seed,
    )


def _mlp(facts: Facts) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPClassifier if facts.is_classification else MLPRegressor
    early = facts.rows >= 300 and facts.rarest >= 20
    return kind(
        hidden_layer_sizes=(64, 32),
        alpha=1e-3,
        batch_size=min(256, max(32, facts.rows // 20)),
        learning_rate_init=2e-3,
        early_stopping=early,
        max_iter=150 if early else 500,
        tol=5e-4 if early else 1e-4,
        n_iter_no_change=10,
        random_state=facts.seed,
    )


def _guess(facts: Facts) -> Any:
    from sklearn.dummy import DummyClassifier, DummyRegressor

    return DummyClassifier(strategy="prior") if facts.is_classification else DummyRegressor(strategy="mean")


BASELINE = Family("baseline", "Baseline that always guesses the same", _guess)
FAMILIES = (
    Family("linear", "Linear model", _linear),
    Family("tree", "Decision tree", _tree),
    Family("svm", "Support vector machine", _svm, most_rows=MOST_ROWS_FOR_SVM),
    Family("forest", "Random forest", _forest),
    Family("boosting", "Gradient boosting", _boosting),
    Family("mlp", "Neural network (MLP)", _mlp, scales_targets=True),
)


def chosen(names: Any) -> list[Family]:
    """The families called ``names`` (all when None), in the order from simple to complex. Raises NotFound."""
    known = {family.name: family for family in FAMILIES}
    if names is None:
        return list(FAMILIES)
    listed = names.replace(",", " ").split() if isinstance(names, str) else list(names)
    for name in listed:
        if name not in known:
            raise NotFound.among("candidate", name, known)
    if not listed:
        raise NotFound.among("candidate", "none at all", known)
    return [family for family in FAMILIES if family.name in listed]


def fit(family: Family, frame: Any, arrays: Any, targets: Array, *, is_classification: bool, seed: int) -> Any:
    """A fitted Pipeline of the preprocessing and the family's estimator. Deterministic by ``seed``."""
    from sklearn.pipeline import Pipeline

    if family.most_rows and len(targets) > family.most_rows:
        rows = _draw(targets, family.most_rows, is_classification, seed)
        frame, targets = frame.iloc[rows], targets[rows]
    facts = Facts(is_classification, targets, seed)
    pipeline = Pipeline([("preprocessing", preprocessing(arrays)), ("model", family.make(facts))])
    if family.scales_targets and not is_classification:
        mean, spread = float(np.mean(targets)), float(np.std(targets)) or 1.0
        pipeline.fit(frame, (targets - mean) / spread)
        network = pipeline.named_steps["model"]
        network.coefs_[-1] *= spread
        network.intercepts_[-1] = network.intercepts_[-1] * spread + mean
        return pipeline
    return pipeline.fit(frame, targets)


def _draw(targets: Array, count: int, is_classification: bool, seed: int) -> Array:
    """``count`` rows at random in their order, each class in proportion but with at least five rows."""
    random = np.random.default_rng(seed)
    if not is_classification:
        return np.sort(random.choice(len(targets), count, replace=False))
    parts = []
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label)
        wanted = min(len(members), max(5, round(count * len(members) / len(targets))))
        parts.append(random.choice(members, wanted, replace=False))
    return np.sort(np.concatenate(parts))
