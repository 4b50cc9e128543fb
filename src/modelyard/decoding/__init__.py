"""Rows from bytes into row tuples or columns: compiled once for a model's inputs, strict and teaching.

JSON has three forms of its own here: one record ``{"x1": 1.5, "x2": 2}``, a list of records, and columns
``{"x1": [1.5], "x2": [2]}``. A typed decoder compiled for the fields reads a good body in one pass (``fast``).
Whatever it does not take is read again by ``exact``, which is slower, says everything that is wrong, and has the last
word on what is right. Other protocols send rows as lists (``lists``), inside objects that name their form
(``envelopes``), as CSV (``csv_rows``) or in columnar files (``arrow``).
"""

from modelyard.decoding.csv_rows import CsvDecoder
from modelyard.decoding.envelopes import EnvelopeDecoder, SplitDecoder
from modelyard.decoding.exact import check_json
from modelyard.decoding.fast import NOT_PLAIN, RowDecoder, ValuesDecoder
from modelyard.decoding.lists import AnyDecoder, ListsDecoder, check_envelope, under

__all__ = [
    "NOT_PLAIN", "AnyDecoder", "CsvDecoder", "EnvelopeDecoder", "ListsDecoder", "RowDecoder", "SplitDecoder",
    "ValuesDecoder", "check_envelope", "check_json", "under",
]  # fmt: skip
