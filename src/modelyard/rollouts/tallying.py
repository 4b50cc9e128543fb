"""Tallies: a recorder's rows, counted for the rollouts whose routes parted the requests, and sent to the registry.

Whose plan a revision of a route is counted by has to be asked of the registry, on a thread that may wait; what comes
meanwhile waits in memory. Were the recorder killed in that moment, it would not be counted, of both arms alike.

Everything else is counted exactly once. What was counted is closed as a numbered tally, the checkpoint that holds the
tally also holds how far the rings were read, and only then it is sent, again and again until the registry has it:
there, its number tells whether it came before. While one is on its way the next is not closed, so that a registry that
is away for long gets a single tally of all that time.
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from modelyard.errors import NotFound
from modelyard.recording.arms import Took, read_arm
from modelyard.recording.flags import Found
from modelyard.recording.frames import Refusal, Unserved
from modelyard.recording.rows import Rows
from modelyard.recording.subject import Subject
from modelyard.registry.plans import Plan
from modelyard.registry.records import now
from modelyard.registry.tallies import Tally
from modelyard.rollouts.clients import Clients, Followed
from modelyard.rollouts.counting import Counting, Open
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.registry import Registry

#: The least seconds between two tallies of a rollout, and until what failed is tried again.
TALLY_SECONDS, RETRY_SECONDS = 0.15, 0.5
#: How often to ask which rollouts have ended.
_LOOK_SECONDS = 5.0
#: Bytes of requests that wait for a plan at most, and revisions that are remembered.
MOST_WAITING, _MOST_WAYS = 64 << 20, 10_000


class Way(msgspec.Struct, array_like=True, frozen=True):
    """One revision of a route."""

    model: str
    alias: str
    revision: int


class _Known(msgspec.Struct, array_like=True, frozen=True):
    """What the registry says of it: the rollout, if one that takes requests made it."""

    way: Way
    rollout: int = 0
    plan: Plan | None = None
    has_shadow: bool = False


class _Kept(msgspec.Struct, array_like=True):
    """What a checkpoint holds of one rollout."""

    rollout: int
    plan: Plan
    ways: list[tuple[Way, bool]]
    sequence: int
    open: dict[int, Open]
    #: Closed, and maybe sent.
    closed: list[Tally]
    clients: Followed


class _State(msgspec.Struct, array_like=True):
    source: str
    rollouts: list[_Kept]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_State).decode


class _Rollout:
    """One rollout that is counted for."""

    def __init__(self, plan: Plan, clients: Clients | None = None) -> None:
        self.counting = Counting(plan, clients)
        self.ways: dict[Way, bool] = {}
        self.sequence = 0
        self.closed: list[Tally] = []
        self.closed_at = 0.0

    def lead(self, way: Way, has_shadow: bool) -> None:
        """A revision of the route leads to this rollout."""
        self.ways[way] = has_shadow
        if has_shadow:
            self.counting.shadowed.add(way.revision)


class Tallying:
    """Counts for all rollouts (a ``recording.consumer.Consumer``)."""

    name = "tallies"

    def __init__(self, registry: Registry, log: Log) -> None:
        self._registry = registry
        self._log = log
        #: Who numbers the tallies; another where no checkpoint tells what was numbered before.
        self._source = f"{os.uname().nodename.partition('.')[0][:40]}-{secrets.token_hex(4)}"
        self._rollouts: dict[int, _Rollout] = {}
        #: The rollout that each revision leads to; None for a route that is none's.
        self._ways: dict[Way, _Rollout | None] = {}
        #: What is to be counted once it is known for whom, and about how many bytes that are.
        self._waiting: dict[Way, list[Callable[[Counting], None]]] = {}
        self._held, self._is_full = 0, False
        # Written on the thread that may wait.
        self._learned: deque[_Known] = deque()
        self._ended: deque[int] = deque()
        self._sent: dict[int, int] = {}
        self._retry_at = self._look_at = 0.0

    # On the recorder's thread.

    @property
    def is_urgent(self) -> bool:
        """Whether there is something to ask, or to send."""
        if not (self._rollouts or self._waiting):
            return False
        at = monotonic()
        is_due = bool(self._waiting) or any(self._is_due(*each, at) for each in self._rollouts.items())
        return is_due and at >= self._retry_at

    def take(self, rows: Rows, found: Found) -> None:
        """Count requests that a route has parted."""
        if rows.arms is None:
            return
        for text in dict.fromkeys(rows.arms):
            took = read_arm(text)
            count = partial(Counting.take, took=took, text=text, rows=rows, found=found)
            self._count(rows.subject.model, took, rows.bytes, count)

    def refuse(self, subject: Subject, refusal: Refusal) -> None:
        """Count a request for which no model was called."""
        took = read_arm(refusal.arm)
        self._count(subject.model, took, 500 + len(refusal.body), partial(Counting.refuse, took=took, refusal=refusal))

    def fail(self, unserved: Unserved) -> None:
        """An arm's version cannot be served."""
        took = read_arm(unserved.arm)
        self._count(unserved.model, took, 500, partial(Counting.fail, took=took, reason=unserved.reason))

    def state(self) -> bytes:
        """What a successor has to know, with what was counted until now as tallies to be sent."""
        self._learn()
        if not self._rollouts:
            return b""
        return _encode(_State(self._source, [self._kept(*each) for each in self._rollouts.items()]))

    def restore(self, state: bytes) -> None:
        """Go on from what a predecessor knew."""
        if not state:
            return
        before = _decode(state)
        self._source = before.source
        for kept in before.rollouts:
            made = self._rollouts[kept.rollout] = _Rollout(kept.plan, Clients(kept.clients))
            made.sequence, made.closed, made.counting.open = kept.sequence, kept.closed, kept.open
            for way, has_shadow in kept.ways:
                made.lead(way, has_shadow)
                self._ways[way] = made

    def _count(self, model: str, took: Took, size: int, count: Callable[[Counting], None]) -> None:
        if not took.revision or took.is_pinned:  # what a pin decides says nothing about the coin
            return
        self._learn()
        way = Way(model, took.alias, took.revision)
        if way in self._ways:
            rollout = self._ways[way]
            if rollout is not None:
                count(rollout.counting)
            return
        if self._held >= MOST_WAITING:
            if not self._is_full:
                self._log.write("warning", "requests are not counted for rollouts: the registry tells of none")
            self._is_full = True
            return
        self._held += size
        self._waiting.setdefault(way, []).append(count)

    def _learn(self) -> None:
        """Take in what was asked for."""
        while self._learned:
            known = self._learned.popleft()
            rollout = None
            if known.plan is not None:
                rollout = self._rollouts.get(known.rollout) or _Rollout(known.plan)
                rollout.lead(known.way, known.has_shadow)
                self._rollouts[known.rollout] = rollout
            if len(self._ways) >= _MOST_WAYS:
                self._ways = {way: there for way, there in self._ways.items() if there is not None}
            self._ways[known.way] = rollout
            for count in self._waiting.pop(known.way, ()):
                if rollout is not None:
                    count(rollout.counting)
            if not self._waiting:
                self._held, self._is_full = 0, False
        while self._ended:
            number = self._ended.popleft()
            if (gone := self._rollouts.pop(number, None)) is not None:
                self._ways |= dict.fromkeys(gone.ways)
                self._sent.pop(number, None)

    def _is_due(self, number: int, rollout: _Rollout, at: float) -> bool:
        waited = at - rollout.closed_at
        if self._unsent(number, rollout):
            return waited >= RETRY_SECONDS
        return bool(rollout.counting.open) and waited >= TALLY_SECONDS

    def _unsent(self, number: int, rollout: _Rollout) -> bool:
        return bool(rollout.closed) and rollout.closed[-1].sequence > self._sent.get(number, 0)

    def _kept(self, number: int, rollout: _Rollout) -> _Kept:
        if not self._unsent(number, rollout):
            rollout.closed = []
            for revision, opened in rollout.counting.close().items():
                rollout.sequence += 1
                rollout.closed.append(Tally(
                    rollout=number, revision=revision, source=self._source, sequence=rollout.sequence, moment=now(),
                    arms=opened.arms, pairs=opened.pairs, failed=opened.failed,
                ))  # fmt: skip
        if rollout.closed:
            rollout.closed_at = monotonic()
        return _Kept(
            number, rollout.counting.plan, list(rollout.ways.items()), rollout.sequence, rollout.counting.open,
            rollout.closed, rollout.counting.clients.state(),
        )  # fmt: skip

    # On the thread that may wait.

    def kept(self, state: bytes) -> None:
        """Ask what is to be known, and send the tallies of a state that is safe."""
        try:
            for way in list(self._waiting):
                self._learned.append(self._ask(way))
            if state:
                self._send(_decode(state))
        except Exception:
            self._retry_at = monotonic() + RETRY_SECONDS
            raise

    def _ask(self, way: Way) -> _Known:
        try:
            route = self._registry.routes.revision(way.model, way.alias, way.revision)
            rollout = self._registry.rollouts.find(route.rollout) if route.rollout is not None else None
        except NotFound:
            return _Known(way)
        if rollout is None or rollout.state not in ("running", "paused"):
            return _Known(way)
        return _Known(way, rollout.id, rollout.plan, any(arm.mode == "shadow" for arm in route.arms))

    def _send(self, state: _State) -> None:
        unsent = [t for kept in state.rollouts for t in kept.closed if t.sequence > self._sent.get(t.rollout, 0)]
        if unsent:
            self._registry.tallies.add(unsent)
            for tally in unsent:
                self._sent[tally.rollout] = max(tally.sequence, self._sent.get(tally.rollout, 0))
        if monotonic() >= self._look_at:
            self._look_at = monotonic() + _LOOK_SECONDS
            active = {each.id for each in self._registry.rollouts.active() if each.state in ("running", "paused")}
            self._ended.extend(kept.rollout for kept in state.rollouts if kept.rollout not in active)
