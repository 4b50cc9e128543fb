"""The registry's tables, as numbered steps. A step that has been released is never edited; the next is added.

The SQL is what SQLite and PostgreSQL have in common. Times are text (ISO 8601, UTC, microseconds). Numbers and
ids are given by the registry itself, under the write lock, so that they grow in the order of the commits.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from modelyard.errors import Refused

if TYPE_CHECKING:
    from modelyard.registry.database import Database

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE registry_identity (id TEXT NOT NULL)",
        # A deleted version keeps its row: its number is never given again, and history can say what it was.
        """CREATE TABLE versions (
            model TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, image TEXT NOT NULL,
            created TEXT NOT NULL, made_by TEXT NOT NULL, task TEXT NOT NULL, size BIGINT NOT NULL,
            metrics TEXT NOT NULL, provenance TEXT NOT NULL, deleted TEXT,
            PRIMARY KEY (model, number))""",
        "CREATE UNIQUE INDEX versions_once ON versions (model, digest) WHERE deleted IS NULL",
        """CREATE TABLE aliases (
            model TEXT NOT NULL, alias TEXT NOT NULL, number INTEGER NOT NULL,
            PRIMARY KEY (model, alias), FOREIGN KEY (model, number) REFERENCES versions)""",
        """CREATE TABLE tags (
            model TEXT NOT NULL, number INTEGER NOT NULL, tag TEXT NOT NULL, content TEXT NOT NULL,
            PRIMARY KEY (model, number, tag), FOREIGN KEY (model, number) REFERENCES versions)""",
        # Every blob that a version names, by its part in it: image, config, layer/<name>, beside/<file>.
        """CREATE TABLE blobs (
            model TEXT NOT NULL, number INTEGER NOT NULL, part TEXT NOT NULL,
            digest TEXT NOT NULL, size BIGINT NOT NULL,
            PRIMARY KEY (model, number, part), FOREIGN KEY (model, number) REFERENCES versions)""",
        "CREATE INDEX blobs_by_digest ON blobs (digest)",
        """CREATE TABLE changes (
            id INTEGER PRIMARY KEY, moment TEXT NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,
            model TEXT NOT NULL, alias TEXT, source INTEGER, target INTEGER,
            why TEXT NOT NULL, detail TEXT NOT NULL)""",
        "CREATE INDEX changes_by_model ON changes (model, alias, id)",
    ),
    (
        # Of a key's secret only the digest is kept. Words are parted by commas; no words of models mean all.
        """CREATE TABLE api_keys (
            id TEXT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, scopes TEXT NOT NULL, models TEXT NOT NULL,
            rate TEXT NOT NULL, created TEXT NOT NULL, made_by TEXT NOT NULL, expires TEXT, revoked TEXT)""",
        "CREATE UNIQUE INDEX api_keys_once ON api_keys (name) WHERE revoked IS NULL",
    ),
    (
        # The route in force of an alias is the one that has not ended; those before it stay.
        """CREATE TABLE routes (
            model TEXT NOT NULL, alias TEXT NOT NULL, revision INTEGER NOT NULL, content TEXT NOT NULL,
            moment TEXT NOT NULL, who TEXT NOT NULL, ended TEXT, PRIMARY KEY (model, alias, revision))""",
        "CREATE UNIQUE INDEX routes_once ON routes (model, alias) WHERE ended IS NULL",
        # A rollout's evidence is what its controller had folded in of the tallies up to ``position``.
        """CREATE TABLE rollouts (
            id INTEGER PRIMARY KEY, model TEXT NOT NULL, alias TEXT NOT NULL, state TEXT NOT NULL,
            started TEXT NOT NULL, ended TEXT, content TEXT NOT NULL, evidence TEXT NOT NULL,
            position BIGINT NOT NULL)""",
        "CREATE UNIQUE INDEX rollouts_once ON rollouts (model, alias) WHERE ended IS NULL",
        """CREATE TABLE decisions (
            id INTEGER PRIMARY KEY, rollout INTEGER NOT NULL, moment TEXT NOT NULL, who TEXT NOT NULL,
            action TEXT NOT NULL, content TEXT NOT NULL, FOREIGN KEY (rollout) REFERENCES rollouts)""",
        "CREATE INDEX decisions_by_rollout ON decisions (rollout, id)",
        # What recorders counted for a rollout: each of a source's rows once (``sequence``).
        """CREATE TABLE tallies (
            id BIGINT PRIMARY KEY, rollout INTEGER NOT NULL, revision INTEGER NOT NULL, source TEXT NOT NULL,
            sequence BIGINT NOT NULL, moment TEXT NOT NULL, content TEXT NOT NULL,
            UNIQUE (rollout, source, sequence))""",
        """CREATE TABLE windows (
            id BIGINT PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, arm TEXT NOT NULL, span TEXT NOT NULL,
            opened TEXT NOT NULL, closed TEXT NOT NULL, source TEXT NOT NULL, rows_seen BIGINT NOT NULL,
            content TEXT NOT NULL)""",
        "CREATE INDEX windows_by_model ON windows (model, version, closed)",
        "CREATE INDEX windows_by_span ON windows (span, closed)",
        """CREATE TABLE findings (
            id BIGINT PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, kind TEXT NOT NULL,
            subject TEXT NOT NULL, opened TEXT NOT NULL, closed TEXT, content TEXT NOT NULL)""",
        "CREATE INDEX findings_by_model ON findings (model, version, opened)",
        """CREATE TABLE alerts (
            id BIGINT PRIMARY KEY, rule TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, finding BIGINT,
            state TEXT NOT NULL, opened TEXT NOT NULL, closed TEXT, content TEXT NOT NULL)""",
        "CREATE INDEX alerts_by_model ON alerts (model, state)",
        """CREATE TABLE deliveries (
            id BIGINT PRIMARY KEY, alert BIGINT NOT NULL, sink TEXT NOT NULL, state TEXT NOT NULL,
            attempts INTEGER NOT NULL, due TEXT NOT NULL, content TEXT NOT NULL)""",
        """CREATE TABLE silences (
            id BIGINT PRIMARY KEY, model TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, until TEXT NOT NULL,
            who TEXT NOT NULL, why TEXT NOT NULL)""",
        # The truth about predictions: a row an id, whose label is the one that counts. ``moment`` is when it became
        # known, "" for when the id's first label was ``received``; ``history`` has the labels before. Labels that wait
        # to be joined (new ones, corrections) are ``open``, in the order of ``sequence``; ``counted`` says what a
        # joined one added to which predictions of which ``source``, so that a correction can take it back.
        """CREATE TABLE labels (
            model TEXT NOT NULL, prediction TEXT NOT NULL, sequence BIGINT NOT NULL, label TEXT NOT NULL,
            moment TEXT NOT NULL, received TEXT NOT NULL, history TEXT NOT NULL, state TEXT NOT NULL,
            source TEXT NOT NULL, counted TEXT NOT NULL, PRIMARY KEY (model, prediction))""",
        "CREATE INDEX labels_open ON labels (model, sequence) WHERE state = 'open'",
        # Joined labels: what was counted of the predictions of one hour, in all or of one segment of the rows.
        """CREATE TABLE cohorts (
            model TEXT NOT NULL, version TEXT NOT NULL, arm TEXT NOT NULL, segment TEXT NOT NULL, hour TEXT NOT NULL,
            source TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (model, version, arm, segment, hour, source))""",
        # What a loop carries from one turn to the next: detectors' states, positions in the rows above.
        """CREATE TABLE states (
            name TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, content TEXT NOT NULL,
            PRIMARY KEY (name, model, version))""",
        "CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, term BIGINT NOT NULL, beat BIGINT NOT NULL)",
    ),
    (
        # Batch jobs, as whoever runs one tells of it.
        """CREATE TABLE jobs (
            id BIGINT PRIMARY KEY, model TEXT NOT NULL, number INTEGER NOT NULL, state TEXT NOT NULL,
            started TEXT NOT NULL, seen TEXT NOT NULL, content TEXT NOT NULL)""",
        "CREATE INDEX jobs_by_model ON jobs (model, id)",
    ),
)


def migrate(database: Database) -> None:
    """Bring a database to the newest step; one process does it, the others wait and find it done.

    Raises Refused where a newer Modelyard has been there.
    """
    if _check(database, database.schema()) == len(STEPS):
        return
    with database.write() as work:
        known = _check(database, work.schema())
        if known == 0:
            work.do("CREATE TABLE schema_version (version INTEGER NOT NULL)")
            work.do("INSERT INTO schema_version (version) VALUES (0)")
        for number, step in enumerate(STEPS[known:], known + 1):
            for statement in step:
                work.do(statement)
            if number == 1:
                work.do("INSERT INTO registry_identity (id) VALUES (?)", uuid.uuid4().hex)
        work.do("UPDATE schema_version SET version = ?", len(STEPS))


def _check(database: Database, version: int) -> int:
    if version > len(STEPS):
        raise Refused(
            f"the registry {database.where} was made by a newer Modelyard: its schema is {version}, "
            f"this one knows up to {len(STEPS)}",
            hint="pip install --upgrade modelyard",
        )
    return version
