from __future__ import annotations

from typing import Any

FORMS: dict[str, Any] = {}
