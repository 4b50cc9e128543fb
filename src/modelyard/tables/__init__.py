"""Tables: CSV and Parquet files, data frames and records, as one array per column.

Missing values: NaN in numbers, None in texts, NaT in dates (``datetime64[us]``, UTC). A column of whole numbers with
gaps is float64; a column of truth values with gaps is an object array with None.
"""

from __future__ import annotations

from modelyard.tables.arrays import arrays_of
from modelyard.tables.reading import Table, read_table

__all__ = ["Table", "arrays_of", "read_table"]
