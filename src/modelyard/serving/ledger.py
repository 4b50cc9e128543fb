"""Where a server keeps the truth about predictions: its registry, opened when the first label comes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from modelyard.interfaces import Ledger
from modelyard.truth import Label, Receipt


class LateLedger:
    """The ledger of a registry. ``where`` as for ``Registry.open``, or a registry."""

    def __init__(self, where: Any = None) -> None:
        self._where = where
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None

    def add(self, model: str, labels: Sequence[Label]) -> Receipt:
        return self._opened().add(model, labels)

    def _opened(self) -> Ledger:
        with self._lock:
            if self._ledger is None:
                from modelyard.registry import Registry

                where = self._where
                self._ledger = (where if isinstance(where, Registry) else Registry.open(where)).labels
            return self._ledger
