"""How long a caller waits, as its headers say."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Headers that tell it, ours first, and how many of their units make a second where they name none.
_HEADERS = (("x-request-timeout", 1.0), ("x-envoy-expected-rq-timeout-ms", 1e-3))

_AMOUNT = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{0,9})?)\s*(us|ms|s|m)?\s*")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def seconds_of(headers: Mapping[str, str], otherwise: float) -> float:
    """Seconds that a caller waits for its answer; ``otherwise`` where it does not say, or says it in no known way.

    ``x-request-timeout: 0.25``, ``250ms`` or ``2s``; Envoy's ``x-envoy-expected-rq-timeout-ms`` is heeded too. A caller
    can shorten its wait and lengthen it.
    """
    for name, scale in _HEADERS:
        text = headers.get(name)
        if text is not None:
            amount = _AMOUNT.fullmatch(text)
            if amount is not None:
                return float(amount[1]) * (_UNITS[amount[2]] if amount[2] else scale)
    return otherwise
