"""How a file writes its dates, found out once for the file, as training does: a part of it may not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.errors import InvalidInput
from modelyard.schema import Field
from modelyard.tables.kinds import ISO, Evidence, Kind, spoken
from modelyard.tables.pieces import Place, Source
from modelyard.tables.source import MISSING

#: Field name -> how its texts are written; ISO 8601 where none is named.
DateForms = Mapping[str, Kind]


def date_forms(source: Source, fields: Sequence[Field]) -> DateForms:
    """How each column of texts that ``fields`` want as dates is written, from as much of the file as it takes.

    Raises InvalidInput where day and month may be either way round to the end of the file.
    """
    import pyarrow as pa

    texts = (pa.string(), pa.large_string())
    evidence = {f.name: Evidence() for f in fields if f.dtype == "datetime" and source.type_of(f.name) in texts}
    if not evidence:
        return {}
    row = 0
    for piece in source.pieces(list(evidence), Place()):
        for name, seen in evidence.items():
            seen.see(present(piece.table.column(name)), row)
        if all(seen.kinds is not None and len(seen.kinds) < 2 for seen in evidence.values()):
            break
        row = piece.end.row
    return {name: _form(name, seen.kinds or [ISO]) for name, seen in evidence.items()}


def _form(name: str, kinds: Sequence[Kind]) -> Kind:
    if len(kinds) > 1:
        ways = " or ".join(spoken(kind.format) for kind in kinds)
        hint = "write them as ISO 8601 (2024-12-31)"
        raise InvalidInput.at(name, "dates that can be read in one way only", f"dates that may be {ways}", hint=hint)
    return kinds[0] if kinds[0].name == "date" else ISO


def present(column: Any) -> Any:
    """The texts of a column without blanks around them, null where they mean a missing value."""
    import pyarrow as pa
    import pyarrow.compute as compute

    text = compute.utf8_trim_whitespace(column.cast(pa.string()).combine_chunks())
    return compute.if_else(compute.is_in(text, pa.array(MISSING)), None, text)
