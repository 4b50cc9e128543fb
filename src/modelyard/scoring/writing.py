"""What goes into the output file: Arrow batches of a fixed schema, encoded so that they can be appended.

Every kind of output is written as a file that only grows, so that a crash is mended by cutting it off at the last
checkpoint. CSV and JSON lines grow by nature. A Parquet file cannot: its rows are kept as an Arrow stream, which
can, and become Parquet at the end, a row group at a time.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput
from modelyard.schema import INTEGER_RANGES, Array, Columns, Field

#: Rows of a row group in a Parquet output.
GROUP = 1 << 18


def arrow_type(field: Field) -> Any:
    """The Arrow type of a scalar field."""
    import pyarrow as pa

    if field.dtype == "datetime":
        return pa.timestamp("us", "UTC")
    name = {"bool": "bool_", "float16": "float32"}.get(field.dtype, field.dtype)
    return getattr(pa, name)()


def arrow_array(values: Array, field: Field) -> Any:
    """A column of a scalar field as an Arrow array; NaN is null where the field is no floating number."""
    import pyarrow as pa

    if field.dtype == "datetime":
        gaps = np.isnan(values)
        micros = np.round(np.where(gaps, 0.0, values) * 1e6).astype("int64")
        return pa.array(micros, pa.int64(), mask=gaps).cast(pa.timestamp("us", "UTC"))
    if values.dtype.kind == "f" and (field.dtype in INTEGER_RANGES or field.dtype == "bool"):
        gaps = np.isnan(values)
        return pa.array(np.where(gaps, 0.0, values).astype(field.dtype), arrow_type(field), mask=gaps)
    return pa.array(np.ascontiguousarray(values), arrow_type(field))


class Shape:
    """The columns of the output: ``row``, the kept columns of the input, then what the model answered.

    A label ``yes`` of ``probabilities`` becomes ``probability_yes``; other outputs with a shape become ``name_0``,
    ``name_1`` ... A kept column whose name is taken becomes ``input_<name>``.
    """

    def __init__(self, outputs: Sequence[Field], kept: Sequence[tuple[str, Any]]) -> None:
        import pyarrow as pa

        self._outputs = [(field, _names(field)) for field in outputs]
        taken = {"row", *(name for _, names in self._outputs for name in names)}
        answers = [(name, arrow_type(field)) for field, names in self._outputs for name in names]
        self.kept = list(kept)
        named = [(f"input_{name}" if name in taken else name, kind) for name, kind in kept]
        self.schema = pa.schema([("row", pa.int64()), *named, *answers])

    def batch(self, numbers: Array, kept: Sequence[Any], answers: Columns) -> Any:
        """One Arrow batch."""
        import pyarrow as pa

        arrays = [pa.array(numbers, pa.int64()), *kept]
        for field, names in self._outputs:
            values = answers[field.name].reshape(answers.rows, len(names))
            arrays += [arrow_array(values[:, i], field) for i in range(len(names))]
        return pa.record_batch(arrays, schema=self.schema)


def _names(field: Field) -> list[str]:
    if not field.shape:
        return [field.name]
    if any(size < 0 for size in field.shape):
        raise InvalidInput.at(
            f"output {field.name}", "a fixed shape", f"{list(field.shape)}", hint="leave it out with --outputs"
        )
    places = list(np.ndindex(*field.shape))
    if len(field.shape) == 1 and field.categories and len(field.categories) == len(places):
        stem = "probability" if field.name == "probabilities" else field.name
        return [f"{stem}_{label}" for label in field.categories]
    return ["_".join([field.name, *map(str, place)]) for place in places]


class Encoding:
    """How batches become bytes that can be appended, and those bytes the output file."""

    suffixes: tuple[str, ...]

    def head(self, schema: Any) -> bytes:
        """What the file begins with."""
        raise NotImplementedError

    def encode(self, batch: Any) -> bytes:
        raise NotImplementedError

    def finish(self, grown: Path, finished: Path) -> None:
        """Make the output out of the grown file. May be called again after a crash."""
        if grown.exists():
            grown.replace(finished)


class Csv(Encoding):
    suffixes = (".csv",)

    def head(self, schema: Any) -> bytes:
        import pyarrow as pa

        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(schema.names)
        try:
            self.encode(pa.RecordBatch.from_pylist([], schema=schema))
        except pa.ArrowInvalid as error:
            raise InvalidInput(f"a CSV file cannot hold such a column: {error}") from None
        return text.getvalue().encode()

    def encode(self, batch: Any) -> bytes:
        import pyarrow as pa
        import pyarrow.csv as arrow_csv

        sink = pa.BufferOutputStream()
        arrow_csv.write_csv(batch, sink, arrow_csv.WriteOptions(include_header=False, quoting_style="needed"))
        written: bytes = sink.getvalue().to_pybytes()
        return written


class JsonLines(Encoding):
    suffixes = (".jsonl", ".ndjson")

    def head(self, schema: Any) -> bytes:
        return b""

    def encode(self, batch: Any) -> bytes:
        import msgspec

        return msgspec.json.Encoder().encode_lines(batch.to_pylist())


class Parquet(Encoding):
    suffixes = (".parquet", ".pq")

    def head(self, schema: Any) -> bytes:
        written: bytes = schema.serialize().to_pybytes()
        return written

    def encode(self, batch: Any) -> bytes:
        written: bytes = batch.serialize().to_pybytes()
        return written

    def finish(self, grown: Path, finished: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        if not grown.exists():
            return
        assembled = grown.with_suffix(".parquet")
        with (
            grown.open("rb") as file,
            pa.ipc.open_stream(file) as stream,
            parquet.ParquetWriter(assembled, stream.schema) as writer,
        ):
            waiting: list[Any] = []
            rows = 0
            for batch in stream:
                waiting.append(batch)
                rows += batch.num_rows
                if rows >= GROUP:
                    writer.write_table(pa.Table.from_batches(waiting), row_group_size=rows)
                    waiting, rows = [], 0
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting), row_group_size=rows)
        with assembled.open("rb+") as whole:
            os.fsync(whole.fileno())
        assembled.replace(finished)


ENCODINGS: tuple[Encoding, ...] = (Parquet(), Csv(), JsonLines())


def encoding_of(output: Path) -> Encoding:
    """The encoding that a file's name asks for."""
    for encoding in ENCODINGS:
        if output.suffix.lower() in encoding.suffixes:
            return encoding
    known = ", ".join(suffix for encoding in ENCODINGS for suffix in encoding.suffixes)
    raise InvalidInput.at("output", f"a name that ends with one of {known}", output.name)
