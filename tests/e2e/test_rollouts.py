"""Rollouts from the command line to the verdict: real servers, real load, and the guard that watches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the versions are graphs")

from rolling import Rolling


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Rolling]:
    """One worker, and SQLite."""
    made = Rolling(tmp_path, workers=1)
    yield made
    made.close()


def test_a_canary_that_fails_is_taken_back(small: Rolling) -> None:
    load = small.start_load()
    small.start("failing", "--canary", "20%", "--guard", "errors")
    small.until("rolled back")
    _, back = small.history()
    assert back["action"] == "roll back" and back["why"].startswith("errors: ")
    assert set(load.codes) == {200, 500} and not load.dropped
