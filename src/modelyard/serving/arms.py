"""Arms: where several versions share the requests of an alias, each request is given to one of them.

What sticks is hashed together with the route's salt to a point between 0 and 1; the arms divide that line by their
weights, the first from the left. While only the weights change, a client that left the first arm for another comes back
to it only as that arm shrinks. A shadow gets copies beside: its answers go nowhere, and its calls wait for a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from random import random
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.messages import Message, Request
from modelyard.recording.arms import PINNED
from modelyard.serving.calls import Exchange
from modelyard.serving.loading import Loaded
from modelyard.serving.routing import DECODED_ON_LOOP, Endpoint, Predicting

if TYPE_CHECKING:
    from modelyard.interfaces import Wire
    from modelyard.messages import Call
    from modelyard.registry.routes import Arm, Pin, Route
    from modelyard.schema import Field
    from modelyard.serving.metrics import Metrics
    from modelyard.telemetry import Log


class Routed:
    """A route with the loaded versions of its arms; those whose version cannot be served are left out.

    What a live arm would have had that is left out, the first one gets. ``failures`` says why versions are left out.
    """

    def __init__(self, route: Route, versions: Mapping[int, Loaded], failures: Mapping[int, str] | None = None) -> None:
        self.route = route
        self._failures = failures or {}
        there = [(arm, versions[arm.version]) for arm in route.arms if arm.version in versions]
        #: The arms that are given copies; and those that answer, with the point up to which each does.
        self.shadows: list[tuple[Arm, Loaded]] = [each for each in there if each[0].mode == "shadow"]
        self.live = _cumulated([each for each in there if each[0].mode == "live"])

    @property
    def versions(self) -> list[Loaded]:
        """The versions of all its arms."""
        return [loaded for _, loaded, _ in self.live] + [loaded for _, loaded in self.shadows]

    def text(self, arm: Arm) -> str:
        """What notes call an arm: ``production/7/canary``."""
        return f"{self.route.alias}/{self.route.revision}/{arm.name}"

    @property
    def unserved(self) -> list[tuple[str, str]]:
        """The arms of a rollout that are left out, as notes call them, and why."""
        if self.route.rollout is None:
            return []
        failed = (arm for arm in self.route.arms if arm.version in self._failures)
        return [(self.text(arm), self._failures[arm.version]) for arm in failed]

    @property
    def is_plain(self) -> bool:
        """Whether one version answers everything, and nobody watches."""
        return len(self.live) < 2 and not self.shadows and self.route.rollout is None


def _cumulated(live: Sequence[tuple[Arm, Loaded]]) -> list[tuple[Arm, Loaded, float]]:
    """Each arm with the point up to which it answers; the first has what the others leave."""
    point = 1.0 - sum(arm.weight for arm, _ in live[1:])
    found = []
    for number, (arm, loaded) in enumerate(live):
        point += arm.weight if number else 0.0
        found.append((arm, loaded, 1.0 if number == len(live) - 1 else point))
    return found


def point_of(key: str, salt: str) -> float:
    """Where a key falls between 0 and 1, on every machine alike."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=salt.encode()[:64], digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


class Copy(Exchange, gc=False, kw_only=True, eq=False):
    """A request given to a shadow: what it answers goes nowhere."""

    def answer(self, message: Message) -> None:
        """Nobody waits for it."""

    def answer_from_thread(self, message: Message) -> None:
        """Nobody waits for it."""


class _Way(msgspec.Struct, gc=False):
    """An arm on the path of requests."""

    text: str
    point: float
    endpoint: Predicting
    is_pinned: bool = False

    @property
    def pinned(self) -> _Way:
        """The same for requests that a pin sends there."""
        return _Way(f"{self.text}{PINNED}", self.point, self.endpoint, True)


