"""Routes: which versions answer for an alias of a model, and with which share of its requests.

An alias that has no route answers with the version it points to. Each change of a route is a new revision and a row of
the history, so that servers follow it as they follow aliases; old revisions are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import msgspec

from modelyard.errors import Conflict, InvalidInput, NotFound
from modelyard.registry import journal, shelf
from modelyard.registry.database import Database, Row, Work
from modelyard.registry.records import PRODUCTION, author, check_alias, check_name, check_text, now, shown

if TYPE_CHECKING:
    from modelyard.schema import Signature

_COLUMNS = "model, alias, revision, content, moment, who, ended"

#: What ``key`` may begin with: each request by itself, or all that have a header or an input column in common.
KEYS = ("request", "header:", "column:")


class Arm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of a route. ``live`` arms share the requests; a ``shadow`` gets copies, and its answers are dropped."""

    #: ``stable``, ``canary``, ``shadow``, or what an experiment calls its sides.
    name: str
    version: int
    #: From 0 to 1: of the requests that it answers, or for a shadow, that it gets a copy of.
    weight: float
    mode: Literal["live", "shadow"] = "live"


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that have this ``value`` always go to ``arm``."""

    #: Where: ``header:x-group``, or ``column:country`` in the first row of a request.
    key: str
    #: Of a column of numbers it may be a range, both ends of which belong to it: ``1000..``, ``..0``, ``20..30``.
    value: str
    arm: str

    def __str__(self) -> str:
        return f"{self.key}:{self.value}={self.arm}"


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The arms of one alias. The weights of the live ones add up to 1."""

    model: str
    alias: str = PRODUCTION
    arms: tuple[Arm, ...]
    #: What sticks to an arm: ``request`` (nothing), ``header:x-user-id`` or ``column:user_id``.
    key: str = "request"
    #: Goes into the hash of the key: the same clients stay in an arm while only weights change.
    salt: str = ""
    pins: tuple[Pin, ...] = ()
    #: The rollout that made it; None where a person did.
    rollout: int | None = None
    #: From 1 for each alias, and when and by whom this one was made.
    revision: int = 0
    moment: str = ""
    who: str = ""

    def arm(self, name: str) -> Arm:
        """The arm called ``name``. Raises NotFound."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise NotFound.among("arm", name, (arm.name for arm in self.arms))


class Routes:
    """The routes of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def present(self, model: str, alias: str = PRODUCTION) -> Route | None:
        """The route in force, or None where the alias alone decides."""
        with self._database.read() as work:
            return current(work, model, alias)

    def all(self) -> list[Route]:
        """Every route in force."""
        rows = self._database.query(f"SELECT {_COLUMNS} FROM routes WHERE ended IS NULL ORDER BY model, alias")
        return [_route(row) for row in rows]

    def revisions(self, model: str, alias: str = PRODUCTION) -> list[Route]:
        """Every route that the alias ever had, oldest first."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM routes WHERE model = ? AND alias = ? ORDER BY revision", model, alias
        )
        return [_route(row) for row in rows]

    def revision(self, model: str, alias: str, number: int) -> Route:
        """The route that an arm's text (``alias/revision/arm``) tells of. Raises NotFound."""
        with self._database.read() as work:
            found = of_revision(work, model, alias, number)
        if found is None:
            raise NotFound(f"{model}@{alias} never had a route of revision {number}")
        return found

    def set(self, route: Route, *, why: str = "") -> Route:
        """Put a route in force in place of the one before; an equal one stays as it is. Raises InvalidInput, NotFound
        for a version that is not there, Conflict where a rollout decides what the alias means.
        """
        check(route)
        check_text("why", why)
        with self._database.write() as work:
            check_free(work, route.model, route.alias)
            before = current(work, route.model, route.alias)
            if before is not None and before == msgspec.structs.replace(
                route, rollout=None, revision=before.revision, moment=before.moment, who=before.who
            ):
                return before
            return put(work, msgspec.structs.replace(route, rollout=None), why)

    def clear(self, model: str, alias: str = PRODUCTION, *, why: str = "") -> bool:
        """From now on the alias alone decides; False where it does already. Raises NotFound for no such model, Conflict
        as ``set`` does.
        """
        check_name(model)
        check_alias(alias)
        check_text("why", why)
        with self._database.write() as work:
            check_free(work, model, alias)
            shelf.versions(work, model)  # there may be no such model
            return end(work, model, alias, why)


