"""What else looks at everything that is recorded."""

from __future__ import annotations

from typing import Protocol

from modelyard.recording.flags import Found
from modelyard.recording.frames import Refusal, Unserved
from modelyard.recording.rows import Rows
from modelyard.recording.subject import Subject


class Consumer(Protocol):
    """What it knows is in each checkpoint, under its name."""

    name: str

    @property
    def is_urgent(self) -> bool:
        """Whether it knows something that should be in a checkpoint soon."""

    def take(self, rows: Rows, found: Found) -> None:
        """Rows that were predicted, with their flags."""

    def refuse(self, subject: Subject, refusal: Refusal) -> None:
        """A request for which no model was called."""

    def fail(self, unserved: Unserved) -> None:
        """A server cannot serve the version of a rollout's arm."""

    def state(self) -> bytes:
        """What its successor has to know."""

    def restore(self, state: bytes) -> None:
        """Go on from what its predecessor knew."""

    def kept(self, state: bytes) -> None:
        """A ``state`` is safe now: the newest that is. Called on a thread that may wait for the registry."""
