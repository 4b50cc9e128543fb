"""Compare the families by cross-validation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput
from modelyard.schema import Array
from modelyard.training.candidates import Family, fit
from modelyard.training.metrics import Answers, Measure, better
from modelyard.training.preprocess import frame_of

#: Tells of progress: (steps done, steps in all, what is being done).
Progress = Callable[[float, float | None, str], None]


@dataclass
class Trial:
    """One family in cross-validation: each metric by fold, the seconds it took, and what it warned of."""

    family: Family
    scores: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    #: Why it has no scores.
    skipped: str = ""

    def mean(self, metric: str) -> float:
        return float(np.mean(self.scores[metric]))

    def spread(self, metric: str) -> float:
        """Standard deviation over the folds."""
        return float(np.std(self.scores[metric], ddof=1)) if len(self.scores[metric]) > 1 else 0.0


@contextmanager
def quiet(notes: list[str]) -> Iterator[None]:
    """Warnings become notes, each once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if issubclass(warning.category, (DeprecationWarning, FutureWarning, PendingDeprecationWarning)):
            continue
        text = "did not converge" if "onverge" in str(warning.message) else " ".join(str(warning.message).split())
        if text not in notes:
            notes.append(text)


def answers_of(model: Any, frame: Any, is_classification: bool) -> Answers:
    """What a fitted pipeline says on the rows of ``frame``."""
    if not is_classification:
        return Answers(np.asarray(model.predict(frame), dtype="float64"))
    probabilities = model.predict_proba(frame)
    return Answers(model.predict(frame), probabilities)


def folds_of(targets: Array, is_classification: bool, folds: int, seed: int) -> list[tuple[Array, Array]]:
    """The parts of cross-validation: pairs of row numbers to learn from and to test on. Classes are spread evenly."""
    from sklearn.model_selection import KFold, StratifiedKFold

    if folds < 2:
        raise InvalidInput.at("folds", "2 or more", str(folds))
    folds = min(folds, len(targets) // 2)
    kind = StratifiedKFold if is_classification else KFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer members than folds: in most of them is enough
        return list(kind(folds, shuffle=True, random_state=seed).split(np.zeros(len(targets)), targets))


def search(
    families: Sequence[Family],
    inputs: dict[str, Array],
    targets: Array,
    classes: list[Any] | None,
    *,
    folds: int,
    seed: int,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> list[Trial]:
    """Every family cross-validated on the same folds, in the given order.

    After ``time_limit`` seconds no further family is begun; the first is always tried. Without a limit the result
    depends on the rows and the seed alone.
    """
    frame = frame_of(inputs)
    parts = folds_of(targets, classes is not None, folds, seed)
    begun = time.monotonic()
    trials = []
    for number, family in enumerate(families):
        trial = Trial(family)
        trials.append(trial)
        spent = time.monotonic() - begun
        if time_limit is not None and spent > time_limit and number:
            trial.skipped = f"the time limit of {time_limit:g} s had passed"
            continue
        for fold, (learn, test) in enumerate(parts):
            if progress:
                progress(number * len(parts) + fold, len(families) * len(parts), family.title)
            try:
                with quiet(trial.notes):
                    model = fit(
                        family,
                        frame.iloc[learn],
                        inputs,
                        targets[learn],
                        is_classification=classes is not None,
                        seed=seed,
                    )
                    answers = answers_of(model, frame.iloc[test], classes is not None)
            except InvalidInput as error:
                trial.skipped = error.message
                break
            except (ValueError, np.linalg.LinAlgError, MemoryError) as error:
                trial.skipped = f"it failed: {' '.join(str(error).split())[:200]}"
                trial.scores = {}
                break
            if answers.probabilities is not None and classes is not None:
                answers = _aligned(answers, list(model.classes_), classes)
            for name, value in Measure(targets[test], answers, classes).point().items():
                trial.scores.setdefault(name, []).append(value)
        trial.seconds = time.monotonic() - begun - spent
        if family.most_rows and len(targets) * (1 - 1 / len(parts)) > family.most_rows:
            trial.notes.append(f"fitted on {family.most_rows:,} rows drawn at random")
    if progress:
        progress(len(families) * len(parts), len(families) * len(parts), "")
    return trials


def _aligned(answers: Answers, known: list[Any], classes: list[Any]) -> Answers:
    """Probabilities for every class, 0 for those that the fold did not hold."""
    assert answers.probabilities is not None
    if len(known) == len(classes):
        return answers
    full = np.zeros((len(answers.predicted), len(classes)))
    full[:, [classes.index(label) for label in known]] = answers.probabilities
    return Answers(answers.predicted, full)


def winner(trials: Sequence[Trial], metric: str) -> Trial:
    """The trial with the best mean over the folds; of equals the simpler one. Raises InvalidInput if all failed."""
    best: Trial | None = None
    for trial in trials:
        if not trial.scores or np.isnan(trial.mean(metric)):
            continue
        if best is None or better(metric, trial.mean(metric), best.mean(metric)):
            best = trial
    if best is None:
        reasons = "; ".join(f"{trial.family.name}: {trial.skipped}" for trial in trials)
        raise InvalidInput(f"no candidate could be fitted: {reasons}")
    return best
