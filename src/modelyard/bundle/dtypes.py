"""Numpy's dtypes as pickles describe them.

A pickle gives a dtype as a call (``dtype("f8", False, True)``) and a state. Numpy believes the state, flags included,
so one that lies can make numpy take raw bytes for pointers. Here nothing is believed: a description is compared with
the dtype that honest code would have made.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

#: What a state's first member may be, and its places: version, byte order, subarray, names, fields, itemsize,
#: alignment, flags.
_VERSION = 3
_LENGTH = 8
#: Set by numpy on structures that were laid out with ``align=True``.
_ALIGNED = 0x80


class Dishonest(ValueError):
    """A description that honest code would not have written."""


def simple(code: Any) -> np.dtype[Any]:
    """The dtype of a code such as ``f8``, ``O8``, ``U12`` or ``V16``."""
    if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[biufcOSUV]\d{1,9}", code):
        raise Dishonest(f"a dtype that is not read: {code!r}"[:100])
    return np.dtype(code)


def checked(start: np.dtype[Any], state: Any) -> np.dtype[Any]:
    """The dtype that ``start`` becomes by ``state``, made anew. Raises Dishonest where the two contradict."""
    if not isinstance(state, tuple) or len(state) != _LENGTH or state[0] != _VERSION:
        raise Dishonest("a dtype's state of a kind that is not read")
    _, order, subarray, names, fields, itemsize, alignment, flags = state
    if subarray is not None or order not in ("<", ">", "=", "|"):
        raise Dishonest("a dtype's state of a kind that is not read")
    if names is None and fields is None:
        made = start if order == "|" else start.newbyteorder(order)
        if alignment not in (-1, made.alignment):
            raise Dishonest("a dtype's state contradicts its alignment")
    else:
        made = _structure(names, fields, itemsize)
    if start.kind != made.kind or itemsize not in (-1, made.itemsize) or start.itemsize not in (0, made.itemsize):
        raise Dishonest("a dtype's state contradicts its size")
    if not isinstance(flags, int) or flags | _ALIGNED != made.flags | _ALIGNED:
        raise Dishonest("a dtype's state contradicts its flags")
    return made


def _structure(names: Any, fields: Any, itemsize: Any) -> np.dtype[Any]:
    if not isinstance(names, tuple) or not isinstance(fields, dict) or set(names) != set(fields):
        raise Dishonest("a structured dtype's names do not fit its fields")
    try:
        return np.dtype(
            {
                "names": list(names),
                "formats": [_dtype(fields[name][0]) for name in names],
                "offsets": [int(fields[name][1]) for name in names],
                "itemsize": int(itemsize),
            }
        )
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise Dishonest(f"a structured dtype that numpy would not make: {error}") from None


def _dtype(thing: Any) -> np.dtype[Any]:
    if not isinstance(thing, np.dtype):
        raise Dishonest("a structured dtype with a field that is no dtype")
    return thing
