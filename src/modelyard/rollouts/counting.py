"""Counting what happened to the requests of one rollout: increments of each arm, ready to become tallies.

A request is one toss of the coin that gave it its arm, however many rows it has: its first row speaks for all. Where a
key makes clients stick, a client is one toss, and is counted once for each kind of event (``registry.tallies``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from modelyard.recording.arms import Took
from modelyard.recording.flags import Found
from modelyard.recording.frames import Refusal
from modelyard.recording.rows import Rows
from modelyard.registry.plans import SHADOW, Plan
from modelyard.registry.tallies import Counts, Pairs
from modelyard.rollouts.clients import Clients
from modelyard.rollouts.pairing import MOST_NUMBERS, Pairing
from modelyard.schema import Array, Columns
from modelyard.truth import PREDICTION

#: What a shadow's copy is refused for that does not tell of its version: copies find room only where it is free.
_NOT_ASKED = frozenset({"overloaded", "deadline_passed", "not_ready"})

#: Kinds of events, as bits; a client is counted once for each.
_SEEN, _ERROR, _INVALID, _SLOW50, _SLOW95, _SLOW99, _SCORE, _PAIR = (1 << bit for bit in range(8))


class Open(msgspec.Struct, array_like=True):
    """What was counted of one revision of a route since the last tally."""

    arms: dict[str, Counts] = {}
    pairs: Pairs | None = None
    failed: dict[str, str] = {}


class _Batch(NamedTuple):
    """Requests of one arm, as columns."""

    failed: Array
    invalid: Array
    #: In all, of each request.
    seconds: Array
    #: Which bin the score of each is in; -1 for none.
    bins: Array
    clients: Sequence[str]


class Counting:
    """Counts the requests of one rollout."""

    def __init__(self, plan: Plan, clients: Clients | None = None) -> None:
        self.plan = plan
        self.clients = clients or Clients()
        self.open: dict[int, Open] = {}
        #: Revisions of the route in which a shadow gets copies.
        self.shadowed: set[int] = set()
        self._pairing = Pairing(plan.miss)

    def take(self, took: Took, text: str, rows: Rows, found: Found) -> None:
        """Count those of ``rows`` that took this arm, which its notes call ``text``."""
        assert rows.arms is not None
        mine = np.fromiter((arm == text for arm in rows.arms), bool, rows.requests) & (rows.begins == 0)
        chosen = np.flatnonzero(mine)
        if not len(chosen):
            return
        codes = rows.codes
        failed = np.zeros(len(chosen), bool)
        if codes is not None:
            failed = np.fromiter((codes[i] != "ok" for i in chosen.tolist()), bool, len(chosen))
            if took.arm == SHADOW:
                asked = np.fromiter((codes[i] not in _NOT_ASKED for i in chosen.tolist()), bool, len(chosen))
                chosen, failed = chosen[asked], failed[asked]
        invalid = np.zeros(rows.requests, bool)
        odd = rows.subject.flags.invalid(found)
        if len(odd):
            invalid[rows.request_of[odd]] = True
        clients = rows.clients if self.plan.is_sticky and rows.clients is not None else None
        first = (np.cumsum(rows.sizes) - rows.sizes)[chosen]
        answered = ~failed & (rows.sizes[chosen] > 0)
        batch = _Batch(
            failed, invalid[chosen], rows.stages[chosen, 4], self._bins(rows.outputs, first, answered),
            [clients[i] for i in chosen.tolist()] if clients is not None else (),
        )  # fmt: skip
        self._add(took, self._counts(batch, took.arm))
        if took.revision in self.shadowed and rows.outputs is not None:
            which = chosen[answered].tolist()
            names = [clients[i] if clients is not None else "" for i in which]
            self._pair(took, [rows.ids[i] for i in which], names, _answers(rows.outputs, first[answered]))

    def refuse(self, took: Took, refusal: Refusal) -> None:
        """Count a request for which no model was called."""
        if took.arm == SHADOW and refusal.code in _NOT_ASKED:
            return
        seconds = np.array([refusal.done - refusal.received])
        clients = (refusal.client,) if self.plan.is_sticky else ()
        batch = _Batch(np.ones(1, bool), np.zeros(1, bool), seconds, np.full(1, -1), clients)
        self._add(took, self._counts(batch, took.arm))

    def fail(self, took: Took, reason: str) -> None:
        """An arm's version cannot be served."""
        self._of(took.revision).failed.setdefault(took.arm, reason)

    def close(self) -> dict[int, Open]:
        """Take out what was counted, by revision."""
        self._pairing.give_up()
        taken, self.open = self.open, {}
        return taken

    # -- one batch -----------------------------------------------------------------------------------------------

    def _counts(self, batch: _Batch, arm: str) -> Counts:
        plan, n = self.plan, len(batch.failed)
        slow = [np.zeros(n, bool)] * 3
        if plan.thresholds and arm != SHADOW:  # a copy waits its turn, whatever its version
            slow = [batch.seconds > limit for limit in plan.thresholds]
        bad = int((batch.failed | batch.invalid).sum())
        if not plan.is_sticky:
            events = [int(each.sum()) for each in (batch.failed, batch.invalid, *slow)]
            return _counted(n, 0, events, bad, self._binned(batch.bins))
        columns = [np.ones(n, bool), batch.failed, batch.invalid, *slow, batch.bins >= 0]
        bits = np.packbits(np.array(columns), axis=0, bitorder="little")[0]
        fresh = np.zeros(n, "uint8")
        for place, (events, client) in enumerate(zip(bits.tolist(), batch.clients or [""] * n, strict=True)):
            fresh[place] = self._fresh(client, events, arm)
        found = [int((fresh & bit > 0).sum()) for bit in (_SEEN, _ERROR, _INVALID, _SLOW50, _SLOW95, _SLOW99)]
        return _counted(n, found[0], found[1:], bad, self._binned(batch.bins[fresh & _SCORE > 0]))

    def _fresh(self, client: str, events: int, arm: str) -> int:
        """Requests without a key are clients of their own. A shadow is another coin."""
        if not client:
            return events
        return self.clients.fresh(f"{client} {SHADOW}" if arm == SHADOW else client, events)

    def _binned(self, bins: Array) -> list[int]:
        scores = self.plan.scores
        counts: list[int] = np.bincount(bins[bins >= 0], minlength=scores.bins).tolist() if scores else []
        return counts

    def _bins(self, outputs: Columns | None, first: Array, answered: Array) -> Array:
        scores = self.plan.scores
        bins = np.full(len(first), -1)
        if scores is not None and outputs is not None and scores.field in outputs.layout.by_name:
            bins[answered] = scores.places(outputs[scores.field][first[answered]])
        return bins

    def _pair(self, took: Took, ids: Sequence[str], clients: Sequence[str], answers: Sequence[Any]) -> None:
        is_shadow = took.arm == SHADOW
        n = differ = 0
        for id, client, answer in zip(ids, clients, answers, strict=True):
            differs = self._pairing.meet(id, is_shadow, answer)
            if differs is not None and (not client or self.clients.fresh(client, _PAIR)):
                n, differ = n + 1, differ + differs
        if n:
            there = self._of(took.revision)
            there.pairs = Pairs(n, differ).plus(there.pairs or Pairs())

    def _add(self, took: Took, counts: Counts) -> None:
        arms = self._of(took.revision).arms
        arms[took.arm] = arms[took.arm].plus(counts) if took.arm in arms else counts

    def _of(self, revision: int) -> Open:
        return self.open.setdefault(revision, Open())


def _counted(requests: int, clients: int, events: Sequence[int], bad: int, scores: list[int]) -> Counts:
    errors, invalid, slow50, slow95, slow99 = events
    return Counts(
        requests=requests, clients=clients, errors=errors, invalid=invalid, slow50=slow50, slow95=slow95,
        slow99=slow99, bad=bad, scores=scores,
    )  # fmt: skip


def _answers(outputs: Columns, rows: Array) -> list[Any]:
    """What is compared of the answers in these rows: the prediction, or of a model without one its first output."""
    names = outputs.layout.names
    values = outputs[PREDICTION if PREDICTION in names else names[0]][rows]
    if values.ndim > 1:
        values = values.reshape(len(values), -1)[:, :MOST_NUMBERS]
    return list(values.tolist())
