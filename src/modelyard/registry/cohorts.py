"""Cohorts: what the labels of the predictions of one hour come to, in named integers that add up.

A row is of one version and arm, of all its rows or of one segment of them (``city=Rome``), by one recorder. A label
adds to it and a correction takes back what the label before added, so that it is right in whatever order labels come.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from modelyard.registry.database import Database, Row, Work

#: Integers by name, of any size.
Counts = dict[str, int]


class Key(NamedTuple):
    """Which cohort. ``hour`` is ``2026-11-30T16``, or a day where hours were merged."""

    version: str
    arm: str
    segment: str
    hour: str


class Cohort(msgspec.Struct, frozen=True):
    """One cohort of a model."""

    key: Key
    counts: Counts


class Cohorts:
    """The cohorts of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(
        self, model: str, version: str | None = None, *, since: str = "", until: str = "9999", parts: bool = True
    ) -> list[Cohort]:
        """The cohorts of a model whose hours lie between two moments, of all recorders together, oldest first; those of
        segments only where ``parts`` are wanted.
        """
        sql = "SELECT * FROM cohorts WHERE model = ? AND hour >= ? AND hour < ?"
        values = [model, since[:13], until[:13]]
        if version is not None:
            sql, values = f"{sql} AND version = ?", [*values, version]
        if not parts:
            sql += " AND segment = ''"
        summed: dict[Key, Counts] = {}
        for row in self._database.query(f"{sql} ORDER BY hour, version, arm, segment, source", *values):
            key = _key(row)
            summed[key] = plus(summed.get(key, {}), json.loads(row["content"]))
        return [Cohort(key, counts) for key, counts in summed.items()]

    def models(self) -> list[str]:
        """The models that have cohorts."""
        return [row["model"] for row in self._database.query("SELECT DISTINCT model FROM cohorts ORDER BY model")]

    def merge(self, model: str, before: str) -> int:
        """Make days of the hours before a moment. Returns how many rows there are fewer."""
        with self._database.write() as work:
            rows = work.rows(
                "SELECT * FROM cohorts WHERE model = ? AND hour < ? AND length(hour) = 13", model, before[:10]
            )
            for row in rows:
                add(work, model, row["source"], {_key(row)._replace(hour=row["hour"][:10]): json.loads(row["content"])})
                work.do(
                    """DELETE FROM cohorts WHERE model = ? AND version = ? AND arm = ? AND segment = ? AND hour = ?
                       AND source = ?""",
                    model, *_key(row), row["source"],
                )  # fmt: skip
            days = {(_key(row)._replace(hour=row["hour"][:10]), row["source"]) for row in rows}
        return len(rows) - len(days)

    def forget(self, model: str, before: str) -> None:
        """Delete the cohorts of hours before a moment."""
        with self._database.write() as work:
            work.do("DELETE FROM cohorts WHERE model = ? AND hour < ?", model, before[:13])


def add(work: Work, model: str, source: str, increments: Mapping[Key, Counts]) -> None:
    """Inside a transaction: add to the cohorts of a recorder. What comes to nothing is left out."""
    there: dict[Key, Counts] = {}
    for version in {key.version for key in increments}:
        hours = sorted({key.hour for key in increments if key.version == version})
        rows = work.among(
            "SELECT * FROM cohorts WHERE model = ? AND version = ? AND source = ? AND hour IN ({})",
            hours, model, version, source,
        )  # fmt: skip
        there.update({_key(row): json.loads(row["content"]) for row in rows if _key(row) in increments})
    work.put(
        """INSERT INTO cohorts (model, version, arm, segment, hour, source, content) {}
           ON CONFLICT (model, version, arm, segment, hour, source) DO UPDATE SET content = excluded.content""",
        [
            (model, *key, source, json.dumps(plus(there.get(key, {}), counts), separators=(",", ":")))
            for key, counts in sorted(increments.items())
        ],
    )


def plus(one: Mapping[str, int], more: Mapping[str, int], times: int = 1) -> Counts:
    """Integers of the same names added; those that come to 0 are left out."""
    total = dict(one)
    for name, count in more.items():
        total[name] = total.get(name, 0) + times * count
        if not total[name]:
            del total[name]
    return total


def total(many: Iterable[Mapping[str, int]]) -> Counts:
    """All of them added."""
    summed: Counts = {}
    for counts in many:
        summed = plus(summed, counts)
    return summed


def _key(row: Row) -> Key:
    return Key(row["version"], row["arm"], row["segment"], row["hour"])