class Parting(Endpoint):
    """Gives each request to one of a route's arms.

    ``bind(loaded, is_shadow)`` makes the endpoint of an arm; ``beside`` runs a function after what is under way, and
    ``later`` in a thread.
    """

    def __init__(
        self,
        wire: Wire,
        call: Call,
        routed: Routed,
        bind: Callable[[Loaded, bool], Predicting],
        beside: Callable[[Callable[[], None]], None],
        later: Callable[[Callable[[], None]], None],
        metrics: Metrics,
        log: Log,
    ) -> None:
        super().__init__(wire, call, metrics, log)
        route = routed.route
        self._ways = [_Way(routed.text(arm), point, bind(loaded, False)) for arm, loaded, point in routed.live]
        self._shadows = [
            (arm.weight, _Way(routed.text(arm), 0.0, bind(loaded, True))) for arm, loaded in routed.shadows
        ]
        self._salt = route.salt
        self._kind, _, self._name = route.key.partition(":")
        if self._kind == "header":
            self._name = self._name.lower()
        names = {arm.name: way for (arm, _, _), way in zip(routed.live, self._ways, strict=True)}
        #: Pins by headers, and those by columns: the rows are only read where no header decides.
        self._headers: list[tuple[str, str, _Way]] = []
        self._columns: list[tuple[str, Callable[[str], bool], _Way]] = []
        fields = {field.name: field for field in routed.live[0][1].signature.inputs}
        for pin in route.pins:
            kind, _, name = pin.key.partition(":")
            if pin.arm in names and kind == "header":
                self._headers.append((name.lower(), pin.value, names[pin.arm].pinned))
            elif pin.arm in names and name in fields:
                self._columns.append((name, fits_of(pin, fields[name]), names[pin.arm].pinned))
        self._beside = beside
        self._later = later
        self.model, self.version = self._ways[0].endpoint.model, ""

    def accept(self, exchange: Exchange, body: Any, headers: Mapping[str, str]) -> None:
        way = self._pinned_by(headers)
        if way is None and (self._kind == "column" or self._columns):
            self._accept_by_column(exchange, body, headers)
            return
        self._give(exchange, way or self._way_of(exchange, self._key_in(headers)), body, headers)

    def _give(self, exchange: Exchange, way: _Way, body: Any, headers: Mapping[str, str]) -> None:
        exchange.arm, exchange.endpoint = way.text, way.endpoint
        way.endpoint.accept(exchange, body, headers)
        for weight, shadow in self._shadows:
            if weight >= 1.0 or random() < weight:
                self._copy(exchange, shadow.pinned if way.is_pinned else shadow, body, headers)

    def _pinned_by(self, headers: Mapping[str, str]) -> _Way | None:
        for name, value, way in self._headers:
            if headers.get(name) == value:
                return way
        return None

    def _key_in(self, headers: Mapping[str, str]) -> str:
        return headers.get(self._name, "") if self._kind == "header" else ""

    def _way_of(self, exchange: Exchange, key: str) -> _Way:
        """The arm of a key; of a request that has none, by chance."""
        if key:
            point = point_of(key, self._salt)
            exchange.client = f"{point:.12f}"  # stands for the key, and does not tell it
        else:
            point = random()
        for way in self._ways:
            if point < way.point:
                return way
        return self._ways[-1]

    def _copy(self, exchange: Exchange, shadow: _Way, body: Any, headers: Mapping[str, str]) -> None:
        copy = Copy(
            id=exchange.id, received=exchange.received, deadline=exchange.deadline, endpoint=shadow.endpoint,
            arm=shadow.text, client=exchange.client,
        )  # fmt: skip
        self._beside(lambda: shadow.endpoint.accept(copy, body, headers))

    # Where a column of the rows decides.

    def _accept_by_column(self, exchange: Exchange, body: Any, headers: Mapping[str, str]) -> None:
        first = self._ways[0].endpoint
        if type(body) is bytes and len(body) > DECODED_ON_LOOP:
            self._later(lambda: first.lane.tell(self._go, exchange, *self._read(first, body, headers), body, headers))
        else:
            self._go(exchange, *self._read(first, body, headers), body, headers)

    def _read(self, first: Predicting, body: Any, headers: Mapping[str, str]) -> tuple[_Way | None, str]:
        """Where the first row of a message is pinned to, and else its key; "" where it has none."""
        key = self._key_in(headers)
        try:
            request = first.codec.decode(body, headers)
            for name, fits, way in self._columns:
                if fits(key_in(request, first.lane.loaded, name)):
                    return way, ""
            return None, key_in(request, first.lane.loaded, self._name) if self._kind == "column" else key
        except Exception:  # whoever gets the request says what is wrong with it
            return None, key

    def _go(self, exchange: Exchange, way: _Way | None, key: str, body: Any, headers: Mapping[str, str]) -> None:
        self._give(exchange, way or self._way_of(exchange, key), body, headers)


def fits_of(pin: Pin, field: Field) -> Callable[[str], bool]:
    """Whether what ``key_in`` says of a row is what a pin by a column means."""
    if not field.is_numeric:
        return lambda text: text == pin.value
    if field.dtype == "bool":
        # Kept as 0 and 1 where values may be missing.
        meant = {"true": ("True", "1.0"), "false": ("False", "0.0")}.get(pin.value.lower(), ())
        return lambda text: text in meant
    from modelyard.registry.routes import bounds_of  # a server of files needs no registry

    least, most = bounds_of(pin)
    return lambda text: bool(text) and least <= float(text) <= most


def key_in(request: Request, loaded: Loaded, name: str) -> str:
    """What the first row of a request has in the column called ``name``, as text; "" where it has none."""
    layout = loaded.signature.input_layout
    place = layout.places.get(name)
    if place is None or not request.rows:
        return ""
    if request.columns is not None:
        value = request.columns[name][0]
    else:
        assert request.tuples is not None
        value = request.tuples[0][layout.blocks[place[0]].start + place[1]]
    return "" if value is None or value != value else str(value)
