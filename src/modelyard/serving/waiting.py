"""What waits for one loaded version: requests in the order in which they came, and those that must run alone."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import perf_counter

from modelyard.serving.calls import Exchange
from modelyard.serving.parts import Parts

#: How often those that wait are looked at for callers who left, in seconds.
SWEEP_SECONDS = 1.0

#: Seconds that it takes, at most, to look at one: of many, more seldom, so that it stays a hundredth of the time.
_PACE = 5e-5


class Waiting:
    """The requests, by the way in which they are to run. Used on the loop's thread."""

    __slots__ = (
        "_look_at", "_sweep_at", "apart", "is_parts_turn", "parted", "requests", "rows", "soonest", "suspects",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests: list[Exchange] = []
        #: Of these requests in all.
        self.rows = 0
        #: No deadline of theirs is earlier.
        self.soonest = inf
        #: Requests of a call that failed, to be run one by one; and those of one under which a model process ended.
        self.apart: list[Exchange] = []
        self.suspects: list[Exchange] = []
        #: Requests that run in parts and wait for the next; others run between two parts.
        self.parted: list[Parts] = []
        self.is_parts_turn = False
        self._look_at = self._sweep_at = 0.0

    def __len__(self) -> int:
        return len(self.requests) + len(self.apart) + len(self.suspects) + len(self.parted)

    def take_parts(self) -> Parts | None:
        """The request whose next part is to run now, if it is the turn of one: they take turns with whole requests."""
        if self.parted and (self.is_parts_turn or not (self.requests or self.apart or self.suspects)):
            return self.parted.pop(0)
        self.is_parts_turn = True
        return None

    def take(self, most: int, several: str) -> tuple[list[Exchange], str]:
        """The requests of the next call, with no more rows than ``most`` but for a single one, and why it holds these:
        ``several`` where it is more than one. Empty where none waits.
        """
        if self.suspects:
            return [self.suspects.pop()], "suspect"
        if self.apart:
            return [self.apart.pop()], "apart"
        requests = self.requests
        self.requests = []
        if len(requests) == 1:
            self.rows = 0
            return requests, "alone"
        if self.rows > most:
            rows = requests[0].request.rows
            for i in range(1, len(requests)):
                more = requests[i].request.rows
                if rows + more > most:
                    self.requests = requests[i:]
                    self.rows -= rows
                    return requests[:i], "full"
                rows += more
        self.rows = 0
        return requests, several

    def look(self, is_wanted: Callable[[Exchange, float], bool]) -> None:
        """Drop what nobody waits for any more, if it is time to look; to be called often.

        ``is_wanted(exchange, now)`` tells, and refuses or forgets the request where nobody does.
        """
        now = perf_counter()
        if now >= self._sweep_at or (self.soonest <= now and now >= self._look_at):
            pace = len(self.requests) * _PACE
            self._look_at, self._sweep_at = now + pace, now + max(SWEEP_SECONDS, pace)
            # What an answer lets in is appended meanwhile, and looked at too.
            self.requests = [exchange for exchange in self.requests if is_wanted(exchange, now)]
            self.rows = sum([exchange.request.rows for exchange in self.requests])
            self.note_deadlines()
        if self.apart:
            self.apart = [exchange for exchange in self.apart if is_wanted(exchange, now)]
        if self.suspects:
            self.suspects = [exchange for exchange in self.suspects if is_wanted(exchange, now)]
        if self.parted:
            self.parted = [parts for parts in self.parted if is_wanted(parts.exchange, now)]

    def note_deadlines(self) -> None:
        """Find ``soonest`` anew."""
        self.soonest = min([exchange.deadline for exchange in self.requests], default=inf)
