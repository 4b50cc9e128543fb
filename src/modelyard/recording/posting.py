"""Closed windows on their way to the registry: each is written once, whoever is killed when, and none is lost while the
registry is away.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import msgspec

from modelyard.registry.windows import Window

#: Windows that wait as they are; of more, those of an hour become one.
MOST_WAITING = 500


class Post(msgspec.Struct, array_like=True):
    """What a checkpoint keeps of it."""

    waiting: list[Window] = []
    #: What is being written, under a name that no other batch has.
    sending: list[Window] = []
    batch: str = ""


class Posting:
    """The windows of one source. A batch is sent once a checkpoint holds it, and sent again until the registry has it:
    there, the name of the last batch is written with the windows.
    """

    def __init__(self) -> None:
        self.post = Post()

    def add(self, windows: Iterable[Window]) -> bool:
        """Whether there were any."""
        before = len(self.post.waiting)
        self.post.waiting += windows
        if len(self.post.waiting) > MOST_WAITING:
            self.post.waiting = merged(self.post.waiting)
        return len(self.post.waiting) != before

    def prepare(self) -> Post:
        """What the next checkpoint is to hold: a batch to be sent, where there is something to send."""
        post = self.post
        if not post.sending and post.waiting:
            post.sending, post.waiting, post.batch = post.waiting, [], secrets.token_hex(8)
        return Post(list(post.waiting), post.sending, post.batch)

    def sent(self, batch: str) -> None:
        """The registry has it."""
        if self.post.batch == batch:
            self.post.sending, self.post.batch = [], ""


def merged(windows: Iterable[Window]) -> list[Window]:
    """Windows of one version, arm and hour as one."""
    found: dict[tuple[str, ...], Window] = {}
    for window in windows:
        key = (window.model, window.version, window.arm, window.counted.bins, window.opened[:13])
        found[key] = found[key].plus(window) if key in found else window
    return list(found.values())
