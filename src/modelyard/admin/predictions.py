"""Recorded predictions: those that fit, and everything about one. They are files of this machine, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from modelyard.errors import NotFound
from modelyard.recording import query as recorded
from modelyard.recording.batches import STAGE_COLUMNS
from modelyard.recording.places import Places
from modelyard.recording.query import Query
from modelyard.recording.search import SECONDS, Page, Wanted, columns_of, flags_of, moment_of, search
from modelyard.registry import Registry
from modelyard.registry.records import check_text

#: Why inputs are kept, in words.
KEPT = {
    "error": "the request failed", "slow": "it was slower than 99 of a hundred of its version",
    "flagged": "a value was odd", "sample": "it is in the random sample",
}  # fmt: skip

#: What was done to a column before it was kept.
REMOVED = {
    "drop": "not kept", "hash": "kept as a keyed hash", "bucket": "kept as the bin of the reference in which it lies",
}  # fmt: skip

_FLAGS = {
    "below": "is below every value of the reference", "above": "is above every value of the reference",
    "missing": "is missing, which it never was in the reference",
    "unseen": "is a text that the reference does not have",
    "invalid": "is no number",
}  # fmt: skip


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """What turned out to be true, and when that became known. The first of several counts."""

    label: str
    moment: str


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded row: what was asked, what was answered, how long it took, and what is known of it since."""

    id: str
    request: str
    time: str
    model: str
    version: str
    alias: str = ""
    revision: int | None = None
    arm: str = ""
    client: str = ""
    code: str
    #: Of a refusal: why, and what was sent.
    reason: str = ""
    body: str = ""
    #: Rows of its request, and of the call of the model that it was part of.
    rows: int | None = None
    batch: int | None = None
    worker: int | None = None
    #: Seconds by stage; ``total`` is from the first byte to the answer.
    stages: dict[str, float] = {}
    flags: list[str] = []
    #: The flags in words.
    odd: list[str] = []
    #: Why its inputs are kept, as a word and in words; "" where they are not.
    kept: str = ""
    because: str = ""
    #: What was done to inputs before they were kept, by column, in words.
    removed: dict[str, str] = {}
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    #: The class of each probability, where the version names them.
    classes: tuple[str, ...] = ()
    labels: list[Truth] = []
    #: Other requests that the same call of the model answered.
    joined_with: list[str] = []


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """What can be asked of records: the models that have some here, and of one, or of all, the types of the columns and
    the flags that rows have, in words.
    """

    folder: str
    models: list[str]
    columns: dict[str, str]
    flags: dict[str, str]


def predictions(
    registry: Registry,
    *,
    id: str = "",
    model: str = "",
    version: str = "",
    arm: str = "",
    since: str = "",
    until: str = "",
    code: str = "",
    kept: str = "",
    flag: str = "",
    columns: str = "",
    after: str = "",
    most: int = 50,
) -> Page:
    """Search the predictions that this machine recorded, the newest first.

    ``id`` is a prediction's or a request's; ``code`` a code word, or ``failed`` for all but ``ok``; ``kept`` why inputs
    are kept (error, slow, flagged, sample); ``flag`` one such as ``age:above``, or ``any``; ``columns`` are conditions
    on inputs and outputs such as ``in.age=30..50; in.city=Oslo; out.prediction=yes``. ``after`` is the ``next`` of the
    page before.
    """
    wanted = Wanted(
        id=id, model=model, version=version, arm=arm, since=since, until=until, code=code, kept=kept, flag=flag,
        columns=columns, after=after,
    )  # fmt: skip
    for name in wanted.__struct_fields__:
        check_text(name, getattr(wanted, name))
    with _records() as query:
        return search(query, wanted, most)


def record_columns(registry: Registry, *, model: str = "") -> Columns:
    """Which models have records on this machine, and the columns and flags that they can be searched by."""
    with _records() as query:
        return Columns(
            folder=str(_places().folder), models=query.models, columns=columns_of(query, model)[1],
            flags={flag: told_of(flag) for flag in flags_of(query, model)},
        )  # fmt: skip


def prediction(registry: Registry, id: str) -> list[Prediction]:
    """Everything about one prediction, by its id or its request's: a request of several rows has several, and so has
    one that a shadow answered as well.
    """
    with _records() as query:
        found = recorded.show(query, check_text("id", id), seconds=SECONDS)
    classes: dict[tuple[str, str], tuple[str, ...]] = {}
    for row in found:
        key = (row["model"], row["version"])
        if key not in classes:
            classes[key] = _classes(registry, *key)
    return [_prediction(registry, row, classes[row["model"], row["version"]]) for row in found]


@contextmanager
def _records() -> Iterator[Query]:
    query = Query(_places())
    try:
        yield query
    finally:
        query.close()


def _places() -> Places:
    places = Places.chosen()
    if places is None:
        raise NotFound(
            "nothing is recorded: the setting records is off", hint="MODELYARD_RECORDS=FOLDER says where it is"
        )
    return places


def _classes(registry: Registry, model: str, version: str) -> tuple[str, ...]:
    """Of a version that is gone, or was never registered, nobody knows."""
    try:
        signature = registry.fetch(registry.resolve(f"{model}:{version}")).signature
    except NotFound:
        return ()
    return next((field.categories or () for field in signature.outputs if field.name == "probabilities"), ())


def _prediction(registry: Registry, row: dict[str, Any], classes: tuple[str, ...]) -> Prediction:
    removed = [text.rpartition(":") for text in row.get("removed") or []]
    flags = row.get("flags") or []
    body = row.get("body")
    return Prediction(
        id=row["prediction_id"], request=row["request_id"], time=moment_of(row["time"]), model=row["model"],
        version=row["version"], alias=row.get("alias") or "", revision=row.get("revision"), arm=row.get("arm") or "",
        client=row.get("client") or "", code=row.get("code") or "", reason=row.get("reason") or "",
        body=body.decode(errors="replace") if body else "", rows=row.get("rows"), batch=row.get("batch"),
        worker=row.get("worker"),
        stages={name[:-2]: row[name] for name in STAGE_COLUMNS if row.get(name) is not None},
        flags=flags, odd=[told_of(flag) for flag in flags], kept=row.get("kept") or "",
        because=KEPT.get(row.get("kept") or "", ""),
        removed={name: REMOVED.get(action, action) for name, _, action in removed},
        inputs=_side(row, "in.") if row.get("kept") else {}, outputs=_side(row, "out."),
        classes=classes,
        labels=[
            Truth(label=each.label, moment=each.moment)
            for each in registry.labels.history(row["model"], row["prediction_id"])
        ],
        joined_with=row["joined_with"],
    )  # fmt: skip


def told_of(flag: str) -> str:
    """A flag in words."""
    name, _, word = flag.rpartition(":")
    return f"{name} {_FLAGS.get(word, word)}"


def _side(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
