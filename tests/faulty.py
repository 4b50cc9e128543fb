"""A model that does what its first column says: whatever a model can do wrong."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

FINE, RAISES, HANGS, SHORT, NAN, EATS, EXITS, SEGFAULTS, LEAVES, SLOW, TEXT, KILLED, NONSENSE, LONG = range(14)


class Faulty(RegressorMixin, BaseEstimator):
    """prediction = 2 * value, where every ``order`` is FINE."""

    def fit(self, rows: Any = None, target: Any = None) -> Faulty:
        self.n_features_in_ = 2
        return self

    def predict(self, rows: Any) -> Any:
        rows = np.asarray(rows, dtype=float)
        for order in set(rows[:, 0].astype(int)) - {FINE}:
            changed = self._obey(order, rows)
            if changed is not None:
                return changed
        return 2 * rows[:, 1]

    def _obey(self, order: int, rows: Any) -> Any:
        if order == RAISES:
            raise ValueError("these rows are not to my taste")
        if order == HANGS:
            _sleep_in_c()
        if order == SHORT:
            return 2 * rows[1:, 1]
        if order == NAN:
            return np.full(len(rows), np.nan)
        if order == EATS:
            return [np.empty(1 << 26) for _ in range(8)]  # 4 GB, of which nothing is touched
        if order == EXITS:
            os._exit(3)
        if order == SEGFAULTS:
            ctypes.string_at(0)
        if order == LEAVES:
            sys.exit(4)
        if order == SLOW:
            time.sleep(0.05)
        if order == LONG:
            time.sleep(2.8)
        if order == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if order == TEXT:
            print("a model may print")
        if order == NONSENSE:  # as a process would whose memory is overwritten
            for path in Path("/proc/self/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(path.readlink()).startswith("socket:"):
                        os.write(int(path.name), b"\xff" * 64)
        return None


def _sleep_in_c() -> None:
    """Sleep and hold the interpreter, as a library that has lost its way does."""
    ctypes.PyDLL(None).sleep(3600)


class Crashing(Faulty):
    """Its pickle ends the process that reads it."""

    def __setstate__(self, state: Any) -> None:
        if os.environ.get("MODELYARD_TEST_CRASH"):
            ctypes.string_at(0)
        super().__setstate__(state)
