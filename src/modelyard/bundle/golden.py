"""Golden rows: some inputs with the outputs that the original model gave for them.

They are replayed whenever a model is loaded. That is the one check that catches what digests cannot: another version
of a library, another processor, a damaged conversion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from modelyard.bundle.manifest import canonical
from modelyard.errors import BadBundle, ModelFailed, ModelyardError
from modelyard.interfaces import Predict
from modelyard.schema import Array, Columns, Field, Layout, Signature

FEWEST, MOST = 20, 100
#: The rows of large tensors are few, so that the file stays small.
MOST_ELEMENTS = 200_000

#: For models kept in their own format, whose code is the same but whose libraries and processor may not be.
NATIVE_TOLERANCE = 1e-6

#: The same for numbers in single precision: in which order a processor adds them up shows in the sixth digit. Ten
#: times what kernels with packed and with mapped weights were seen to differ by.
SINGLE_TOLERANCE = 2e-5


def native_tolerance(signature: Signature) -> float:
    """The tolerance of a model that is kept in its own format."""
    narrow = any(field.dtype in ("float16", "float32") for field in (*signature.inputs, *signature.outputs))
    return SINGLE_TOLERANCE if narrow else NATIVE_TOLERANCE


class Golden(msgspec.Struct):
    """Inputs, the outputs expected for them, and the tolerance: |got - expected| <= tolerance * (1 + |expected|)."""

    inputs: Columns
    outputs: Columns
    tolerance: float

    def to_json(self) -> bytes:
        """Canonical bytes. Every value comes back exactly; infinities are written as words."""
        return canonical({"tolerance": self.tolerance, "inputs": _plain(self.inputs), "outputs": _plain(self.outputs)})

    @classmethod
    def from_json(cls, data: bytes, signature: Signature) -> Golden:
        """Raises BadBundle where the rows do not fit the signature."""
        try:
            plain = msgspec.json.decode(data)
            inputs = _columns(plain["inputs"], signature.input_layout)
            outputs = _columns(plain["outputs"], signature.output_layout)
            if inputs.rows != outputs.rows:
                raise BadBundle(f"{inputs.rows} inputs have {outputs.rows} outputs")
            return cls(inputs, outputs, float(plain["tolerance"]))
        except (msgspec.DecodeError, ModelyardError, KeyError, TypeError, ValueError, RecursionError) as error:
            detail = error.message if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"
            raise BadBundle(f"golden.json does not fit the signature: {detail}") from None

    def check(self, predict: Predict) -> None:
        """Replay the rows. Raises ModelFailed naming row, output, expected and got."""
        got = predict(self.inputs)
        if got.rows != self.inputs.rows:
            raise ModelFailed(f"golden rows: the model answered {got.rows} rows for {self.inputs.rows}")
        for field in self.outputs.layout.fields:
            expected = self.outputs[field.name]
            if field.name not in got:
                raise ModelFailed(f"golden rows: the model gave no output {field.name}")
            wrong = self._wrong(field, expected, got[field.name])
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise ModelFailed(
                    f"golden row {row} is not reproduced: output {field.name}, "
                    f"expected {_plain_value(expected[row])!r}, got {_plain_value(got[field.name][row])!r}",
                    hint="a library or the processor differs from where it was packaged; a bundle made here would fit",
                    row=row,
                    output=field.name,
                    rows=int(wrong.sum()),
                )

    def _wrong(self, field: Field, expected: Array, got: Array) -> Array:
        """Which rows differ by more than the tolerance."""
        rows = len(expected)
        if expected.shape != got.shape:
            return np.ones(rows, dtype=bool)
        if expected.dtype.kind == "f" and got.dtype.kind in "biuf" and not self._is_label(field):
            with np.errstate(invalid="ignore"):
                close = np.abs(got - expected) <= self.tolerance * (1.0 + np.abs(expected))
            same = close | (got == expected) | (np.isnan(got) & np.isnan(expected))
        else:
            same = np.array([a == b for a, b in zip(got.ravel().tolist(), expected.ravel().tolist(), strict=True)])
            same = same.reshape(expected.shape)
        wrong: Array = ~same.reshape(rows, -1).all(axis=1)
        return wrong & ~self._tied(expected, got) if self._is_label(field) else wrong

    def _is_label(self, field: Field) -> bool:
        return field.name == "prediction" and "probabilities" in self.outputs and not field.shape

    def _tied(self, expected: Array, got: Array) -> Array:
        """Rows whose label may go either way: both labels have the same probability within the tolerance."""
        probabilities = self.outputs["probabilities"]
        labels = {label: i for i, label in enumerate(_labels(self.outputs.layout))}
        tied = np.zeros(len(expected), dtype=bool)
        for row, (wanted, came) in enumerate(zip(expected.tolist(), got.tolist(), strict=True)):
            one, two = labels.get(str(wanted)), labels.get(str(came))
            if one is not None and two is not None and one != two:
                gap = abs(probabilities[row, one] - probabilities[row, two])
                tied[row] = gap <= 4 * self.tolerance
        return tied


def _labels(layout: Layout) -> tuple[str, ...]:
    return next((f.categories or () for f in layout.fields if f.name == "probabilities"), ())


def choose_rows(columns: Columns, outputs: Columns) -> Array:
    """Indices of rows to keep, ascending: per column one with a missing value and both extremes, one per label, and
    rows at even distances up to at least ``FEWEST``. Depends on nothing but the values.
    """
    elements = sum(int(np.prod(block.shape[1:])) for block in columns.blocks) or 1
    most = max(1, min(MOST, MOST_ELEMENTS // elements))
    chosen = dict.fromkeys(_even(columns.rows, min(FEWEST, most)))
    for row in _telling(columns, outputs):
        if len(chosen) >= most:
            break
        chosen[row] = None
    return np.array(sorted(chosen), dtype="int64")


def _even(rows: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype("int64")).tolist() if rows else []


def _telling(columns: Columns, outputs: Columns) -> Iterable[int]:
    scalars = [field for field in columns.layout.fields if not field.shape]
    for field in scalars:
        values = columns[field.name]
        gaps = [v is None for v in values.tolist()] if field.storage == "object" else values != values
        yield from np.flatnonzero(gaps)[:1].tolist()
    for field in outputs.layout.fields[:1]:
        first: dict[Any, int] = {}
        for row, value in enumerate(outputs[field.name].tolist()):
            if field.shape or field.dtype.startswith("float") or len(first) >= FEWEST:
                break
            first.setdefault(value, row)
        yield from first.values()
    for field in scalars:
        values = columns[field.name]
        if field.storage != "object" and (finite := np.flatnonzero(np.isfinite(values))).size:
            yield int(finite[values[finite].argmin()])
            yield int(finite[values[finite].argmax()])


def _plain(columns: Columns) -> dict[str, list[Any]]:
    return {name: [_plain_value(value) for value in columns[name].tolist()] for name in columns}


def _plain_value(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain_value(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None if value != value else "inf" if value > 0 else "-inf"
    return value


def _columns(plain: Mapping[str, list[Any]], layout: Layout) -> Columns:
    if set(plain) != set(layout.names):
        raise BadBundle(f"it has columns {', '.join(plain)} for {', '.join(layout.names)}")
    fields = {field.name: field for field in layout.fields}
    blocks = []
    for block in layout.blocks:
        arrays = [_array(plain[name], fields[name]) for name in block.names]
        blocks.append(np.stack(arrays, axis=1) if block.is_scalar else arrays[0])
    rows = {len(block) for block in blocks}
    if len(rows) != 1:
        raise BadBundle("its columns are not equally long")
    return Columns(layout, blocks, rows.pop())


def _array(values: list[Any], field: Field) -> Array:
    """``values`` as written by ``_plain``: None is NaN in floating storage, and the words are infinities."""
    if field.storage == "object" and not field.shape:
        return np.array([*values, None], dtype=object)[:-1]
    array = np.array(values, dtype="object" if field.storage == "object" else field.storage)
    if array.ndim != 1 + len(field.shape):
        raise BadBundle(f"column {field.name} has shape {list(array.shape)}")
    return array
