"""Pairs: what was answered beside what a shadow answered to the same request, which meet by its id.

Whoever comes first waits some seconds for the other. Those that never meet are given up: a copy that found no room, an
answer that was lost, a pair that a recorder's end has parted.
"""

from __future__ import annotations

import math
from time import monotonic
from typing import Any

#: Seconds that an answer waits for the other, and how many wait at most: of more, the oldest are given up.
PAIR_SECONDS, MOST_WAITING = 10.0, 100_000

#: Numbers nearer to each other than this part of them are the same: runtimes round differently.
_SAME = 1e-6

#: Numbers of an answer that are compared.
MOST_NUMBERS = 64


class Pairing:
    """Answers of one rollout that wait. Numbers differ that are further apart than ``miss``."""

    def __init__(self, miss: float | None) -> None:
        self._miss = miss or 0.0
        self._waiting: dict[tuple[str, bool], tuple[float, Any]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def meet(self, id: str, is_shadow: bool, answer: Any) -> bool | None:
        """Whether the two answers differ; None while there is only one."""
        other = self._waiting.pop((id, not is_shadow), None)
        if other is not None:
            return self._differ(other[1], answer)
        self._waiting[id, is_shadow] = monotonic(), answer
        return None

    def give_up(self) -> None:
        """Forget those that have waited for too long."""
        late = monotonic() - PAIR_SECONDS
        for key, (since, _) in list(self._waiting.items()):
            if since >= late and len(self._waiting) <= MOST_WAITING:
                break
            del self._waiting[key]

    def _differ(self, one: Any, other: Any) -> bool:
        if isinstance(one, list) and isinstance(other, list):
            pairs = zip(one[:MOST_NUMBERS], other[:MOST_NUMBERS], strict=False)
            return len(one) != len(other) or any(self._differ(a, b) for a, b in pairs)
        if isinstance(one, float) and isinstance(other, float):
            if not (math.isfinite(one) and math.isfinite(other)):
                return one != other and not (math.isnan(one) and math.isnan(other))
            return abs(one - other) > max(self._miss, _SAME * max(abs(one), abs(other)))
        return bool(one != other)
