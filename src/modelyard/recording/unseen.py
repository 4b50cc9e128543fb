"""The most frequent of the texts that a reference did not have, in bounded memory."""

from __future__ import annotations

from modelyard.registry.windows import LONGEST_UNSEEN, MOST_UNSEEN

#: Texts that one window names, of all its fields together.
MOST_NAMED = 64


class Unseen:
    """Counts of texts by field. How many unseen ones there were is counted elsewhere, exactly.

    Where there are more distinct texts than room, a new one takes from the counts of all the others (Misra and Gries,
    1982): what stays is frequent, and its count is at most what it would be, and short of that by the same for all.
    """

    def __init__(self, fields: int, hidden: frozenset[str] = frozenset()) -> None:
        #: Fields whose texts may not be told.
        self._hidden = hidden
        self._most = max(2, min(MOST_UNSEEN, MOST_NAMED // max(1, fields)))
        self._fields = MOST_NAMED // self._most
        self._counts: dict[str, dict[str, int]] = {}

    def add(self, field: str, text: str, times: int) -> None:
        counts = self._counts.get(field)
        if counts is None:
            if field in self._hidden or len(self._counts) >= self._fields:
                return
            counts = self._counts[field] = {}
        text = text if len(text) <= LONGEST_UNSEEN else f"{text[: LONGEST_UNSEEN - 1]}…"
        if text in counts or len(counts) < self._most:
            counts[text] = counts.get(text, 0) + times
            return
        taken = min(times, *counts.values())
        for other in list(counts):
            counts[other] -= taken
            if not counts[other]:
                del counts[other]
        if times > taken:
            counts[text] = times - taken

    def hide(self, fields: frozenset[str]) -> None:
        """From now on, do not tell the texts of these fields."""
        self._hidden = fields
        for field in fields & self._counts.keys():
            del self._counts[field]

    def told(self) -> dict[str, dict[str, int]]:
        """Field, text, how often."""
        return {field: dict(counts) for field, counts in self._counts.items()}
