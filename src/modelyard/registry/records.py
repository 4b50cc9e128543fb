"""What the registry keeps, as records, and the rules for names and references."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec

from modelyard import settings
from modelyard.errors import InvalidInput

#: The alias that a bare name means, and that the first version of a model gets.
PRODUCTION = "production"

#: No version has a higher number: the databases' integers end here.
LARGEST_NUMBER = 2**31 - 1

NAME_RULE = "1 to 100 of a-z, A-Z, 0-9, '.', '_', '-', the first a letter or a digit"
ALIAS_RULE = "1 to 100 of a-z, A-Z, 0-9, '.', '_', '-', the first a letter"
REFERENCE_RULE = "name, name:number, name@alias or name@sha256:digest (12 hexadecimal digits or more)"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
_REFERENCE = re.compile(
    r"(?P<name>[^:@]*)(:(?P<number>[0-9]{1,9})|@sha256:(?P<digest>[0-9a-f]{12,64})|@(?P<alias>[^:@]*))?"
)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle registered under a model. ``aliases`` and ``tags`` are those at the time of asking."""

    model: str
    number: int
    #: The bundle's digest.
    digest: str
    #: The digest of the OCI image that holds the bundle in the store.
    image: str
    #: When it was registered: ISO 8601, UTC.
    created: str
    by: str
    task: str
    #: Bytes of the image and of what lies beside it.
    size: int
    metrics: dict[str, Any] = {}
    provenance: dict[str, Any] = {}
    tags: dict[str, str] = {}
    aliases: tuple[str, ...] = ()
    #: True from ``register`` where the same bundle had this version already.
    existing: bool = False
    #: When it was deleted; only ``live_at`` returns such a version.
    deleted: str | None = None

    @property
    def ref(self) -> str:
        """What names exactly this version: ``churn:4``."""
        return f"{self.model}:{self.number}"


class Change(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One row of the history.

    ``action`` is register, attach, promote, rollback, delete, tag, untag, route, unroute, rollout or redact; rules,
    silence, unsilence or acknowledge; or create_key or revoke_key, of no model.
    ``from_`` and ``to`` are version numbers: where an alias pointed before and after, or the version that appeared
    (``to``) or went (``from_``).
    """

    id: int
    #: ISO 8601 in UTC with microseconds; never earlier than the change before.
    when: str
    who: str
    action: str
    model: str
    alias: str | None = None
    from_: int | None = None
    to: int | None = None
    why: str = ""
    #: The bundle's digest, ``key=value`` of a tag, the names of the files that were attached, or of a key; the arms of
    #: a route, what a rollout did.
    detail: str = ""
    #: False where there was nothing to change; then nothing was written and ``id`` is the newest change's.
    moved: bool = True


class Reference(msgspec.Struct, frozen=True):
    """What a text like ``churn@production`` asks for. At most one of the last three is set."""

    name: str
    number: int | None = None
    alias: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: Any) -> Reference:
        """Read ``churn``, ``churn:4``, ``churn@production`` or ``churn@sha256:…``. Raises InvalidInput."""
        found = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise InvalidInput.at("reference", REFERENCE_RULE, shown(text))
        name, number, digest, alias = found.group("name", "number", "digest", "alias")
        check_name(name)
        if alias is not None:
            check_alias(alias)
        return cls(name, None if number is None else int(number), alias, digest and f"sha256:{digest}")


def check_name(name: Any, what: str = "model name") -> str:
    """``name`` as it is. Raises InvalidInput with the rule where no model may be called that."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput.at(what, NAME_RULE, shown(name))
    return name


def check_alias(alias: Any) -> str:
    """``alias`` as it is. Raises InvalidInput with the rule where no alias may be called that."""
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise InvalidInput.at("alias", ALIAS_RULE, shown(alias))
    return alias


def check_tag(key: Any, value: Any) -> None:
    """Raises InvalidInput where ``key`` is no name, or ``value`` is too long or no clean text."""
    if not isinstance(key, str) or not _NAME.fullmatch(key):
        raise InvalidInput.at("tag", NAME_RULE, shown(key))
    check_text(f"value of tag {key}", value, 1000)


def check_number(number: Any) -> int:
    """``number`` as it is. Raises InvalidInput where it is no whole number."""
    if type(number) is not int:
        raise InvalidInput.at("version", "a whole number", shown(number))
    return number


def check_text(what: str, text: Any, limit: int = 10_000) -> str:
    """``text`` as it is. Raises InvalidInput where no database could keep it."""
    if not isinstance(text, str):
        raise InvalidInput.at(what, "a text", shown(text))
    if len(text) > limit:
        raise InvalidInput.at(what, f"at most {limit} characters", str(len(text)))
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidInput.at(what, "text without NUL and half characters", shown(text))
    return text


def shown(value: object) -> str:
    """``value`` as Python writes it, shortened, for a message."""
    quoted = repr(value)
    return quoted if len(quoted) <= 60 else f"{quoted[:57]}… ({len(str(value))} characters)"


_acting: ContextVar[str] = ContextVar("acting", default="")


@contextmanager
def acting(who: str) -> Iterator[None]:
    """What happens inside is done for ``who``, as history will say; "" for whoever runs this process."""
    token = _acting.set(who)
    try:
        yield
    finally:
        _acting.reset(token)


def author() -> str:
    """Who history says it was; what no database could keep of the name is replaced."""
    return (_acting.get() or settings.who()).encode("utf-8", "replace").decode().replace("\0", "?")


def now() -> str:
    """This moment as history writes it: UTC with microseconds, so that order of text is order of time."""
    return stamp(dt.datetime.now(dt.UTC))


def stamp(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read_moment(moment: str | dt.datetime) -> str:
    """A moment as history writes it, from ISO 8601 text or a datetime; without a zone it is UTC.

    A date alone means its first instant. Raises InvalidInput.
    """
    try:
        given = dt.datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        return stamp(given if given.tzinfo else given.replace(tzinfo=dt.UTC))
    except (ValueError, OverflowError):
        raise InvalidInput.at(
            "moment", "an ISO 8601 date or time, like 2026-11-23T10:00:00Z", shown(str(moment))
        ) from None
