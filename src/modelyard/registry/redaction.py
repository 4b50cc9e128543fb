"""What may be recorded of the inputs of each model: a policy for each column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from modelyard.errors import InvalidInput, NotFound
from modelyard.registry import journal
from modelyard.registry.database import Database, Work
from modelyard.registry.records import check_name, shown

#: ``drop``: nothing; ``hash``: whether two are the same; ``bucket``: the bin of the reference profile; ``keep``: all.
ACTIONS = ("drop", "hash", "bucket", "keep")

_STATE = "redaction"


class Policy(msgspec.Struct, frozen=True):
    """What is done with each column of one model; a column that it does not name is dropped."""

    columns: dict[str, str] = {}

    def action(self, column: str) -> str:
        return self.columns.get(column, "drop")


#: Of models that nobody has made a policy for: every column of their signatures is kept.
OPEN = None
#: Where nobody could be asked yet.
CLOSED = Policy()


class Policies:
    """The policies of a registry. Each change is a row of the history, so that recorders notice."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, Policy]:
        """Each model's that has one."""
        rows = self._database.query("SELECT model, content FROM states WHERE name = ?", _STATE)
        return {row["model"]: msgspec.json.decode(row["content"], type=Policy) for row in rows}

    def set(self, model: str, columns: Mapping[str, str], known: Iterable[str]) -> Policy:
        """Change what is done with some columns; of those ``known``, the rest stays as it was, or is kept.

        Raises NotFound for a column that is not known, InvalidInput for another word than ``ACTIONS``.
        """
        check_name(model)
        with self._database.write() as work:
            before = _current(work, model)
            there = {**dict.fromkeys(known, "keep"), **(before.columns if before is not None else {})}
            for column, action in columns.items():
                if column not in there:
                    raise NotFound.among(f"column of {model}", column, there)
                if action not in ACTIONS:
                    raise InvalidInput.at(f"column {column}", f"one of {', '.join(ACTIONS)}", shown(action))
            policy = Policy({**there, **columns})
            work.do("DELETE FROM states WHERE name = ? AND model = ? AND version = ?", _STATE, model, "")
            work.do(
                "INSERT INTO states (name, model, version, content) VALUES (?, ?, ?, ?)",
                _STATE, model, "", msgspec.json.encode(policy).decode(),
            )  # fmt: skip
            journal.write(work, "redact", model, detail=", ".join(f"{c}={a}" for c, a in columns.items()))
            return policy

    def clear(self, model: str) -> None:
        """Have no policy: every column of the signature is kept."""
        with self._database.write() as work:
            if _current(work, model) is not None:
                work.do("DELETE FROM states WHERE name = ? AND model = ? AND version = ?", _STATE, model, "")
                journal.write(work, "redact", model, detail="everything kept")


def _current(work: Work, model: str) -> Policy | None:
    row = work.row("SELECT content FROM states WHERE name = ? AND model = ? AND version = ?", _STATE, model, "")
    return msgspec.json.decode(row["content"], type=Policy) if row else None