# -- inside a transaction, for those who change more than the route ----------------------------------------------


def current(work: Work, model: str, alias: str) -> Route | None:
    """The route in force."""
    row = work.row(f"SELECT {_COLUMNS} FROM routes WHERE model = ? AND alias = ? AND ended IS NULL", model, alias)
    return _route(row) if row else None


def of_revision(work: Work, model: str, alias: str, revision: int) -> Route | None:
    """The route of a revision, in force or not; None where there never was one."""
    row = work.row(
        f"SELECT {_COLUMNS} FROM routes WHERE model = ? AND alias = ? AND revision = ?", model, alias, revision
    )
    return _route(row) if row else None


def in_force(work: Work, model: str) -> list[Route]:
    """The routes in force of a model's aliases."""
    rows = work.rows(f"SELECT {_COLUMNS} FROM routes WHERE model = ? AND ended IS NULL ORDER BY alias", model)
    return [_route(row) for row in rows]


def put(work: Work, route: Route, why: str = "", who: str = "") -> Route:
    """Put a checked route in force."""
    alive = shelf.alive(work, route.model)
    for arm in route.arms:
        if arm.version not in alive:
            raise NotFound.among(f"version of {route.model}", str(arm.version), map(str, sorted(alive)))
    last = work.row("SELECT max(revision) AS n FROM routes WHERE model = ? AND alias = ?", route.model, route.alias)
    revision = ((last and last["n"]) or 0) + 1
    made = msgspec.structs.replace(route, revision=revision, moment=now(), who=who or author())
    work.do(
        "UPDATE routes SET ended = ? WHERE model = ? AND alias = ? AND ended IS NULL",
        made.moment, route.model, route.alias,
    )  # fmt: skip
    work.do(
        f"INSERT INTO routes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, NULL)",
        made.model, made.alias, made.revision, msgspec.json.encode(made).decode(), made.moment, made.who,
    )  # fmt: skip
    journal.write(work, "route", made.model, alias=made.alias, why=why, detail=told(made), who=who)
    return made


def end(work: Work, model: str, alias: str, why: str = "", who: str = "") -> bool:
    """Take the route out of force; False where there is none."""
    if current(work, model, alias) is None:
        return False
    work.do("UPDATE routes SET ended = ? WHERE model = ? AND alias = ? AND ended IS NULL", now(), model, alias)
    journal.write(work, "unroute", model, alias=alias, why=why, who=who)
    return True


def check_free(work: Work, model: str, alias: str) -> None:
    """Raises Conflict where a rollout decides what the alias means."""
    row = work.row("SELECT id, state FROM rollouts WHERE model = ? AND alias = ? AND ended IS NULL", model, alias)
    if row is not None:
        verb = "end" if row["state"] == "watching" else "abort"
        raise Conflict(
            f"rollout {row['id']} decides what {model}@{alias} means: it is {row['state']}",
            hint=f"modelyard rollout {verb} {model}{flag(alias)}", rollout=row["id"],
        )  # fmt: skip


def flag(alias: str) -> str:
    """The option of a command that names an alias, where it has to be named."""
    return "" if alias == PRODUCTION else f" --alias {alias}"


def told(route: Route) -> str:
    """The arms in words: ``stable 4 90%, canary 5 10%``."""
    return ", ".join(
        f"{arm.name} {arm.version} {arm.weight * 100:.4g}%{' (shadow)' if arm.mode == 'shadow' else ''}"
        for arm in route.arms
    )


