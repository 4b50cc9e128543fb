"""Reading a file that may be compressed, with a bound on what it unpacks to."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from modelyard.errors import MissingDependency

#: The most bytes that any file may unpack to.
LARGEST = 16 * 1024**3

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x5d\x00", "lzma"),
    (b"\x04\x22\x4d\x18", "lz4"),
)


class TooLarge(OSError):
    """The file unpacks to more than ``LARGEST`` bytes."""


def compression_of(start: bytes) -> str:
    """Which compression the first bytes of a file show, "" for none. Those of joblib are all known."""
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    # zlib: 32K window, deflate, and the check bits make the first two bytes a multiple of 31
    if len(start) >= 2 and start[0] == 0x78 and (start[0] * 256 + start[1]) % 31 == 0:
        return "zlib"
    return ""


def open_stream(source: Path | bytes) -> BinaryIO:
    """The unpacked bytes of a file, or of its content, from the start. Close it."""
    file = source.open("rb") if isinstance(source, Path) else io.BufferedReader(io.BytesIO(source))
    try:
        opener = _OPENERS[compression_of(file.peek(16)[:16])]
        return io.BufferedReader(_Bounded(opener(file), file), 1024**2)
    except BaseException:
        file.close()
        raise


class _Bounded(io.RawIOBase):
    """Passes reads on until ``LARGEST`` bytes have come."""

    def __init__(self, source: Any, file: BinaryIO) -> None:
        self._source = source
        self._file = file
        self._left = LARGEST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge(f"it unpacks to more than {LARGEST} bytes")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._source.close()
        self._file.close()  # which decompressors leave open
        super().close()


class _Zlib:
    """A zlib stream as a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._machine = zlib.decompressobj()

    def read(self, size: int) -> bytes:
        while not self._machine.eof:
            packed = self._machine.unconsumed_tail or self._file.read(64 * 1024)
            if not packed:
                raise EOFError("the compressed stream ends too early")
            if data := self._machine.decompress(packed, size):
                return data
        return b""

    def close(self) -> None:
        self._file.close()


def _gzip(file: BinaryIO) -> Any:
    import gzip

    return gzip.GzipFile(fileobj=file)


def _bz2(file: BinaryIO) -> Any:
    import bz2

    return bz2.BZ2File(file)


def _lzma(file: BinaryIO) -> Any:
    import lzma

    return lzma.LZMAFile(file)


def _lz4(file: BinaryIO) -> Any:
    from importlib import import_module

    try:
        return import_module("lz4.frame").LZ4FrameFile(file)
    except ImportError:
        raise MissingDependency(
            "reading a file compressed with lz4 needs a library that is not installed: lz4", hint="pip install lz4"
        ) from None


_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    "": lambda file: file,
    "gzip": _gzip,
    "bz2": _bz2,
    "xz": _lzma,
    "lzma": _lzma,
    "lz4": _lz4,
    "zlib": _Zlib,
}
