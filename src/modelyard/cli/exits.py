"""From the outcome of a command to its exit number, and errors in print: the edge's own table."""

from __future__ import annotations

import errno
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.errors import ModelyardError

#: Exit number -> the code words of the errors that end with it, and what it means.
EXITS: dict[int, tuple[tuple[str, ...], str]] = {
    0: (("ok",), "done"),
    1: (("bug",), "a bug in Modelyard; --debug shows the trace"),
    2: (("invalid_input",), "the command line or the input does not fit"),
    3: (("not_found",), "no such model, version, alias, plugin or file"),
    4: (("conflict",), "it exists already, or moved meanwhile"),
    5: (("refused", "unauthenticated"), "not allowed, or the contents are not trusted"),
    6: (
        ("not_ready", "overloaded", "deadline_passed", "rate_limited", "no_room"),
        "loading, draining or too busy; try again",
    ),
    7: (("model_failed",), "the model raised, or broke its signature"),
    8: (("missing_dependency",), "a library is not installed; the hint names the extra"),
    9: (("bad_bundle",), "a bundle is damaged, or newer than this Modelyard"),
    10: (("remote_failed",), "a store, database, disk or cloud failed"),
    11: (("nonconforming",), "a server breaks a rule of its protocol that is a must"),
    130: (("interrupted",), "stopped by Ctrl-C"),
    141: (("broken_pipe",), "the reader of the output went away"),
}

NUMBERS: dict[str, int] = {word: number for number, (words, _) in EXITS.items() for word in words}


def of_os_error(error: OSError) -> ModelyardError:
    """An operating-system error that no room expected, as an error for people."""
    from modelyard.errors import Conflict, NotFound, Refused, RemoteFailed

    reason = (error.strerror or str(error) or type(error).__name__).lower()
    message = f"{reason}: {error.filename}" if error.filename else reason
    if isinstance(error, FileNotFoundError):
        return NotFound(message)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Refused(message, hint="choose a folder that you may write to, or ask for the right")
    if error.errno == errno.EADDRINUSE:
        return Conflict(message, hint="another server listens there; choose a port with --port, 0 picks a free one")
    if error.errno == errno.ENOSPC:
        return RemoteFailed(message, hint="free some space; `modelyard collect` removes what no version names")
    return RemoteFailed(message)


def print_error(code: str, message: str, *, hint: str = "", problems: Any = (), as_json: bool = False) -> int:
    """Tell of an error on stderr, for people or as one JSON document; return the exit number of ``code``."""
    number = NUMBERS.get(code, 1)
    if as_json:
        told: dict[str, Any] = {"code": code, "exit": number, "message": message}
        if hint:
            told["hint"] = hint
        if problems:
            told["problems"] = [{"path": p.path, "expected": p.expected, "got": p.got} for p in problems]
        text = json.dumps({"error": told}, ensure_ascii=False)
    else:
        lines = [f"{_red('error:')} {message}"]
        # The message of an error with several problems is mostly the first of them.
        rest = problems[1:] if problems and message.startswith(str(problems[0])) else problems
        lines += [f"  {problem}" for problem in rest[:20]]
        lines += [f"  … and {len(rest) - 20} more"] if len(rest) > 20 else []
        lines += [f"hint: {line}" for line in hint.splitlines() if line]
        text = "\n".join(lines)
    sys.stderr.write(text + "\n")
    return number


def _red(word: str) -> str:
    import os

    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[1;31m{word}\x1b[0m" if coloured else word