def check(route: Route) -> Route:
    """``route`` as it is. Raises InvalidInput where its arms, weights, key or pins do not fit together."""
    check_name(route.model)
    check_alias(route.alias)
    names = [arm.name for arm in route.arms]
    if len(set(names)) != len(names):
        raise InvalidInput.at("arms", "each name once", ", ".join(names))
    for arm in route.arms:
        check_name(arm.name, "arm")
        if not 0.0 <= arm.weight <= 1.0:
            raise InvalidInput.at(f"weight of {arm.name}", "a number from 0 to 1", str(arm.weight))
    total = sum(arm.weight for arm in route.arms if arm.mode == "live")
    if abs(total - 1.0) > 1e-9:
        raise InvalidInput.at("weights of the live arms", "1 in all", f"{total:.6g}")
    if route.key != "request" and not any(route.key.startswith(k) and route.key != k for k in KEYS[1:]):
        raise InvalidInput.at("key", "request, header:NAME or column:NAME", shown(route.key))
    check_text("key", route.key, 200)
    pinned = [f"{_lowered(pin.key)}:{pin.value}" for pin in route.pins]
    if len(set(pinned)) != len(pinned):
        raise InvalidInput.at("pins", "each key and value once", ", ".join(pinned))
    for pin in route.pins:
        check_text("key of a pin", pin.key, 200)
        if not any(pin.key.startswith(k) and pin.key != k for k in KEYS[1:]):
            raise InvalidInput.at("key of a pin", "header:NAME or column:NAME", shown(pin.key))
        check_text(f"pin of {pin.key}", pin.value, 200)
        if pin.arm not in names:
            raise InvalidInput.at(f"pin of {pin.key}:{pin.value}", f"one of {', '.join(names)}", shown(pin.arm))
        if route.arm(pin.arm).mode == "shadow":
            raise InvalidInput.at(f"pin of {pin.key}:{pin.value}", "an arm that answers", f"{pin.arm}, a shadow")
    return route


def check_columns(key: str, pins: Iterable[Pin], signature: Signature) -> None:
    """Raises NotFound where what sticks or is pinned is a column that the first arm's version does not have: it would
    decide for nobody; InvalidInput where a pin is of numbers and its value is none.
    """
    fields = {field.name: field for field in signature.inputs}
    for each in (key, *(pin.key for pin in pins)):
        kind, _, name = each.partition(":")
        if kind == "column" and name not in fields:
            raise NotFound.among("input column", name, list(fields))
        if kind == "column" and fields[name].shape:
            raise InvalidInput.at("key", "a column of single values", f"{name}, which has {fields[name].describe()}")
    for pin in pins:
        kind, _, name = pin.key.partition(":")
        if kind == "column" and fields[name].is_numeric and fields[name].dtype != "bool":
            bounds_of(pin)


def read_pin(text: str) -> Pin:
    """``header:x-group:testers=canary`` as a pin. Raises InvalidInput."""
    told, equals, arm = text.rpartition("=")
    kind, _, rest = told.partition(":")
    name, colon, value = rest.partition(":")
    made = Pin(key=f"{kind.strip()}:{name.strip()}", value=value.strip(), arm=arm.strip())
    if not (equals and colon and kind.strip() in ("header", "column") and name.strip() and made.value and made.arm):
        raise InvalidInput.at("pin", "header:NAME:VALUE=ARM or column:NAME:VALUE=ARM", repr(text.strip()))
    return made


def bounds_of(pin: Pin) -> tuple[float, float]:
    """The least and the largest number that a pin of numbers means: ``20..30``, ``1000..``, ``..0``, ``7``. Raises
    InvalidInput.
    """
    low, dots, high = pin.value.partition("..")
    try:
        least = float(low) if low or not dots else -math.inf
        most = float(high) if high else math.inf if dots else least
    except ValueError:
        least, most = 1.0, 0.0
    if not least <= most:
        raise InvalidInput.at(f"pin of {pin.key}", "a number, or a range like 20..30, 1000.. or ..0", shown(pin.value))
    return least, most


def _lowered(key: str) -> str:
    """A key as it is told apart: headers are the same in upper and lower case."""
    return key.lower() if key.startswith("header:") else key


def _route(row: Row) -> Route:
    return msgspec.json.decode(row["content"], type=Route)
