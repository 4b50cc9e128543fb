"""Whether a clock can be believed: what is deleted by its age is deleted by no clock that has just jumped."""

from __future__ import annotations

from time import monotonic, time

#: Seconds for which the wall clock must have gone as the steady one, and what they may differ by between two looks.
STEADY_SECONDS, SLACK_SECONDS = 600.0, 60.0


class Steadiness:
    """Asked often, it notices a jump; one that was made right again costs no more than the time that follows."""

    def __init__(self) -> None:
        self._gap = time() - monotonic()
        self._since = monotonic()

    def is_given(self) -> bool:
        gap, before = time() - monotonic(), self._gap
        self._gap = gap
        if abs(gap - before) > SLACK_SECONDS:
            self._since = monotonic()
        return monotonic() - self._since >= STEADY_SECONDS
