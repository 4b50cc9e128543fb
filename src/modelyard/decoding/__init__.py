"""JSON rows into row tuples or columns: compiled once for a model's inputs, strict and teaching.

Three forms: one record ``{"x1": 1.5, "x2": 2}``, a list of records, and columns ``{"x1": [1.5], "x2": [2]}``.
A typed decoder compiled for the fields reads a good body in one pass (``fast``). Whatever it does not take is read
again by ``exact``, which is slower, says everything that is wrong, and has the last word on what is right.
"""

from modelyard.decoding.exact import check_json
from modelyard.decoding.fast import NOT_PLAIN, RowDecoder, ValuesDecoder

__all__ = ["NOT_PLAIN", "RowDecoder", "ValuesDecoder", "check_json"]
