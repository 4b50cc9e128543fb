"""Evidence: all that a rollout's guard knows, as sums of the tallies that were folded in.

The sums are kept by the candidate's share of what both arms got, because that is what a bad event's arm is judged by:
the chance with which a coin gave it to the candidate. Within a share, order does not matter.
"""

from __future__ import annotations

import msgspec

from modelyard.registry.tallies import Counts, Pairs

#: Points of the curve; when there are more, every second one goes.
POINTS = 120


class Stratum(msgspec.Struct, frozen=True, omit_defaults=True):
    """What both arms did while one share was in force."""

    stable: Counts = Counts()
    candidate: Counts = Counts()

    def plus(self, stable: Counts, candidate: Counts) -> Stratum:
        return Stratum(self.stable.plus(stable), self.candidate.plus(candidate))


class Clock(msgspec.Struct, frozen=True, array_like=True):
    """How long one recorder has counted in the present stage, by the differences of its own moments."""

    last: str
    seconds: float


class Point(msgspec.Struct, frozen=True, array_like=True):
    """Where the evidence stood: the logarithm of each guard's, less that of what it takes to roll back."""

    moment: str
    #: To the candidate.
    requests: int
    logs: dict[str, float]


class Restart(msgspec.Struct, frozen=True):
    """Where a guard began to bet anew, for the n-th time: what had been seen by then."""

    number: int
    strata: dict[str, Stratum]
    pairs: Pairs


class Exposure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the candidate served to callers, and how much of it was bad."""

    requests: int = 0
    #: Errors and invalid outputs.
    bad: int = 0
    slow: int = 0
    #: As far as the truth is known.
    wrong: int = 0


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was folded in up to the rollout's position. A value: whoever changes it makes another."""

    #: By the share, as ``share_key`` writes it; ``COPIED`` follows where the candidate got copies.
    strata: dict[str, Stratum] = {}
    #: Requests, and labels, of a shadow's stage that wait until there are some of the other arm.
    waiting: dict[str, Stratum] = {}
    #: Answers of shadows beside those that were given.
    pairs: Pairs = Pairs()
    #: The last new bet of each guard that has made one.
    restarts: dict[str, Restart] = {}
    exposure: Exposure = Exposure()
    #: Requests of the present stage: to the stable version and to the candidate.
    stable: int = 0
    candidate: int = 0
    clocks: dict[str, Clock] = {}
    #: Why the candidate cannot be served, where a server said so.
    failed: str = ""
    #: Seconds that somebody has watched since the candidate was promoted.
    watched: float = 0.0
    curve: list[Point] = []

    @property
    def seconds(self) -> float:
        """How long the present stage has had traffic."""
        return max((clock.seconds for clock in self.clocks.values()), default=0.0)

    def at_new_stage(self) -> Evidence:
        """The same evidence, with nothing seen of the stage that begins."""
        clocks = {source: Clock(clock.last, 0.0) for source, clock in self.clocks.items()}
        return msgspec.structs.replace(self, stable=0, candidate=0, clocks=clocks)

    def with_point(self, point: Point) -> Evidence:
        """The same with one more point of the curve, thinned where there are too many."""
        curve = [*self.curve, point]
        if len(curve) > POINTS:
            curve = [*curve[1:-1:2], curve[-1]]
        return msgspec.structs.replace(self, curve=curve)


#: What follows the share of those that were copies: a copy waits for its turn, so that its time tells nothing.
COPIED = " copied"


def share_key(share: float) -> str:
    return f"{share:.6g}"


def share_of(key: str) -> float:
    return float(key.removesuffix(COPIED))
