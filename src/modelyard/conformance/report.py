"""What became of each rule."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import msgspec


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, and whether the server keeps it; ``reason`` says what came instead, or why it was not asked."""

    id: str
    outcome: Literal["pass", "fail", "skipped"]
    severity: Literal["must", "should"]
    asks: str
    why: str
    reason: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The outcomes of all rules of a protocol."""

    protocol: str
    url: str
    model: str
    outcomes: list[Outcome]

    @property
    def passed(self) -> bool:
        """Whether the server keeps all rules that are a must, as far as they could be asked."""
        return not any(each.outcome == "fail" and each.severity == "must" for each in self.outcomes)

    @property
    def broken(self) -> list[Outcome]:
        """The rules that the server breaks."""
        return [each for each in self.outcomes if each.outcome == "fail"]

    @property
    def counts(self) -> dict[str, int]:
        """How many rules passed, failed and were skipped."""
        found = Counter(each.outcome for each in self.outcomes)
        return {"pass": found["pass"], "fail": found["fail"], "skipped": found["skipped"]}

    def plain(self) -> dict[str, Any]:
        """All of it as plain values."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return {**told, "passed": self.passed, "counts": self.counts}
