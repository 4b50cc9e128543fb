"""API keys: who may call a server, for what, and how often. The registry keeps them, servers read them."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
from collections.abc import Iterable

import msgspec

from modelyard.errors import Conflict, InvalidInput, NotFound
from modelyard.registry import journal
from modelyard.registry.database import Database, Row, Work
from modelyard.registry.records import author, check_name, now, read_moment, shown, stamp

#: What a key may allow. ``view``: to look at everything in the console and its API. ``admin`` allows all the rest.
SCOPES = ("predict", "label", "view", "admin")

_KEY = re.compile(r"my_(?P<id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})")
_ID = re.compile(r"(my_)?(?P<id>[0-9a-f]{12})(_.*)?")
_RATE = re.compile(r"(?P<count>[1-9][0-9]{0,8})/(?P<unit>s|m|h|d)")
_SPAN = re.compile(r"(?P<count>[1-9][0-9]{0,5})(?P<unit>s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_COLUMNS = "id, name, scopes, models, rate, created, made_by, expires, revoked"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key. The key itself is known to nobody but whoever was given it."""

    id: str
    name: str
    scopes: tuple[str, ...]
    #: The models that it is for; empty for all.
    models: tuple[str, ...] = ()
    #: How often it may call: ``100/s``, ``6000/m``; "" for no limit.
    rate: str = ""
    created: str
    by: str
    expires: str | None = None
    revoked: str | None = None


def digest_of(secret: str) -> str:
    """What is kept of a key's secret.

    One round of SHA-256 is enough, without salt: passwords need slow hashes because people choose them, so that they
    can be guessed; of 256 random bits no two are alike and none is ever guessed, however fast the hash.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def parse(text: str) -> tuple[str, str] | None:
    """The id and the secret of a key as it travels, ``my_<id>_<secret>``; None for what is no key."""
    found = _KEY.fullmatch(text)
    return found.group("id", "secret") if found else None  # type: ignore[return-value]  # both groups take part


def read_rate(text: str) -> tuple[int, int]:
    """``100/s`` as calls and seconds. Raises InvalidInput."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise InvalidInput.at("rate", "calls in a second, minute, hour or day, like 100/s or 6000/m", shown(text))
    return int(found["count"]), _SECONDS[found["unit"]]


def read_expiry(text: str) -> str:
    """When a key given ``30d``, ``12h``, or a moment, expires. Raises InvalidInput for what is no time to come."""
    span = _SPAN.fullmatch(text)
    if span is not None:
        return stamp(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=int(span["count"]) * _SECONDS[span["unit"]]))
    try:
        moment = read_moment(text)
    except InvalidInput:
        moment = ""
    if moment <= now():
        raise InvalidInput.at("expires", "a time to come, like 30d, 12h or 2030-01-31", shown(text))
    return moment


class Keys:
    """The keys of a registry. Each change is a row of the history, so that servers notice."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        *,
        scopes: Iterable[str] = ("predict",),
        models: Iterable[str] = (),
        rate: str = "",
        expires: str = "",
    ) -> tuple[Key, str]:
        """A new key, and its text: the only time that anybody sees it.

        Raises InvalidInput for what does not fit, Conflict where another key has the name.
        """
        check_name(name, "key name")
        chosen = tuple(dict.fromkeys(scopes))
        for scope in chosen:
            if scope not in SCOPES:
                raise InvalidInput.at("scope", f"one of {', '.join(SCOPES)}", shown(scope))
        if not chosen:
            raise InvalidInput.at("scope", f"at least one of {', '.join(SCOPES)}", "none")
        if rate:
            read_rate(rate)
        key = Key(
            id=secrets.token_hex(6),
            name=name,
            scopes=chosen,
            models=tuple(dict.fromkeys(check_name(model) for model in models)),
            rate=rate,
            created=now(),
            by=author(),
            expires=read_expiry(expires) if expires else None,
        )
        secret = secrets.token_urlsafe(32)
        with self._database.write() as work:
            if work.row("SELECT id FROM api_keys WHERE name = ? AND revoked IS NULL", name):
                raise Conflict(
                    f"there is a key of this name: {name}",
                    hint=f"choose another name, or `modelyard keys revoke {name}` first",
                )
            work.do(
                f"INSERT INTO api_keys ({_COLUMNS}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                key.id, key.name, ",".join(key.scopes), ",".join(key.models), key.rate, key.created, key.by,
                key.expires, None, digest_of(secret),
            )  # fmt: skip
            _note(work, "create_key", key)
        return key, f"my_{key.id}_{secret}"

    def revoke(self, which: str) -> Key:
        """End the key of this id or name. Raises NotFound."""
        found = _ID.fullmatch(which)
        with self._database.write() as work:
            living = {key.id: key for key in map(_key, _living(work))}
            key = living.get(found["id"]) if found else None
            if key is None:
                key = next((key for key in living.values() if key.name == which), None)
            if key is None:
                said = which if parse(which) is None else which[:15]  # what was typed in whole is a secret
                raise NotFound.among("key", said, [key.name for key in living.values()])
            key = msgspec.structs.replace(key, revoked=now())
            work.do("UPDATE api_keys SET revoked = ? WHERE id = ?", key.revoked, key.id)
            _note(work, "revoke_key", key)
        return key

    def list(self, *, revoked: bool = False) -> list[Key]:
        """The keys, oldest first: those that were not revoked, or all."""
        with self._database.read() as work:
            rows = work.rows(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created, id") if revoked else _living(work)
        return [_key(row) for row in rows]

    def digests(self) -> dict[str, tuple[Key, str]]:
        """Each key that was not revoked, by its id, and the digest of its secret."""
        with self._database.read() as work:
            return {row["id"]: (_key(row), row["digest"]) for row in _living(work)}


def _living(work: Work) -> list[Row]:
    return work.rows(f"SELECT {_COLUMNS}, digest FROM api_keys WHERE revoked IS NULL ORDER BY created, id")


def _note(work: Work, action: str, key: Key) -> None:
    journal.write(work, action, "", detail=f"{key.name} ({key.id})")


def _key(row: Row) -> Key:
    return Key(
        id=row["id"], name=row["name"], scopes=_words(row["scopes"]), models=_words(row["models"]), rate=row["rate"],
        created=row["created"], by=row["made_by"], expires=row["expires"], revoked=row["revoked"],
    )  # fmt: skip


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
