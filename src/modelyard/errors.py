"""The tree of errors.

Each error carries a stable ``code`` word, a message for people and, where there is one, a ``hint`` that can be
pasted. Nothing here knows about HTTP, gRPC or exit numbers: each edge keeps its own table from codes to those.

Wording: what happened, a colon, the value; the known choices where a name is wrong; the hint on its own line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec


def writable(text: str) -> str:
    """``text`` as it can be told: JSON can hold half of a pair of code units, which no UTF-8 can."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class ModelyardError(Exception):
    """Root of every error that Modelyard raises on purpose.

    ``code`` is stable: programs may compare it. ``details`` holds machine-readable values.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        message = writable(message)
        super().__init__(message)
        self.message = message
        self.hint = writable(hint)
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> Any:
        return (_rebuild, (type(self), self.message, self.hint, self.details))


def _rebuild(kind: type[ModelyardError], message: str, hint: str, details: dict[str, Any]) -> ModelyardError:
    return kind(message, hint=hint, **details)


class Problem(msgspec.Struct, frozen=True):
    """One fault in an input: where it is, what was expected there and what came.

    ``path`` names the field as the caller wrote it: ``age``, ``[3].age``, ``inputs[0].shape``, ``line 17``.
    """

    path: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, got {self.got}"


#: Reading an input stops at this many problems: enough to mend a client, never a flood.
MOST_PROBLEMS = 10


class InvalidInput(ModelyardError):
    """The input does not fit; the caller can fix it. ``problems`` lists each fault."""

    code = "invalid_input"

    def __init__(self, message: str, *, hint: str = "", problems: Iterable[Problem] = (), **details: Any) -> None:
        super().__init__(message, hint=hint, **details)
        self.problems: tuple[Problem, ...] = tuple(
            Problem(writable(p.path), writable(p.expected), writable(p.got)) for p in problems
        )

    @classmethod
    def at(cls, path: str, expected: str, got: str, *, hint: str = "") -> InvalidInput:
        """The error for a single fault."""
        return cls.of([Problem(path, expected, got)], hint=hint)

    @classmethod
    def of(cls, problems: Iterable[Problem], *, hint: str = "") -> InvalidInput:
        """The error for several faults; its message is the first, with a count of the others."""
        listed = tuple(problems)
        least = "at least " if len(listed) == MOST_PROBLEMS else ""
        more = f" (and {least}{len(listed) - 1} more)" if len(listed) > 1 else ""
        return cls(f"{listed[0]}{more}", hint=hint, problems=listed)

    def __reduce__(self) -> Any:
        return (_rebuild_invalid, (self.message, self.hint, self.problems, self.details))


def _rebuild_invalid(message: str, hint: str, problems: tuple[Problem, ...], details: dict[str, Any]) -> InvalidInput:
    return InvalidInput(message, hint=hint, problems=problems, **details)


class NotFound(ModelyardError):
    """No such model, version, alias, endpoint, plugin or file."""

    code = "not_found"

    @classmethod
    def among(cls, what: str, name: str, known: Iterable[str], *, hint: str = "") -> NotFound:
        """``what`` named ``name`` is not one of ``known``; the nearest known name becomes the hint."""
        choices = sorted(known)
        shown = ", ".join(choices[:10]) + (", …" if len(choices) > 10 else "")
        near = difflib.get_close_matches(name, choices, n=1)
        return cls(
            f"no such {what}: {name}" + (f" (known: {shown})" if choices else " (there are none)"),
            hint=hint or (f"did you mean {near[0]}?" if near else ""),
        )


class Conflict(ModelyardError):
    """It exists already, or it moved while you were looking."""

    code = "conflict"


class Refused(ModelyardError):
    """Not allowed, or the contents are not trusted; ``details`` lists what."""

    code = "refused"


class Unauthenticated(Refused):
    """No key came with the call, or none that is known."""

    code = "unauthenticated"


class NotReady(ModelyardError):
    """Loading or draining; try again."""

    code = "not_ready"


class Overloaded(ModelyardError):
    """The queue is full or the deadline has passed; try again later."""

    code = "overloaded"


class DeadlinePassed(Overloaded):
    """The answer would have come later than the caller waits; nothing was computed, or it was dropped."""

    code = "deadline_passed"


class RateLimited(Overloaded):
    """The caller has used up what it may ask for in a while; ``details["retry_after"]`` says when there is more."""

    code = "rate_limited"


class NoRoom(ModelyardError):
    """The memory that models may take is taken; ``details`` has the figures."""

    code = "no_room"


class ModelFailed(ModelyardError):
    """The user's model raised, or broke its own signature."""

    code = "model_failed"


class MissingDependency(ModelyardError):
    """A library is not installed; the hint names the extra that brings it."""

    code = "missing_dependency"

    @classmethod
    def extra(cls, library: str, extra: str, purpose: str) -> MissingDependency:
        """``library`` is needed for ``purpose`` and comes with ``modelyard[extra]``."""
        return cls(
            f"{purpose} needs a library that is not installed: {library}",
            hint=f"pip install 'modelyard[{extra}]'",
            library=library,
            extra=extra,
        )


class BadBundle(ModelyardError):
    """A manifest or a digest is wrong, or the format is newer than this Modelyard."""

    code = "bad_bundle"


class RemoteFailed(ModelyardError):
    """A store, database, registry, disk or cloud answered with a failure."""

    code = "remote_failed"
