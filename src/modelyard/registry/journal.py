"""The history: one row for each change, written in the change's own transaction, never altered.

What an alias pointed to at any time, and where a rollback goes, is read from here.
"""

from __future__ import annotations

from modelyard.registry.database import Row, Work
from modelyard.registry.records import Change, author, now

_COLUMNS = "id, moment, who, action, model, alias, source, target, why, detail"


def write(
    work: Work,
    action: str,
    model: str,
    *,
    alias: str | None = None,
    source: int | None = None,
    target: int | None = None,
    why: str = "",
    detail: str = "",
    who: str = "",
) -> Change:
    """Add a row. Its time is never earlier than that of the row before, whatever the clocks say. ``who`` is the author
    unless something else decided.
    """
    last = work.row("SELECT id, moment FROM changes ORDER BY id DESC LIMIT 1") or {"id": 0, "moment": ""}
    moment, who = max(now(), last["moment"]), who or author()
    values = (last["id"] + 1, moment, who, action, model, alias, source, target, why, detail)
    work.do(f"INSERT INTO changes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *values)
    return _change(dict(zip(_COLUMNS.split(", "), values, strict=True)))


def move(work: Work, action: str, model: str, alias: str, number: int, why: str, who: str = "") -> Change:
    """Point ``alias`` at version ``number``; where it does already nothing is written and ``moved`` is False."""
    current = pointed(work, model, alias)
    if current == number:
        return Change(
            id=newest(work), when=now(), who=author(), action=action, model=model, alias=alias,
            from_=number, to=number, why=why, moved=False,
        )  # fmt: skip
    if current is None:
        work.do("INSERT INTO aliases (model, alias, number) VALUES (?, ?, ?)", model, alias, number)
    else:
        work.do("UPDATE aliases SET number = ? WHERE model = ? AND alias = ?", number, model, alias)
    return write(work, action, model, alias=alias, source=current, target=number, why=why, who=who)


def drop(work: Work, model: str, alias: str, why: str) -> Change:
    """Remove ``alias``."""
    current = pointed(work, model, alias)
    work.do("DELETE FROM aliases WHERE model = ? AND alias = ?", model, alias)
    return write(work, "delete", model, alias=alias, source=current, why=why)


def pointed(work: Work, model: str, alias: str) -> int | None:
    """The number that ``alias`` points to, or None."""
    row = work.row("SELECT number FROM aliases WHERE model = ? AND alias = ?", model, alias)
    return row["number"] if row else None


def newest(work: Work) -> int:
    """The id of the newest change; 0 where there is none."""
    row = work.row("SELECT max(id) AS id FROM changes")
    return (row and row["id"]) or 0


def last(work: Work, model: str) -> Change:
    """The newest change of ``model``, which has one."""
    return _change(work.rows(f"SELECT {_COLUMNS} FROM changes WHERE model = ? ORDER BY id DESC LIMIT 1", model)[0])


def changes(work: Work, model: str, until: str | None = None) -> list[Change]:
    """The changes of ``model``, oldest first; those up to the moment ``until`` if it is given."""
    rows = work.rows(
        f"SELECT {_COLUMNS} FROM changes WHERE model = ? AND moment <= ? ORDER BY id", model, until or "9999"
    )
    return [_change(row) for row in rows]


def live(work: Work, model: str, alias: str, moment: str) -> int | None:
    """The number that ``alias`` pointed to at a moment, or None where it did not exist. Routes do not move it."""
    row = work.row(
        """SELECT target FROM changes WHERE model = ? AND alias = ? AND moment <= ?
           AND action IN ('promote', 'rollback', 'delete') ORDER BY id DESC LIMIT 1""",
        model, alias, moment,
    )  # fmt: skip
    return row["target"] if row else None


def before(work: Work, model: str, alias: str, alive: set[int]) -> int | None:
    """The version to roll back to: what was live under ``alias`` before what is live now, and still exists.

    Moves forward pile up, a rollback takes off the pile down to where it went; so a second rollback goes
    further back, and one after a new promotion returns to what was live when that was made.
    """
    pile: list[int] = []
    rows = work.rows(
        "SELECT action, target FROM changes WHERE model = ? AND alias = ? AND target IS NOT NULL ORDER BY id",
        model, alias,
    )  # fmt: skip
    for row in rows:
        if row["action"] == "rollback":
            while pile and pile[-1] != row["target"]:
                pile.pop()
        else:
            pile.append(row["target"])
    current = pointed(work, model, alias)
    return next((number for number in reversed(pile) if number != current and number in alive), None)


def _change(row: Row) -> Change:
    return Change(
        id=row["id"], when=row["moment"], who=row["who"], action=row["action"], model=row["model"],
        alias=row["alias"], from_=row["source"], to=row["target"], why=row["why"], detail=row["detail"],
    )  # fmt: skip
