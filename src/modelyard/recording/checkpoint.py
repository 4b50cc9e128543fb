"""How far a recorder has come: enough for the next to go on as if nothing had happened, even after kill -9."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from modelyard.recording.posting import Post
from modelyard.registry.windows import Window


class Reached(msgspec.Struct, array_like=True):
    """How far one ring was read: bytes and rows, and how many of its lost rows were counted."""

    position: int
    rows: int
    lost: int


class Total(msgspec.Struct, array_like=True):
    """What was recorded of one version since its records began, for ``modelyard records status``."""

    model: str
    version: str
    requests: int = 0
    rows: int = 0
    #: Rows that there was no room for in a ring, and those that the disk did not take.
    lost: int = 0
    unkept: int = 0
    #: When it was last asked, in seconds since 1970.
    last: float = 0.0


class Checkpoint(msgspec.Struct, array_like=True):
    """All that a recorder would have to know again."""

    rings: dict[str, Reached] = {}
    #: Open windows, as if they had been closed.
    windows: list[Window] = []
    post: Post = msgspec.field(default_factory=Post)
    #: Files that are still spools, and how long they are.
    spools: dict[str, int] = {}
    totals: list[Total] = []
    #: What else looks at what is recorded knows this much.
    consumers: dict[str, bytes] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Checkpoint).decode


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint in the place of the last, wholly. Raises OSError; the last one stays then."""
    making = path.with_suffix(".making")
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        rest = memoryview(_encode(checkpoint))
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        making.rename(path)
    except OSError:
        making.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def read_checkpoint(path: Path) -> Checkpoint:
    """The last checkpoint; an empty one where there was none. Raises ValueError for one that cannot be read."""
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return Checkpoint()
    except (OSError, msgspec.MsgspecError) as error:
        raise ValueError(f"not a checkpoint: {path}: {error}") from error
