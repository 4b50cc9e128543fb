"""Finding recorded predictions without SQL: what is asked for becomes one SELECT whose values are all bound.

Columns are named by whoever asks, so each is looked up among those that there are before its name is quoted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from modelyard.errors import InvalidInput, NotFound, Overloaded
from modelyard.recording.query import Query, quoted
from modelyard.registry.records import read_moment, shown, stamp

#: Rows of a page, at most, and seconds that a search may take.
MOST, SECONDS = 500, 20.0

#: Rows that fit are counted up to this many, so that counting takes no longer than finding.
COUNTED = 10_000
#: Flags that are told, the most frequent ones, and seconds that may be spent on them.
MOST_FLAGS, FLAG_SECONDS = 200, 2.0

#: What stands for every code word but ``ok``.
FAILED = "failed"

#: What a row of the list tells, beside the outputs.
_HEAD = ("prediction_id", "time", "model", "version", "arm", "code", "total_s", "flags", "kept", "reason")

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT",
            "DOUBLE")  # fmt: skip


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for; "" is anything. Moments are ISO 8601 in UTC: from ``since`` on, before ``until``."""

    id: str = ""
    model: str = ""
    version: str = ""
    arm: str = ""
    since: str = ""
    until: str = ""
    #: A code word, ``ok``, or ``failed`` for every other.
    code: str = ""
    kept: str = ""
    #: A flag such as ``age:above``; ``any`` for rows that have one.
    flag: str = ""
    #: Conditions on inputs and outputs: ``in.age=30..50; in.city=Oslo; out.prediction=yes``.
    columns: str = ""
    #: Where the page before ended (``Page.next``).
    after: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction, in a list."""

    id: str
    time: str
    model: str
    version: str
    arm: str = ""
    code: str
    #: Seconds of the whole request.
    seconds: float | None = None
    flags: list[str] = []
    #: Why its inputs are kept; "" where they are not.
    kept: str = ""
    reason: str = ""
    outputs: dict[str, Any] = {}


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some predictions, the newest first; ``next`` asks for those after them, "" where there are none. ``fitting`` is
    how many fit in all, on all pages; ``COUNTED`` where there are as many or more.
    """

    rows: list[Row]
    next: str = ""
    fitting: int = 0


