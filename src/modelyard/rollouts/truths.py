"""Labels as evidence: what turned out to be true of the predictions of each arm, as tallies of their own.

They are written in the transaction that counts the labels, so that each counts once, whoever is killed when. As with
everything that is counted, a request is one toss of the coin, and its first row speaks for it; where a key makes
clients stick, a client is one, by its first label. Those clients are remembered in a row that all machines share.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import msgspec

from modelyard.registry import decisions, routes, states, tallies
from modelyard.registry.database import Work
from modelyard.registry.decisions import LABELLED
from modelyard.registry.joined import Joined
from modelyard.registry.plans import SHADOW, Plan
from modelyard.registry.records import now
from modelyard.registry.tallies import Counts, Labels, Pairs, Tally
from modelyard.rollouts.clients import Clients, Followed

#: Who the tallies say counted them.
SOURCE = "labels"

#: Events of a client.
_LABEL, _PAIR = 1, 2

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Followed).decode

#: A revision of a route.
_Way = tuple[str, str, int]


class Truths:
    """Writes tallies of labels (a ``registry.joined.Tell``)."""

    def __init__(self) -> None:
        #: The rollout of each revision, which never changes; None for a route that is none's.
        self._rollouts: dict[_Way, int | None] = {}

    def __call__(self, work: Work, model: str, joined: Sequence[Joined]) -> None:
        ways: dict[_Way, list[Joined]] = {}
        for each in joined:
            if each.revision and not each.is_pinned and each.prediction in (each.request, f"{each.request}.0"):
                ways.setdefault((model, each.alias, each.revision), []).append(each)
        found: dict[int, list[tuple[int, list[Joined]]]] = {}
        for way, some in sorted(ways.items()):
            if (number := self._rollout(work, way)) is not None:
                found.setdefault(number, []).append((way[2], some))
        for number, revisions in found.items():
            rollout = decisions.find(work, number)
            if not rollout.ended:
                _write(work, model, number, rollout.plan, revisions)

    def _rollout(self, work: Work, way: _Way) -> int | None:
        if way not in self._rollouts:
            route = routes.of_revision(work, *way)
            self._rollouts[way] = None if route is None else route.rollout
        return self._rollouts[way]


def is_wrong(plan: Plan, joined: Joined) -> bool:
    """Whether a label speaks against a prediction, by the rollout's plan."""
    if plan.outcome:
        return joined.label != plan.outcome
    if plan.miss is not None:
        return not abs(float(joined.predicted) - float(joined.label)) <= plan.miss  # NaN is wrong, too
    return joined.predicted != joined.label


def _write(work: Work, model: str, rollout: int, plan: Plan, revisions: Iterable[tuple[int, list[Joined]]]) -> None:
    text = states.read(work, LABELLED, model, str(rollout)) if plan.is_sticky else None
    clients = Clients(_decode(base64.b64decode(text)) if text else None)
    for revision, joined in revisions:
        arms: dict[str, Labels] = {}
        answers: dict[tuple[str, bool], Joined] = {}
        for each in joined:
            is_shadow = each.arm == SHADOW
            answers[each.prediction, is_shadow] = each
            name = f"{each.client} {SHADOW}" if is_shadow else each.client
            if not each.client or clients.fresh(name, _LABEL):
                more = Labels(1, int(is_wrong(plan, each)))
                arms[each.arm] = arms.get(each.arm, Labels()).plus(more)
        pairs = Pairs()
        for (prediction, is_shadow), live in answers.items():
            shadow = answers.get((prediction, True))
            if is_shadow or shadow is None or (live.client and not clients.fresh(live.client, _PAIR)):
                continue
            wrong = is_wrong(plan, live), is_wrong(plan, shadow)
            pairs = pairs.plus(Pairs(0, 0, int(wrong == (False, True)), int(wrong == (True, False))))
        if arms or pairs != Pairs():
            tallies.insert(work, Tally(
                rollout=rollout, revision=revision, source=SOURCE, sequence=tallies.last(work, rollout, SOURCE) + 1,
                moment=now(), arms={arm: Counts(labels=labels) for arm, labels in arms.items()},
                pairs=pairs if pairs != Pairs() else None,
            ))  # fmt: skip
    if plan.is_sticky:
        states.put(work, LABELLED, base64.b64encode(_encode(clients.state())).decode(), model, str(rollout))
