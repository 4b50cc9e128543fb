"""Wire protocols: bytes in, bytes out. One file each; nothing here knows a socket, and no wire knows another."""

from __future__ import annotations

from urllib.parse import unquote

from modelyard.errors import InvalidInput, ModelyardError

__all__ = ["Unimplemented", "Unsupported", "code_of", "segments", "told"]


# Errors of protocols, not of the tree in ``modelyard.errors``: only a caller over a wire ever meets them.


class Unsupported(ModelyardError):
    """The body is of a type that the wire does not read."""

    code = "unsupported"


class Unimplemented(ModelyardError):
    """The protocol has this call; this server does not answer it."""

    code = "unimplemented"


def segments(path: str) -> tuple[str, ...]:
    """The parts of a percent-encoded path, decoded one by one; one trailing slash is ignored.

    A part that is not UTF-8 once decoded keeps its percent signs, and so names nothing.
    """
    if not path.startswith("/"):
        return (path,)  # the ``*`` of OPTIONS
    parts = path.removesuffix("/").split("/")[1:]
    if "%" not in path:
        return tuple(parts)
    return tuple(_decoded(part) for part in parts)


def _decoded(part: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        return part


def code_of(error: Exception) -> str:
    """The stable code word of an error; ``internal`` for a bug."""
    return error.code if isinstance(error, ModelyardError) else "internal"


def told(error: Exception) -> str:
    """An error as one text, for protocols that have no more than a message; nothing of what is inside for a bug."""
    if not isinstance(error, ModelyardError):
        return "something went wrong inside the server"
    text = error.message
    if isinstance(error, InvalidInput) and len(error.problems) > 1:
        text = "; ".join(str(problem) for problem in error.problems)
    return f"{text} (hint: {error.hint})" if error.hint else text