def search(query: Query, wanted: Wanted, most: int = 50) -> Page:
    """Those that fit. Raises NotFound for a column that nothing has, InvalidInput for values that do not fit one,
    Overloaded where it takes too long.
    """
    if not 1 <= most <= MOST:
        raise InvalidInput.at("most", f"1 to {MOST}", str(most))
    view, types = columns_of(query, wanted.model)
    values: list[Any] = []

    def bound(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    asked = _conditions(wanted, types, bound)
    every = f"SELECT 1 FROM {view}{_where(asked)} LIMIT {COUNTED}"
    ((fitting,),) = query.run(f"SELECT count(*) FROM ({every})", values, seconds=SECONDS).rows
    # Of rows that cannot be told apart by time the id decides, so that pages neither repeat nor leave out any.
    if wanted.after:
        time, _, id = wanted.after.partition("|")
        moment = bound(_naive(time, "after"))
        asked.append(f"(time < {moment} OR (time = {moment} AND prediction_id < {bound(id)}))")
    outputs = [name for name in types if name.startswith("out.")]
    chosen = ", ".join(quoted(name) for name in (*_HEAD, *outputs) if name in types)
    order = f"ORDER BY time DESC, prediction_id DESC LIMIT {int(most) + 1}"
    sql = f"SELECT {chosen} FROM {view}{_where(asked)} {order}"
    found = query.run(sql, values, seconds=SECONDS).records()
    rows = [_row(each) for each in found[:most]]
    return Page(rows=rows, next=f"{rows[-1].time}|{rows[-1].id}" if len(found) > most else "", fitting=fitting)


def flags_of(query: Query, model: str = "") -> list[str]:
    """The flags that rows of a model, or of all, have, the most frequent first; none where finding them takes long.
    Raises NotFound.
    """
    view, types = columns_of(query, model)
    if "flags" not in types:
        return []
    flags = f"SELECT unnest(flags) AS flag FROM {view}"
    sql = f"SELECT flag FROM ({flags}) GROUP BY flag ORDER BY count(*) DESC, flag LIMIT {MOST_FLAGS}"
    try:
        return [flag for (flag,) in query.run(sql, seconds=FLAG_SECONDS).rows]
    except Overloaded:
        return []


def columns_of(query: Query, model: str = "") -> tuple[str, dict[str, str]]:
    """The view of a model, or of all, quoted, and the type of each of its columns. Raises NotFound."""
    if model and model not in query.models:
        raise NotFound.among("model with records on this machine", model, query.models)
    view = quoted(model if model else "predictions")
    found = query.run(f"DESCRIBE SELECT * FROM {view}").rows
    return view, {row[0]: str(row[1]) for row in found}


def _where(asked: list[str]) -> str:
    return f" WHERE {' AND '.join(asked)}" if asked else ""


def _conditions(wanted: Wanted, types: Mapping[str, str], bound: Any) -> list[str]:
    asked = []
    if wanted.id:
        id = bound(wanted.id)
        asked.append(f"(prediction_id = {id} OR request_id = {id})")
    for name in ("model", "version", "arm", "kept"):
        if value := getattr(wanted, name):
            asked.append(f"{name} = {bound(value)}")
    if wanted.code:
        asked.append("code <> 'ok'" if wanted.code == FAILED else f"code = {bound(wanted.code)}")
    if wanted.flag and "flags" in types:
        asked.append("len(flags) > 0" if wanted.flag == "any" else f"list_contains(flags, {bound(wanted.flag)})")
    for name, sign in (("since", ">="), ("until", "<")):
        if value := getattr(wanted, name):
            asked.append(f"time {sign} {bound(_naive(value, name))}")
    for text in wanted.columns.split(";"):
        if text.strip():
            asked += _of_column(text.strip(), types, bound)
    return asked


def _of_column(text: str, types: Mapping[str, str], bound: Any) -> Iterable[str]:
    """``in.age=30..50``, either end of which may be left out; ``in.city=Oslo``."""
    sides = {name: kind for name, kind in types.items() if name.startswith(("in.", "out."))}
    # A column's name may hold a "=" itself: the longest that fits is meant.
    name = max((each for each in sides if text.startswith(f"{each}=")), key=len, default="")
    if not name:
        raise NotFound.among(
            "column", text.partition("=")[0], sides, hint="conditions look like in.age=30..50; out.prediction=yes"
        )
    value, kind = text[len(name) + 1 :].strip(), sides[name]
    if kind == "BOOLEAN":
        if value.lower() not in ("true", "false"):
            raise InvalidInput.at(name, "true or false", shown(value))
        return [f"{quoted(name)} = {bound(value.lower() == 'true')}"]
    if kind not in _NUMBERS:
        if kind != "VARCHAR":
            raise InvalidInput.at(name, "a column of numbers, texts or truth values", kind)
        return [f"{quoted(name)} = {bound(value)}"]
    low, mark, high = value.partition("..")
    if not mark:
        return [f"{quoted(name)} = {bound(_number(name, value))}"]
    ends = [(end.strip(), sign) for end, sign in ((low, ">="), (high, "<=")) if end.strip()]
    return [f"{quoted(name)} {sign} {bound(_number(name, end))}" for end, sign in ends]


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput.at(name, "a number, or two like 30..50", shown(text)) from None


def _naive(moment: str, name: str) -> dt.datetime:
    """A moment as the views have it: in UTC, without a zone."""
    try:
        return dt.datetime.fromisoformat(read_moment(moment)).replace(tzinfo=None)
    except InvalidInput:
        raise InvalidInput.at(name, "a moment such as 2026-11-23T10:00:00Z", shown(moment)) from None


def _row(found: dict[str, Any]) -> Row:
    outputs = {name[4:]: value for name, value in found.items() if name.startswith("out.") and value is not None}
    return Row(
        id=found["prediction_id"], time=moment_of(found["time"]), model=found["model"], version=found["version"],
        arm=found.get("arm") or "", code=found.get("code") or "", seconds=found.get("total_s"),
        flags=found.get("flags") or [], kept=found.get("kept") or "", reason=found.get("reason") or "", outputs=outputs,
    )  # fmt: skip


def moment_of(time: dt.datetime) -> str:
    """A time of a view as the registry writes moments."""
    return stamp(time.replace(tzinfo=dt.UTC))
