"""Answers that are given again: the outputs of a model by its exact inputs, bounded in bytes.

What is kept is what the model answered, not the message, so that request ids, chosen outputs and the wire stay the
caller's own. The key holds the version (by its digest) and every input value; parameters, which a model may heed, are
part of it too. A model that is not a pure function of its inputs should be served without a cache.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Any

import msgspec

from modelyard.messages import Request
from modelyard.schema import Columns

#: What an entry costs beside its arrays and its key's values, in bytes: a measured allowance.
_ENTRY = 700
#: What one value of a key costs, in bytes.
_VALUE = 40

#: The form of ``marshal`` in which the same values always have the same bytes: later ones tell what is shared.
_PLAIN = 2


class AnswerCache:
    """Shared by all lanes of a server, and safe for threads. The entry that was longest not asked for goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._lock = Lock()
        self._entries: OrderedDict[Hashable, tuple[Columns, int]] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Bytes that the entries take, about."""
        return self._size

    def key(self, digest: str, request: Request) -> Hashable:
        """What two requests share exactly if they must get the same answer."""
        parameters = msgspec.json.encode(request.parameters) if request.parameters else None
        if request.tuples is not None:
            # Bytes, since equal is not the same: 0.0 equals -0.0, and NaN not even itself.
            return (digest, parameters, marshal.dumps(request.tuples, _PLAIN))
        columns = request.columns
        assert columns is not None
        return (digest, parameters, columns.rows, *(_frozen(block) for block in columns.blocks))

    def get(self, key: Hashable) -> Columns | None:
        """The outputs kept under ``key``."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self.misses += 1
                return None
            self._entries.move_to_end(key)
            self.hits += 1
            return found[0]

    def put(self, key: Hashable, inputs: int, outputs: Columns) -> None:
        """Keep ``outputs``, which may be a view of a larger batch, under a key of ``inputs`` values."""
        own = Columns(outputs.layout, [block.copy() for block in outputs.blocks], outputs.rows)
        size = (
            _ENTRY
            + _VALUE * inputs
            + sum(block.nbytes + (_VALUE * block.size if block.dtype.kind == "O" else 0) for block in own.blocks)
        )
        if size > self._most // 8:  # one answer must not push out all others
            return
        with self._lock:
            before = self._entries.pop(key, None)
            if before is not None:
                self._size -= before[1]
            self._entries[key] = (own, size)
            self._size += size
            while self._size > self._most:
                _, (_, gone) = self._entries.popitem(last=False)
                self._size -= gone

    def forget(self, digest: str) -> None:
        """Drop what a version answered: it is served no more."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == digest]:  # type: ignore[index]
                self._size -= self._entries.pop(key)[1]


def _frozen(block: Any) -> Hashable:
    if block.dtype.kind == "O":
        return (block.shape, tuple(block.ravel().tolist()))
    return (block.shape, block.dtype.str, block.tobytes())
