"""The real clients of other servers, each with an interpreter of its own: their requirements fit neither one another
nor us. ``make clients`` installs them into ``.clients/NAME`` from ``NAME.txt``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2] / ".clients"


def interpreter(name: str) -> Path:
    """The Python that has the client ``name``; skips the test where it is not installed, which CI may not."""
    python = _ROOT / name / "bin" / "python"
    if not python.exists():
        reason = f"the client {name} is not installed: make clients"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return python
