"""What notes call the arm that a request took: ``production/7/canary``, with the alias and the revision of its route.

Where a pin sent a request there, and no coin, ``:pinned`` follows: what it tells of the arm is not fair evidence.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

#: No arm's name has a colon.
PINNED = ":pinned"


class Took(NamedTuple):
    """An arm that was taken. ``alias`` is "" and ``revision`` 0 where the text tells of no route."""

    alias: str
    revision: int
    arm: str
    is_pinned: bool


@lru_cache(maxsize=4096)
def read_arm(text: str) -> Took:
    """What the text of an arm tells."""
    arm, _, rest = text.partition(":")
    parts = arm.split("/")
    if len(parts) == 3 and parts[1].isdecimal():
        return Took(parts[0], int(parts[1]), parts[2], bool(rest))
    return Took("", 0, parts[-1], bool(rest))
