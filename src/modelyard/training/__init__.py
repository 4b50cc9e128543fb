"""From a table to a fitted model and an honest report on it."""

from __future__ import annotations

from modelyard.training.study import Result, train

__all__ = ["Result", "train"]
