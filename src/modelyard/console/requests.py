"""A request as people write it elsewhere."""

from __future__ import annotations

import json
import shlex
from typing import Any

#: Where a server answers that was told nothing else.
_URL = "http://127.0.0.1:8080"


def texts(model: str, version: int, row: dict[str, Any]) -> dict[str, str]:
    """The request for one row, by the name of the form: curl, Python, JSON."""
    url = f"{_URL}/models/{model}/versions/{version}/predict"
    body = json.dumps(row, ensure_ascii=False)
    return {
        "curl": f"curl {url} \\\n  -H 'content-type: application/json' \\\n  -d {shlex.quote(body)}",
        "Python": f"import modelyard as my\n\nmodel = my.load({f'{model}:{version}'!r})\nprint(model.predict({row!r}))",
        "JSON": json.dumps(row, ensure_ascii=False, indent=2),
    }
