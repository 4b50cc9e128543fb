"""What is left of values that may not be kept."""

from __future__ import annotations

import hashlib
import hmac
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from modelyard.profile import Counts
from modelyard.recording.bins import Texts
from modelyard.registry.redaction import Policy

#: Hexadecimal digits of a hash: enough that no two of a deployment's values are taken for the same.
DIGITS = 32


def hashed(key: bytes, values: Iterable[Any]) -> list[str | None]:
    """A keyed hash (HMAC-SHA256) of each value: without the key nobody can try out which values fit."""
    return [None if value is None or value != value else _hash(key, value) for value in values]


def _hash(key: bytes, value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:DIGITS]


class Buckets:
    """The bins of one column, by name."""

    def __init__(self, part: Counts) -> None:
        self._part = part
        self._texts = Texts(part, 0) if part.kind == "category" else None
        edges = [f"{edge:.6g}" for edge in part.edges]
        highs = [*edges[1:], f"{part.maximum:.6g}"] if part.maximum is not None else []
        self._names = [f"{low} to {high}" for low, high in zip(edges, highs, strict=True)]

    def of(self, values: Iterable[Any]) -> list[str | None]:
        """The bin of each value."""
        return [None if value is None or value != value else self._of(value) for value in values]

    def _of(self, value: Any) -> str:
        part = self._part
        if self._texts is not None:
            if value in part.values:
                return str(value)
            return "unseen" if self._texts.is_unseen(str(value)) else "other"
        place = bisect_right(part.edges, value)
        if part.maximum is None or value > part.maximum:
            return "above" if part.maximum is not None else "unseen"
        return self._names[place - 1] if place else "below"


def removals(policy: Policy | None, columns: Iterable[str]) -> dict[str, str]:
    """Each of these columns that is not kept as it is, and what is done with it."""
    if policy is None:
        return {}
    return {name: action for name in columns if (action := policy.action(name)) != "keep"}
