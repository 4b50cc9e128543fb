"""The gate: who may call what, and how often. It is asked once for each distinct head of a request, not per request.

A call of the scope ``open`` is for everybody. Where keys are wanted, any other needs one that allows its scope; every
key allows ``any``. With an admin port, calls of the scope ``admin`` are answered there and nowhere else; in production,
whatever describes models or the server counts as ``admin``.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hmac
import ipaddress
from collections.abc import Callable, Mapping
from math import ceil, inf
from time import monotonic, time
from typing import Any

from modelyard.errors import ModelyardError, RateLimited, Refused, Unauthenticated
from modelyard.messages import Call
from modelyard.registry.keys import Key, digest_of, parse, read_rate
from modelyard.serving.calls import Exchange
from modelyard.serving.keyring import Digests, Keyring
from modelyard.serving.metrics import Metrics
from modelyard.serving.routing import Endpoint, Refusing, Router
from modelyard.settings import Chosen
from modelyard.telemetry import Log

_NO_KEY = "this server wants an API key"
_BAD_KEY = "no such API key, or it was revoked, or it has expired"
_HOW = "send one as `Authorization: Bearer KEY`, or as `X-API-Key: KEY`"


class Bucket:
    """How often a key may call: a full one holds ``calls``, and as many run in anew within ``seconds``."""

    def __init__(self, calls: float, seconds: float) -> None:
        self._each = seconds / calls
        self._slack = max(seconds - self._each, 0.0)
        #: When the bucket will be full again, if nothing is taken until then.
        self._full_at = -inf

    def take(self) -> None:
        """Take one call. Raises RateLimited where there is none."""
        now = monotonic()
        full_at = max(self._full_at, now)
        missing = full_at - now - self._slack
        if missing > 1e-9:
            raise RateLimited(
                "this key has used up its calls for now",
                hint=f"try again in {missing:.3g} seconds",
                retry_after=max(1, ceil(missing)),
            )
        self._full_at = full_at + self._each


class Grant:
    """A key in use."""

    def __init__(self, key: Key, digest: str, router: Router, share: int) -> None:
        self.key = key
        self.digest = digest
        #: Finds the endpoints that the key may know of.
        self.router = router
        self.expires = dt.datetime.fromisoformat(key.expires).timestamp() if key.expires else inf
        calls, seconds = read_rate(key.rate) if key.rate else (0, 0)
        # A rate below the number of processes still lets one call through each.
        self.bucket = Bucket(max(calls / share, 1.0), seconds * max(share / calls, 1.0)) if calls else None

    def allows(self, scope: str) -> bool:
        return scope == "any" or scope in self.key.scopes or "admin" in self.key.scopes


class Limited(Endpoint):
    """An endpoint for callers whose key has a rate."""

    def __init__(self, inner: Endpoint, bucket: Bucket, metrics: Metrics, log: Log) -> None:
        super().__init__(inner.wire, inner.call, metrics, log)
        self.is_refusing = inner.is_refusing
        self._inner = inner
        self._bucket = bucket

    def accept(self, exchange: Exchange, body: Any, headers: Mapping[str, str]) -> None:
        try:
            self._bucket.take()
        except RateLimited as error:
            Refusing(self.wire, self.call, error, self._metrics, self._log).accept(exchange, b"", headers)
        else:
            exchange.endpoint = self._inner
            self._inner.accept(exchange, body, headers)


class Gate:
    """Finds endpoints as ``router`` does, for those who may have them. Used on the loop's thread only.

    ``narrow`` makes a router over what a key for some models may know of. The keys are those of ``registry``.
    """

    def __init__(
        self,
        chosen: Chosen,
        registry: Any,
        router: Router,
        narrow: Callable[[tuple[str, ...]], Router],
        metrics: Metrics,
        log: Log,
    ) -> None:
        self._wants_keys: bool = chosen.keys
        self._has_admin_port: bool = chosen.admin_port > 0
        self._is_production: bool = chosen.production
        #: Processes among which a key's rate is divided.
        self._share: int = chosen.workers
        self._router = router
        self._narrow = narrow
        self._metrics = metrics
        self._log = log
        self._narrowed: dict[tuple[str, ...], Router] = {}
        self._grants: dict[str, Grant] = {}
        self._keyring = Keyring(registry, chosen.poll_seconds, self._publish, log)
        self._loop: asyncio.AbstractEventLoop
        self._changed: Callable[[], None]

    @staticmethod
    def is_needed(chosen: Chosen) -> bool:
        """Whether any of the settings asks for a gate."""
        return bool(chosen.keys or chosen.admin_port or chosen.production)

    def start(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        """Read the keys and follow them; tell ``changed``, on the loop's thread, when endpoints are to be found anew.

        Raises where the registry does not answer.
        """
        self._loop = loop
        self._changed = changed
        if self._wants_keys:
            self._keyring.start()
            self._watch()

    def move(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on on another loop; the one before is gone."""
        self._loop = loop
        if self._wants_keys:
            self._watch()

    def stop(self) -> None:
        """Stop following the keys."""
        self._keyring.stop()

    def forget(self) -> None:
        """Find every endpoint anew."""
        for router in self._narrowed.values():
            router.forget()

    def _publish(self, digests: Digests) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._take_over, digests)

    def _take_over(self, digests: Digests) -> None:
        """From here on these keys hold, and no others."""
        before, self._grants = self._grants, {}
        for id, (key, digest) in digests.items():
            known = before.pop(id) if id in before else Grant(key, digest, self._router_for(key.models), self._share)
            self._grants[id] = known
        self._changed()

    def _watch(self) -> None:
        """Once a second: end the keys whose time is over."""
        now = time()
        over = [id for id, grant in self._grants.items() if grant.expires <= now]
        for id in over:
            del self._grants[id]
        if over:
            self._changed()
        self._loop.call_later(1.0, self._watch)

    def find(self, method: str, path: str, headers: Mapping[str, str], is_admin_port: bool) -> Endpoint:
        """The endpoint for a method, a path and a caller. One that refuses if there is none, or none for them."""
        endpoint = self._router.find(method, path)
        call = endpoint.call
        if call is not None:
            scope = self._scope(call)
            if scope == "open":
                return endpoint
            if self._has_admin_port and (scope == "admin") != is_admin_port:
                return self._router.missing(path)
            if self._is_production and scope == "admin" and not self._wants_keys and not is_admin_port:
                return self._refuse(endpoint, Refused("this is for those who run the server: ask on the admin port"))
        if not self._wants_keys:
            return endpoint
        try:
            grant = self._recognise(headers)
        except Unauthenticated as error:
            return self._refuse(endpoint, error)
        if grant.router is not self._router:
            endpoint = grant.router.find(method, path)
            call = endpoint.call
        if call is not None and not grant.allows(self._scope(call)):
            return self._refuse(endpoint, _beyond(grant.key, self._scope(call)))
        if grant.bucket is not None:
            return Limited(endpoint, grant.bucket, self._metrics, self._log)
        return endpoint

    def _scope(self, call: Call) -> str:
        if self._is_production and call.action != "predict" and (call.scope == "predict" or call.action == "version"):
            return "admin"  # it describes models, or the server
        return call.scope

    def _recognise(self, headers: Mapping[str, str]) -> Grant:
        """The grant of the key that came with a request. Raises Unauthenticated."""
        given = headers.get("authorization", "")
        scheme, _, text = given.partition(" ")
        if scheme.lower() != "bearer":
            text = headers.get("x-api-key", "")
        if not text:
            raise unauthenticated(_NO_KEY)
        parts = parse(text.strip())
        grant = self._grants.get(parts[0]) if parts else None
        if parts is None or grant is None or not hmac.compare_digest(digest_of(parts[1]), grant.digest):
            raise unauthenticated(_BAD_KEY)
        if grant.expires <= time():
            raise unauthenticated(_BAD_KEY)
        return grant

    def _router_for(self, models: tuple[str, ...]) -> Router:
        """The router for keys of some models, over a catalog that has no others."""
        if not models:
            return self._router
        if models not in self._narrowed:
            self._narrowed[models] = self._narrow(models)
        return self._narrowed[models]

    def _refuse(self, endpoint: Endpoint, error: ModelyardError) -> Refusing:
        return Refusing(endpoint.wire, endpoint.call, error, self._metrics, self._log)


def unauthenticated(message: str) -> Unauthenticated:
    told = "Bearer" if message == _NO_KEY else 'Bearer error="invalid_token"'
    return Unauthenticated(message, hint=_HOW, headers={"www-authenticate": told})


def _beyond(key: Key, scope: str) -> Refused:
    return Refused(
        f"this key does not allow calls of the scope {scope}: it allows {', '.join(key.scopes)}",
        hint=f"modelyard keys create NAME --scope {','.join((*key.scopes, scope))}",
    )


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def check_exposure(address: str, chosen: Chosen) -> None:
    """Raise Refused where a server would be open to everybody who reaches ``address``, and nobody said so."""
    if is_loopback(address) or chosen.keys or chosen.tls_clients or chosen.public:
        return
    raise Refused(
        f"whoever reaches {address} could call this server: it wants neither keys nor certificates of clients",
        hint="modelyard serve ... --keys      (and `modelyard keys create NAME` for each caller)\n"
        "modelyard serve ... --public    (where something in front of it decides who may call)",
    )
