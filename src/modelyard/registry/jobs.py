"""Batch jobs, as whoever runs one tells of it: a row a run, which says how far it has come.

Nothing depends on these rows: a job goes on by its own journal, also where the registry cannot be told.
"""

from __future__ import annotations

import datetime as dt
import os
from typing import Literal

import msgspec

from modelyard.errors import NotFound
from modelyard.registry.database import Database, Row, Work
from modelyard.registry.records import author, now

_COLUMNS = "id, model, number, state, started, seen, content"

#: ``lost``: its process ended, or stands still, without having said so.
State = Literal["running", "done", "failed", "lost"]

#: Seconds after which a job that says nothing is lost.
SILENT_SECONDS = 60.0

#: Rows that stay.
KEPT = 1_000


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run. Moments are ISO 8601 in UTC."""

    id: int = 0
    model: str
    version: int
    state: State = "running"
    started: str = ""
    #: When it was heard of last; of one that is over, when it ended.
    seen: str = ""
    input: str
    output: str
    who: str = ""
    machine: str = ""
    process: int = 0
    #: How much is done, and how much there is: bytes of a CSV file, rows of a Parquet file.
    done: int = 0
    total: int = 0
    #: Known when it is over.
    scored: int = 0
    rejected: int = 0
    rejected_file: str = ""
    seconds: float = 0.0
    #: Why it failed.
    error: str = ""


class Jobs:
    """The batch jobs of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, model: str, version: int, input: str, output: str) -> Job:
        """A job of this process begins."""
        moment = now()
        job = Job(
            model=model, version=version, started=moment, seen=moment, input=input, output=output, who=author(),
            machine=os.uname().nodename, process=os.getpid(),
        )  # fmt: skip
        with self._database.write() as work:
            last = work.row("SELECT max(id) AS id FROM jobs")
            job = msgspec.structs.replace(job, id=((last and last["id"]) or 0) + 1)
            work.do("DELETE FROM jobs WHERE id <= ?", job.id - KEPT)
            work.do(
                f"INSERT INTO jobs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                job.id, job.model, job.version, job.state, job.started, job.seen, _content(job),
            )  # fmt: skip
        return job

    def tell(self, job: Job) -> Job:
        """Keep what is known of a job by now; returns it with the moment."""
        told = msgspec.structs.replace(job, seen=now())
        with self._database.write() as work:
            _save(work, told)
        return told

    def get(self, number: int) -> Job:
        """Raises NotFound."""
        rows = self._database.query(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", number)
        if not rows:
            raise NotFound(f"no such batch job: {number}")
        return _job(rows[0])

    def find(self, model: str | None = None, *, most: int = 200) -> list[Job]:
        """Jobs, the newest first."""
        if model is None:
            rows = self._database.query(f"SELECT {_COLUMNS} FROM jobs ORDER BY id DESC LIMIT {int(most)}")
        else:
            rows = self._database.query(
                f"SELECT {_COLUMNS} FROM jobs WHERE model = ? ORDER BY id DESC LIMIT {int(most)}", model
            )
        return [_job(row) for row in rows]


def _save(work: Work, job: Job) -> None:
    work.do(
        "UPDATE jobs SET state = ?, seen = ?, content = ? WHERE id = ?", job.state, job.seen, _content(job), job.id
    )  # fmt: skip


def _content(job: Job) -> str:
    return msgspec.json.encode(job).decode()


def _job(row: Row) -> Job:
    job = msgspec.json.decode(row["content"], type=Job)
    job = msgspec.structs.replace(job, id=row["id"], state=row["state"], seen=row["seen"])
    silent = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(job.seen)
    is_lost = job.state == "running" and silent.total_seconds() > SILENT_SECONDS
    return msgspec.structs.replace(job, state="lost") if is_lost else job
