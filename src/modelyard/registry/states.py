"""States: what a loop carries from one turn to the next, and what people have set for it; a text for each name."""

from __future__ import annotations

from modelyard.registry.database import Database, Work


def get(database: Database, name: str, model: str = "", version: str = "") -> str | None:
    """The text kept under a name; None where there is none."""
    rows = database.query(
        "SELECT content FROM states WHERE name = ? AND model = ? AND version = ?", name, model, version
    )
    return rows[0]["content"] if rows else None


def find(database: Database, name: str) -> dict[tuple[str, str], str]:
    """Every text kept under a name, by model and version."""
    rows = database.query("SELECT model, version, content FROM states WHERE name = ? ORDER BY model, version", name)
    return {(row["model"], row["version"]): row["content"] for row in rows}


# -- inside a transaction ------------------------------------------------------------------------------------------


def read(work: Work, name: str, model: str = "", version: str = "") -> str | None:
    """See ``get``."""
    row = work.row("SELECT content FROM states WHERE name = ? AND model = ? AND version = ?", name, model, version)
    return row["content"] if row else None


def put(work: Work, name: str, content: str, model: str = "", version: str = "") -> None:
    """Keep a text in place of the one before."""
    drop(work, name, model, version)
    work.do(
        "INSERT INTO states (name, model, version, content) VALUES (?, ?, ?, ?)", name, model, version, content
    )  # fmt: skip


def drop(work: Work, name: str, model: str = "", version: str = "") -> None:
    """Keep nothing under a name."""
    work.do("DELETE FROM states WHERE name = ? AND model = ? AND version = ?", name, model, version)
