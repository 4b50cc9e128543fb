"""Who may come in: visitors with a key where keys are wanted, else whoever sits at this machine.

A key is shown once, at the log-in; what the browser keeps is the name of a session, which this process remembers. A key
that was revoked or has expired ends its sessions. Web pages of others can make no browser act here: cookies are not
sent from elsewhere, and what does not come from our own pages is refused.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlsplit

from modelyard.errors import Refused, Unauthenticated
from modelyard.registry import Registry
from modelyard.registry.keys import Key, digest_of, parse
from modelyard.registry.records import now

#: What the session's cookie is called; how long a session lasts, and how old what is known of keys may be, in seconds.
COOKIE, LASTS, FRESH = "modelyard-session", 12 * 3600.0, 2.0

_HOW = "modelyard keys create NAME --scope admin    (or view, to look only)"


class Visitor(NamedTuple):
    """Who looks. ``name`` is "" where no keys are wanted: then history names whoever runs this process."""

    name: str
    may_act: bool


class Door:
    """Checks keys and remembers sessions. Safe for threads."""

    def __init__(self, registry: Registry, *, wants_keys: bool) -> None:
        self._registry = registry
        self.wants_keys = wants_keys
        self._lock = threading.Lock()
        self._known: Mapping[str, tuple[Key, str]] = {}
        self._read_at = -FRESH
        #: By the session's name: the key's id, and when it ends.
        self._sessions: dict[str, tuple[str, float]] = {}

    def enter(self, text: str) -> str:
        """Begin a session with a key; returns its name. Raises Unauthenticated, Refused."""
        key = self._key(text)
        _visitor(key)
        name = secrets.token_urlsafe(32)
        with self._lock:
            moment = monotonic()
            self._sessions = {s: (k, end) for s, (k, end) in self._sessions.items() if end > moment}
            self._sessions[name] = (key.id, moment + LASTS)
        return name

    def leave(self, session: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(session, None)

    def visitor(self, headers: Mapping[str, str]) -> Visitor:
        """Who sends these headers. Raises Unauthenticated, Refused."""
        if not self.wants_keys:
            return Visitor("", True)
        kind, _, text = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and text:
            return _visitor(self._key(text.strip()))
        return self.of(session_in(headers))

    def of(self, session: str) -> Visitor:
        """Whose session it is. Raises Unauthenticated where it is over."""
        if not self.wants_keys:
            return Visitor("", True)
        with self._lock:
            id, end = self._sessions.get(session, ("", 0.0))
        found = self._keys().get(id) if end > monotonic() else None
        if found is None or _is_over(found[0]):
            raise Unauthenticated("log in with a key", hint=_HOW)
        return _visitor(found[0])

    def _key(self, text: str) -> Key:
        parsed = parse(text)
        if parsed is not None:
            found = self._keys().get(parsed[0])
            if found is None:
                self._read_at = -FRESH  # it may have been made just now
                found = self._keys().get(parsed[0])
            if found is not None and hmac.compare_digest(digest_of(parsed[1]), found[1]) and not _is_over(found[0]):
                return found[0]
        raise Unauthenticated("no such key, or it has ended", hint=_HOW)

    def _keys(self) -> Mapping[str, tuple[Key, str]]:
        if monotonic() - self._read_at > FRESH:
            self._known = self._registry.keys.digests()
            self._read_at = monotonic()
        return self._known


def session_in(headers: Mapping[str, str]) -> str:
    """The session that a browser names; "" for none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def check_origin(headers: Mapping[str, str], *, is_local: bool) -> None:
    """Raise Refused for what pages of others make a browser send. ``is_local``: nobody but this machine is to call, so
    that the name in the address must be its own: a name of somebody else's may lead here too.
    """
    host, origin = headers.get("host", ""), headers.get("origin", "")
    try:
        called, asking = urlsplit(f"//{host}").hostname or "", urlsplit(origin).netloc
    except ValueError:  # neither is an address
        raise Refused(f"no such place: {host[:100]}, for a page of {origin[:100] or 'nobody'}") from None
    if is_local and called not in ("localhost", "127.0.0.1", "::1"):
        raise Refused(f"this console answers at localhost, not at {host[:100]}", hint="open http://localhost:PORT")
    if origin and asking != host:
        raise Refused(f"a page of {origin[:100]} asked for this, and may not")


def _visitor(key: Key) -> Visitor:
    if not {"view", "admin"} & set(key.scopes):
        raise Refused(f"the key {key.name} allows {', '.join(key.scopes)}, and not to look in here", hint=_HOW)
    if key.models:
        raise Refused(f"the key {key.name} is for some models only, and the console shows all", hint=_HOW)
    return Visitor(key.name, "admin" in key.scopes)


def _is_over(key: Key) -> bool:
    return key.expires is not None and key.expires <= now()
