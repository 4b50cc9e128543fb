"""Descriptions of binary tensors that came before, and what they mean: clients send the same one again and again."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import msgspec

from modelyard.wires.oip.outputs import Wanted
from modelyard.wires.oip.raw import RawPlan
from modelyard.wires.oip.tensors import TensorRequest

#: Descriptions that are kept, and the most bytes of one.
_MOST = 256
_LARGEST = 16_384


class Known(msgspec.Struct, frozen=True, gc=False):
    """What a description of tensors means."""

    plan: RawPlan
    wanted: Wanted
    parameters: dict[str, Any] | None
    id: str = ""
    is_marked: bool = False

    def read(self, data: bytes, start: int) -> TensorRequest:
        """The request whose tensors' bytes are in ``data``, from ``start`` on. Raises InvalidInput."""
        tuples, columns = self.plan.read(data, start)
        wanted = self.wanted
        return TensorRequest(
            self.plan.rows, tuples, columns, "tensors", self.id, wanted.names, self.parameters, wanted, "",
            self.is_marked,
        )  # fmt: skip


class Descriptions:
    """Keeps what comes a second time, so that a description with an id of its own never takes room."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Known] = {}
        self._seen_once: set[int] = set()
        self.get = self._known.get

    def note(self, description: Hashable, size: int, known: Known) -> None:
        """Keep what a description of ``size`` bytes means, if it is not the first time that it comes."""
        if size > _LARGEST or not known.plan.is_bytes_only:
            return
        mark = hash(description)
        if mark in self._seen_once:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[description] = known
        else:
            if len(self._seen_once) >= 4 * _MOST:
                self._seen_once.clear()
            self._seen_once.add(mark)
