"""How the columns of one side of a signature lie in a frame: each block as its memory, texts apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from modelyard.schema import Array, Block, Columns, Layout

#: The shape of a row, where it varies.
Shape = Sequence[int]


class _Kind(NamedTuple):
    """What is known of a block beforehand."""

    dtype: Any
    #: Of one row; a negative size varies.
    shape: tuple[int, ...]
    #: Bytes of a row; negative for texts, and where the shape varies.
    row_bytes: int
    is_text: bool
    varies: bool


class Form:
    """How columns of one layout are written and read. Made once per layout."""

    __slots__ = ("_dtype", "_kinds", "_row_bytes", "layout")

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._kinds = tuple(_kind(block) for block in layout.blocks)
        #: Of the only block, where there is one and it always takes the same bytes: most models have such sides.
        is_plain = len(self._kinds) == 1 and self._kinds[0].row_bytes >= 0
        self._dtype: Any = self._kinds[0].dtype if is_plain else None
        self._row_bytes = self._kinds[0].row_bytes if is_plain else -1

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(layout: Layout) -> Form:
        return Form(layout)

    def lay(
        self, columns: Columns, rows: int, blocks: list[Array], texts: list[Any], shapes: list[list[int]]
    ) -> int:  # fmt: skip
        """Add what is to be written of ``columns``; returns the bytes of the added blocks, or -1 where they are not
        ``rows`` rows of this layout: a model may answer with anything.
        """
        given = columns.blocks
        if len(given) != len(self._kinds):
            return -1
        if self._dtype is not None:
            block = given[0]
            size = block.nbytes
            if block.dtype is self._dtype and size == self._row_bytes * rows:
                blocks.append(block)
                return size
        size = 0
        for block, kind in zip(given, self._kinds, strict=True):
            if kind.row_bytes < 0 or block.dtype is not kind.dtype or block.nbytes != kind.row_bytes * rows:
                fitting = _fit(block, kind, rows)
                if fitting is None:
                    return -1
                block = fitting
                if kind.varies:
                    shapes.append(list(block.shape[1:]))
                if kind.is_text:
                    texts.append(block.tolist())
                    continue
            size += block.nbytes
            blocks.append(block)
        return size

    def take(
        self, rest: memoryview, at: int, rows: int, texts: Iterator[Any], shapes: Iterator[Shape], into: list[list[Any]]
    ) -> int:  # fmt: skip
        """Append to ``into``, block by block, what lies in a frame from ``at`` on; returns where it ends."""
        if self._dtype is not None:
            end = at + self._row_bytes * rows
            into[0].append(rest[at:end])
            return end
        for kind, pieces in zip(self._kinds, into, strict=True):
            shape = next(shapes) if kind.varies else kind.shape
            if kind.is_text:
                pieces += next(texts)
                continue
            end = at + prod(shape) * kind.dtype.itemsize * rows
            pieces.append(rest[at:end])
            at = end
        return at

    def columns(self, taken: Sequence[list[Any]], rows: int, shapes: Iterator[Shape]) -> Columns:
        """What was taken of one frame or of several, whose shapes are the same, as rows one after the other. Of a
        single frame, arrays are its memory.
        """
        blocks: list[Array] = []
        for kind, pieces in zip(self._kinds, taken, strict=True):
            shape = next(shapes) if kind.varies else kind.shape
            if kind.is_text:
                array = np.empty((rows, *shape), dtype=object)
                if array.size:
                    array[...] = pieces
            else:
                memory = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                array = np.frombuffer(memory, kind.dtype, prod(shape) * rows).reshape(rows, *shape)
            blocks.append(array)
        return Columns(self.layout, blocks, rows)

    @property
    def empty(self) -> list[list[Any]]:
        """Where nothing was taken yet."""
        return [[] for _ in self._kinds]


def _kind(block: Block) -> _Kind:
    dtype = np.dtype(block.storage)
    shape = (len(block.names),) if block.is_scalar else block.shape
    is_text = bool(dtype.hasobject)
    varies = min(shape) < 0
    return _Kind(dtype, shape, -1 if varies or is_text else prod(shape) * dtype.itemsize, is_text, varies)


def _fit(block: Array, kind: _Kind, rows: int) -> Array | None:
    """``block`` as the signature says, or None where it cannot be that."""
    wanted = (rows, *kind.shape)
    if block.dtype is kind.dtype and block.shape == wanted:
        return block
    if len(block.shape) != len(wanted) or any(w not in (-1, g) for w, g in zip(wanted, block.shape, strict=True)):
        if kind.varies or block.size != rows * prod(kind.shape):
            return None
        block = block.reshape(wanted)
    try:
        with np.errstate(all="ignore"):
            return np.ascontiguousarray(block, dtype=kind.dtype)
    except (TypeError, ValueError, OverflowError):
        return None
