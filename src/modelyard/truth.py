"""The truth about predictions, which arrives later: labels, and what one may be for a model."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from modelyard.errors import InvalidInput, Problem
from modelyard.schema import Signature

#: The longest id of a prediction: that of a request, which servers cut at 128, and the number of a row.
LONGEST_ID = 160

#: The longest class of a model that names none.
LONGEST_CLASS = 200

#: The output that labels are the truth about.
PREDICTION, PROBABILITIES = "prediction", "probabilities"


class Label(NamedTuple):
    """What turned out to be true of one prediction."""

    #: The id of the request; for a request of several rows ``id.N``, N the row from 0.
    prediction: str
    #: As ``Truth.read`` writes it, so that equal labels are equal texts.
    label: str
    #: When it became known (ISO 8601, UTC, microseconds), where that was told. A later one corrects an earlier one.
    moment: str = ""


class Receipt(msgspec.Struct, kw_only=True):
    """What became of labels that were kept. ``new`` + ``repeated`` + ``corrected`` + ``late`` = ``received``."""

    received: int = 0
    new: int = 0
    #: The same label again: nothing changed.
    repeated: int = 0
    #: Another label than before, which counts from now on.
    corrected: int = 0
    #: Another label, which became known before the one that is there: that one still counts.
    late: int = 0

    def plus(self, more: Receipt) -> Receipt:
        return Receipt(**{name: getattr(self, name) + getattr(more, name) for name in self.__struct_fields__})


class Truth:
    """What a label of a model may be: one of its classes, or a finite number."""

    def __init__(self, task: str, classes: Sequence[str] = (), dtype: str = "float64") -> None:
        self.task = task
        #: As texts, in the model's order; () where a model names none, and any value of its type will do.
        self.classes = tuple(classes)
        self._dtype = dtype
        #: Every way to write a class that came so far. Types are told apart: 1 and True are equal keys.
        self._known: dict[tuple[type, Any], str] = {}

    @classmethod
    def of(cls, task: str, signatures: Iterable[Signature]) -> Truth:
        """What labels of a model may be, of whose versions these are the signatures: a class of any of them.

        Raises InvalidInput where a model predicts something that no label tells the truth about.
        """
        classes: dict[str, None] = {}
        dtype = "float64"
        for signature in signatures:
            outputs = {field.name: field for field in signature.outputs}
            prediction = outputs.get(PREDICTION)
            if task not in ("classification", "regression") or prediction is None or prediction.shape:
                raise InvalidInput(
                    f"a label tells the truth about one class or one number, and this model ({task}) predicts "
                    + (", ".join(f"{f.name} {list(f.shape)}" for f in signature.outputs) or "nothing")
                )
            dtype = prediction.dtype
            if task == "classification":
                named = outputs[PROBABILITIES].categories if PROBABILITIES in outputs else prediction.categories
                classes.update(dict.fromkeys(named or ()))
        return cls(task, tuple(classes), dtype)

    def describe(self) -> str:
        """What a label should be, in words for an error message."""
        if self.task == "regression":
            return "a finite number"
        if self.classes:
            shown = ", ".join(self.classes[:10])
            return f"one of the model's classes ({shown}{', …' if len(self.classes) > 10 else ''})"
        return {"bool": "true or false", "string": "a text"}.get(self._dtype, "a whole number")

    def read(self, value: Any) -> str:
        """A label as text, always the same for equal ones. A text may stand for a number, as in CSV.

        Raises InvalidInput, whose only problem is at the path ``label``.
        """
        key = (type(value), value)
        try:
            found = self._known.get(key)
        except TypeError:  # a list, a dict
            raise self._refusal(value) from None
        if found is None:
            found = _number(value) if self.task == "regression" else self._class(value)
            if found is None:
                raise self._refusal(value)
            if self.task == "classification" and len(self._known) < 10_000:
                self._known[key] = found
        return found

    def _class(self, value: Any) -> str | None:
        if not self.classes:
            return self._unnamed(value)
        if isinstance(value, str):
            text = value.strip()
            if value in self.classes or text in self.classes:
                return value if value in self.classes else text
            if self._dtype == "bool":
                return next((name for name in self.classes if name.lower() == text.lower()), None)
            value = _number(text)
            return None if value is None or self._dtype == "string" else self._numbered(float(value))
        if isinstance(value, bool) or self._dtype == "bool":
            return str(value) if isinstance(value, bool) and str(value) in self.classes else None
        if self._dtype == "string":
            return str(value) if type(value) is int and str(value) in self.classes else None
        return self._numbered(float(value)) if isinstance(value, (int, float)) else None

    def _numbered(self, number: float) -> str | None:
        return next((name for name in self.classes if _number(name) == repr(number + 0.0)), None)

    def _unnamed(self, value: Any) -> str | None:
        text = value.strip() if isinstance(value, str) else str(value)
        if self._dtype == "string":
            return text if isinstance(value, str) and text.isprintable() and 0 < len(text) <= LONGEST_CLASS else None
        if self._dtype == "bool":
            return text.capitalize() if text.lower() in ("true", "false") else None
        number = _number(value)
        return None if number is None else str(int(float(number))) if float(number).is_integer() else number

    def _refusal(self, value: Any) -> InvalidInput:
        if value is None or (isinstance(value, str) and not value.strip()):
            return InvalidInput.at("label", self.describe(), "nothing")
        return InvalidInput.at("label", self.describe(), _shown(value))


def _number(value: Any) -> str | None:
    """A finite number as the shortest text that means it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or (isinstance(value, str) and "_" in value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return repr(number + 0.0) if math.isfinite(number) else None


def read_label(prediction: Any, label: Any, time: Any, truth: Truth) -> Label:
    """A label as it was told. Raises InvalidInput, whose problems are at ``prediction_id``, ``label`` and ``time``."""
    return Label(check_id(prediction), truth.read(label), read_time(time) if time not in (None, "") else "")


def read_time(value: Any) -> str:
    """A moment as text, so that order of text is order of time; without a zone it is UTC. Raises InvalidInput."""
    try:
        moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
        utc = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
        if not 1900 <= utc.year < 3000:  # a label of such a time could never be corrected, or never count
            raise ValueError(value)
        return utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (ValueError, TypeError, OverflowError):
        raise InvalidInput.at("time", "an ISO 8601 date or time, like 2026-11-23T10:00:00Z", _shown(value)) from None


def check_id(value: Any) -> str:
    """The id of a prediction as it is. Raises InvalidInput where no prediction can have it."""
    if type(value) is not str:
        raise InvalidInput.at("prediction_id", "the id of a prediction, a text", _shown(value))
    if not value or len(value) > LONGEST_ID or not value.isprintable() or not value.strip():
        raise InvalidInput.of(
            [Problem("prediction_id", f"the id of a prediction, 1 to {LONGEST_ID} letters", _shown(value))],
            hint="it is the `request_id` of the answer; `.N` follows where the request had several rows",
        )
    return value


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}… ({len(shown)} letters)"
