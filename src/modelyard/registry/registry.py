"""The registry: names, versions, aliases and history of bundles."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import settings
from modelyard.errors import InvalidInput, NotFound, Refused, RemoteFailed
from modelyard.interfaces import Store
from modelyard.registry import decisions, entry, journal, moves, shelf
from modelyard.registry.alerts import Alerts
from modelyard.registry.cache import Cache
from modelyard.registry.collecting import collect, forget
from modelyard.registry.database import Database, is_url, open_database
from modelyard.registry.findings import Findings
from modelyard.registry.index import refresh_index
from modelyard.registry.jobs import Jobs
from modelyard.registry.keys import Keys
from modelyard.registry.labels import Labels
from modelyard.registry.leases import Lease, holder_of
from modelyard.registry.migrations import migrate
from modelyard.registry.records import (
    PRODUCTION,
    Change,
    Reference,
    Version,
    check_alias,
    check_name,
    check_number,
    check_tag,
    check_text,
    read_moment,
)
from modelyard.registry.redaction import Policies
from modelyard.registry.rollouts import Rollouts
from modelyard.registry.routes import Routes
from modelyard.registry.tallies import Tallies
from modelyard.registry.windows import Windows
from modelyard.stores.disk import disk_errors
from modelyard.stores.image import Part
from modelyard.stores.local import LocalStore

if TYPE_CHECKING:
    from modelyard.bundle import Bundle

_log = logging.getLogger(__name__)


class Registry:
    """Bundles by name, version and alias, and every change of these, kept for good.

    Safe for threads, for processes, and for being killed: a change is there, wholly, once its call returned.
    """

    def __init__(self, database: Database, store: Store, cache: Cache, identity: str) -> None:
        self._database = database
        self._store = store
        self._cache = cache
        self._identity = identity
        #: What opens it again: not to be shown, as the URL of a server may hold a password.
        self.place = ""
        #: Who may call the servers of this registry.
        self.keys = Keys(database)
        #: Which versions answer for an alias, and what is to change there by and by.
        self.routes = Routes(database)
        self.rollouts = Rollouts(database)
        #: What was counted of predictions, and what may be kept of them.
        self.windows = Windows(database)
        self.tallies = Tallies(database)
        self.policies = Policies(database)
        #: What detectors found, and who was told of it.
        self.findings = Findings(database)
        self.alerts = Alerts(database)
        #: Batch jobs that are under way, and that were.
        self.jobs = Jobs(database)
        #: The truth about predictions.
        self.labels = Labels(database)

    @classmethod
    def open(cls, where: str | Path | None = None, *, store: Store | None = None) -> Registry:
        """The registry in a folder, or at a postgresql:// URL; by default what the settings say.

        With PostgreSQL the blobs and the cache still lie on a disk: below the home folder, in a folder of that
        registry's own, or where the setting ``store`` says, which several machines may share.
        Raises RemoteFailed where the database cannot be used, Refused where a newer Modelyard made it.
        """
        home, place = _place(where)
        if "://" in place and not is_url(place):  # what it says may be a password: neither shown nor made a folder
            raise InvalidInput.at(
                "registry", "a folder, or postgresql://user:password@host:port/database", "a URL of another kind"
            )
        if not is_url(place):
            home = Path(place).expanduser().absolute()
            _make(home)
            place = str(home / "registry.db")
        database = open_database(place)
        migrate(database)
        identity = database.query("SELECT id FROM registry_identity")[0]["id"]
        folder = settings.get("store") or home / (f"stores/{identity}" if is_url(place) else "store")
        blobs = store or LocalStore(Path(folder).expanduser())
        registry = cls(database, blobs, Cache(home / "cache" / "bundles"), identity)
        registry.place = place
        with _tolerated("the index of images is stale"):
            refresh_index(database, blobs)
        return registry

    @staticmethod
    def is_there(where: str | Path | None = None) -> bool:
        """Whether somebody has made the registry that ``open`` would open; one on a server counts as made."""
        _, place = _place(where)
        return "://" in place or (Path(place).expanduser() / "registry.db").exists()

    def __repr__(self) -> str:
        return f"<Registry {self._database.where}>"

    def close(self) -> None:
        """Let go of the database. The registry opens it again if it is used again."""
        self._database.close()

    @property
    def database(self) -> Database:
        """For what writes several kinds of rows in one transaction."""
        return self._database

    def lease(self, name: str, holder: str) -> Lease:
        """A claim to be the one process that acts, of those that share this registry."""
        return Lease(self._database, name, holder)

    def holder(self, lease: str) -> str:
        """Who has a lease, as far as anybody knows; "" for nobody."""
        return holder_of(self._database, lease)

    # -- bundles ------------------------------------------------------------------------------------------

    def register(
        self,
        bundle: Bundle,
        name: str,
        *,
        alias: str | None = None,
        tags: Mapping[str, str] | None = None,
        why: str = "",
    ) -> Version:
        """Keep ``bundle`` as the next version of ``name``, and point ``alias`` at it if one is given.

        The same bundle again is the same version (``existing`` is True then): its blobs are written anew, which
        mends damaged ones, files beside it that the version lacks are added, and alias and tags are set. Where no
        alias is given, the only version of a model becomes ``production``, so that the first one can be served at
        once; later ones are promoted.

        Raises InvalidInput for a name that breaks the rule, BadBundle where the bundle's files are not what its
        manifest says, RemoteFailed where disk or database fail; nothing is registered then.
        """
        check_name(name)
        if alias is not None:
            check_alias(alias)
        for key, content in (tags or {}).items():
            check_tag(key, content)
        check_text("why", why)
        kept: list[Part] = []
        try:
            version = self._register(bundle, name, alias, dict(tags or {}), why, kept)
        except BaseException as error:
            if kept:
                self._forget(kept)
            if isinstance(error, RemoteFailed) and not error.details.get("unknown"):
                raise RemoteFailed(f"{error.message}; nothing was registered", hint=error.hint) from error
            raise
        if version.existing:
            self._forget(kept)
        self._refresh()
        return version

    def _register(
        self, bundle: Bundle, name: str, alias: str | None, tags: dict[str, str], why: str, kept: list[Part]
    ) -> Version:
        if isinstance(self._store, LocalStore):
            self._store.claim(self._identity)
        while True:
            kept.clear()
            for part in shelf.put_bundle(self._store, bundle):
                kept.append(part)
            with self._database.write() as work:
                # Collecting happens under the same lock, so what is here now stays; what went is put again.
                if not all(self._store.has(part.digest) for part in kept):
                    continue
                return entry.enter(work, bundle, name, alias, tags, why, kept)

    def fetch(self, version: Version) -> Bundle:
        """The bundle of a version, verified, in a folder of the cache that is made the first time; where the home may
        not be written, in a temporary folder that goes with the bundle.

        Raises BadBundle where a blob is damaged (naming it), NotFound where the version or a blob is gone.
        """
        with self._database.read() as work:
            parts = shelf.parts_of(work, version)
        if not parts:
            raise NotFound(f"{version.ref} was deleted")
        return self._cache.fetch(version.digest, parts, self._store)

    def delete(self, ref: str, *, why: str = "", force: bool = False) -> None:
        """Forget a version: its number is never given again, its blobs go with the next ``collect``.

        Raises Refused where an alias points to it, or a route or a rollout needs it. ``force`` removes such aliases
        too, but ``production`` only where it is the model's last version: promote another one first.
        """
        check_text("why", why)
        with self._database.write() as work:
            version = shelf.find(work, Reference.parse(ref))
            others = shelf.alive(work, version.model) - {version.number}
            if user := decisions.versions_in_use(work, version.model).get(version.number):
                raise Refused(f"{version.ref} is needed by {user}", hint=f"modelyard route show {version.model}")
            if version.aliases and (not force or (PRODUCTION in version.aliases and others)):
                raise Refused(
                    f"{version.ref} is what an alias points to: {', '.join(version.aliases)}",
                    hint=f"modelyard promote {version.model} ANOTHER --alias {version.aliases[0]}",
                    aliases=version.aliases,
                )
            for alias in version.aliases:
                journal.drop(work, version.model, alias, why)
            shelf.erase(work, version)
            journal.write(work, "delete", version.model, source=version.number, why=why, detail=version.digest)
        self._refresh()

    def collect(self) -> int:
        """Free the blobs, cached bundles and leftovers that no version names; return the bytes that freed.

        Safe beside anything else that goes on: a bundle that is being registered is not harmed.
        """
        if isinstance(self._store, LocalStore):
            self._store.claim(self._identity)
        return collect(self._database, self._store, self._cache)

    # -- names --------------------------------------------------------------------------------------------

    def resolve(self, ref: str) -> Version:
        """The version that ``churn`` (production, else the newest), ``churn:4``, ``churn@alias`` or
        ``churn@sha256:…`` (12 digits or more) means.

        Raises NotFound naming the nearest, InvalidInput for what is no reference.
        """
        wanted = Reference.parse(ref)
        with self._database.read() as work:
            return shelf.find(work, wanted)

    def models(self) -> list[str]:
        """The names that have a version, sorted."""
        with self._database.read() as work:
            return shelf.models(work)

    def versions(self, name: str) -> list[Version]:
        """The versions of a model, oldest first. Raises NotFound."""
        check_name(name)
        with self._database.read() as work:
            return shelf.versions(work, name)

    def aliases(self, name: str) -> dict[str, int]:
        """Each alias of a model and the version it points to. Raises NotFound for an unknown model."""
        check_name(name)
        with self._database.read() as work:
            found = shelf.aliases(work, name)
            if not found:
                shelf.versions(work, name)  # says what is there instead
            return found

    def tag(self, ref: str, key: str, value: str, *, why: str = "") -> Change:
        """Put a tag on a version, or change it."""
        check_tag(key, value)
        check_text("why", why)
        with self._database.write() as work:
            return entry.tag(work, shelf.find(work, Reference.parse(ref)), key, value, why)

    def untag(self, ref: str, key: str, *, why: str = "") -> Change:
        """Take a tag off a version. Raises NotFound where it has none of that name."""
        check_tag(key, "")
        check_text("why", why)
        with self._database.write() as work:
            version = shelf.find(work, Reference.parse(ref))
            if key not in version.tags:
                raise NotFound.among(f"tag of {version.ref}", key, version.tags)
            work.do("DELETE FROM tags WHERE model = ? AND number = ? AND tag = ?", version.model, version.number, key)
            return journal.write(work, "untag", version.model, target=version.number, why=why, detail=key)

    def promote(
        self, name: str, number: int, *, alias: str = PRODUCTION, why: str = "", expect: int | None = None
    ) -> Change:
        """Point ``alias`` at version ``number``. Where it does already nothing changes and ``moved`` is False.

        ``expect`` is the version that the caller takes to be there now (0: none). Raises Conflict where another
        one is, or where a rollout or a route decides what the alias means; NotFound for an unknown version.
        """
        check_name(name)
        check_number(number)
        check_alias(alias)
        check_text("why", why)
        with self._database.write() as work:
            return moves.promote(work, name, number, alias, why, expect)

    def rollback(self, name: str, *, alias: str = PRODUCTION, why: str = "") -> Change:
        """Point ``alias`` back at the version that was live before the present one and still exists.

        A second rollback goes one further back. Raises Conflict where there is none. Where a rollout is under way, its
        candidate is taken back, and where somebody made a route, the route: then the alias alone decides again.
        """
        check_name(name)
        check_alias(alias)
        check_text("why", why)
        with self._database.write() as work:
            return moves.rollback(work, name, alias, why)

    # -- history ------------------------------------------------------------------------------------------

    def history(self, name: str, *, at: str | dt.datetime | None = None) -> list[Change]:
        """Every change of a model, oldest first; ``at`` (ISO 8601, UTC) leaves out what came later.

        Also of a model whose versions are all deleted. Raises NotFound for a name never used.
        """
        check_name(name)
        until = None if at is None else read_moment(at)
        with self._database.read() as work:
            found = journal.changes(work, name, until)
            if not found and not journal.changes(work, name):
                raise NotFound.among("model", name, shelf.models(work))
            return found

    def live_at(self, name: str, moment: str | dt.datetime, alias: str = PRODUCTION) -> Version | None:
        """The version that ``alias`` pointed to at a moment (ISO 8601, UTC), or None where it was not set.

        The version may have been ``deleted`` since. Raises NotFound for a name never used.
        """
        check_name(name)
        check_alias(alias)
        when = read_moment(moment)
        with self._database.read() as work:
            if not journal.changes(work, name):
                raise NotFound.among("model", name, shelf.models(work))
            number = journal.live(work, name, alias, when)
            return None if number is None else shelf.numbered(work, name, number)

    def marker(self) -> int:
        """A number that grows with every change, and is cheap to ask for."""
        return self._database.query("SELECT max(id) AS id FROM changes")[0]["id"] or 0

    # -- inside -------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        with _tolerated("the index of images will be written later"):
            refresh_index(self._database, self._store)

    def _forget(self, parts: Iterable[Part]) -> None:
        with _tolerated("blobs were left for modelyard collect"):
            forget(self._database, self._store, parts)


def _place(where: str | Path | None) -> tuple[Path, str]:
    """The home folder, and the folder or URL of a registry."""
    home: Path = settings.get("home")
    return home, str(where) if where is not None else settings.get("registry") or str(home)


def _make(folder: Path) -> None:
    """Make the home folder. Where that cannot be, reading what is there may still be possible."""
    with disk_errors(folder):
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _tolerated(consequence: str) -> Iterator[None]:
    """For work that can be done later: a failure is logged, not raised."""
    try:
        yield
    except RemoteFailed as error:
        _log.warning("%s: %s", consequence, error.message)
