"""Rows as record batches of Arrow: a line a row, with what is kept of its inputs, and its outputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard.errors import MissingDependency
from modelyard.recording.arms import read_arm
from modelyard.recording.capture import REASONS
from modelyard.recording.flags import Found
from modelyard.recording.frames import Refusal
from modelyard.recording.redaction import Buckets, hashed, removals
from modelyard.recording.rows import Rows
from modelyard.recording.subject import Subject
from modelyard.registry.redaction import Policy
from modelyard.schema import Array, Field

if TYPE_CHECKING:
    import pyarrow

STAGE_COLUMNS = ("decode_s", "queue_s", "predict_s", "encode_s", "total_s")


def arrow() -> Any:
    """The library. Raises MissingDependency."""
    try:
        import pyarrow
    except ImportError:
        raise MissingDependency.extra("pyarrow", "records", "keeping predictions") from None
    return pyarrow


def load_without_pandas() -> None:
    """Load the library, if it is there, in a process that should stay small. Its own pools of memory keep more of what
    was let go of than the system's. And it looks for pandas, once, when it first makes an array or a scalar of values
    of Python or numpy, and takes it along where it is installed, which costs 50 MB and half a second.

    Nothing plainer keeps pandas out (pyarrow 26): there is no setting; a given type or ``from_pandas=False`` changes
    nothing; what does not look (``nulls``, arrays made of buffers or over the C interface) takes no texts of Python;
    and None in ``sys.modules``, which stops an import anywhere else, is no module to Cython but no error either.
    """

    class Hiding(MetaPathFinder):
        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            if name == "pandas":
                raise ImportError("pandas is not wanted here")

    hiding = Hiding()
    sys.meta_path.insert(0, hiding)
    try:
        with suppress(MissingDependency):
            arrow().set_memory_pool(arrow().system_memory_pool())
            arrow().array([])
    finally:
        sys.meta_path.remove(hiding)


class Recipe:
    """How rows of one version become batches under one policy; ``key`` is the secret of hashes."""

    def __init__(self, subject: Subject, policy: Policy | None, key: Callable[[], bytes]) -> None:
        pa = arrow()
        signature = subject.signature
        self.subject = subject
        self.policy = policy
        self._key = key
        self.removed = removals(policy, (field.name for field in signature.inputs))
        parts = {p.field: p for p in (subject.reference.inputs if subject.reference else []) if not p.part}
        #: For each input what is made of the values of kept rows where they are not to stay as they are.
        self._inputs: list[tuple[Field, Callable[[list[Any]], list[Any]] | None]] = []
        for field in signature.inputs:
            action = self.removed.get(field.name)
            changed: Callable[[list[Any]], list[Any]] | None = None
            if action == "hash":
                changed = self._hashed
            elif action == "bucket" and field.name in parts:
                changed = Buckets(parts[field.name]).of
            elif action is not None:
                changed = _dropped
            self._inputs.append((field, changed))
        self._outputs = signature.outputs
        self._flags = pa.array(subject.flags.names, pa.string())
        sides = [(f"in.{f.name}", pa.string() if changed else _type(f)) for f, changed in self._inputs]
        sides += [(f"out.{field.name}", _type(field)) for field in self._outputs]
        self._head = _head_schema()
        self.schema = pa.schema([*self._head, *sides])

    def batch(self, rows: Rows, found: Found, reasons: Array) -> pyarrow.RecordBatch:
        """Rows with their flags, and why the inputs of each are kept (``capture.REASONS``)."""
        pa = arrow()
        count = rows.rows
        head: dict[str, Any] = {
            "prediction_id": rows.prediction_ids(),
            "request_id": rows.listed(rows.ids),
            "time": pa.array((rows.per_row(rows.wall) * 1e6).astype("int64")).cast(pa.timestamp("us", "UTC")),
            "code": rows.listed(rows.codes) if rows.codes else pa.repeat("ok", count),
            "client": self._client(rows.listed(rows.clients)) if rows.clients else None,
            "rows": rows.per_row(rows.whole),
            "batch": rows.per_row(rows.batch),
            "worker": pa.repeat(rows.worker, count),
            "flags": self._flagged(found, count),
            "kept": pa.array(REASONS).take(pa.array(reasons)),
            "removed": self._removed(reasons > 0),
        }
        if rows.arms:
            head |= _arms(rows.listed(rows.arms))
        for name, seconds in zip(STAGE_COLUMNS, rows.stages.T, strict=True):
            head[name] = rows.per_row(seconds)
        return self._made(head, count, rows, reasons)

    def refused(self, refusals: Sequence[Refusal], worker: int) -> pyarrow.RecordBatch:
        """Requests for which no model was called."""
        pa = arrow()
        is_open = not self.removed
        head: dict[str, Any] = {
            "prediction_id": [r.id for r in refusals],
            "request_id": [r.id for r in refusals],
            "time": pa.array([int(r.wall * 1e6) for r in refusals]).cast(pa.timestamp("us", "UTC")),
            **_arms([r.arm for r in refusals]),
            "code": [r.code for r in refusals],
            "client": self._client([r.client for r in refusals]),
            "rows": [0 for _ in refusals],
            "total_s": [r.done - r.received for r in refusals],
            "worker": [worker for _ in refusals],
            # What was wrong is told with the value.
            "reason": [r.reason if is_open else _at_fault(r) for r in refusals],
            "body": [r.body if is_open and r.body else None for r in refusals],
            "kept": ["error" if is_open and r.body else None for r in refusals],
        }
        return self._made(head, len(refusals), None, np.zeros(len(refusals), dtype="int8"))

    def _made(self, head: dict[str, Any], count: int, rows: Rows | None, reasons: Array) -> pyarrow.RecordBatch:
        pa = arrow()
        columns = []
        for field in self._head:
            values = head.get(field.name)
            if values is None:
                columns.append(pa.nulls(count, field.type))
            elif isinstance(values, (pa.Array, pa.ChunkedArray)):
                columns.append(values if values.type == field.type else values.cast(field.type))
            else:
                columns.append(pa.array(values, field.type))
        inputs, outputs = (rows.inputs, rows.outputs) if rows is not None else (None, None)
        gone = reasons == 0
        for field, changed in self._inputs:
            if inputs is None or gone.all():
                columns.append(pa.nulls(count, pa.string() if changed else _type(field)))
            elif changed is None:
                columns.append(_column(inputs[field.name], field, gone, has_gaps=True))
            else:
                values = np.full(count, None, dtype=object)
                values[~gone] = changed(inputs[field.name][~gone].tolist())
                columns.append(pa.array(values, pa.string()))
        for field in self._outputs:
            if outputs is None:
                columns.append(pa.nulls(count, _type(field)))
            else:
                columns.append(_column(outputs[field.name], field, None, has_gaps=False))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _hashed(self, values: list[Any]) -> list[Any]:
        return hashed(self._key(), values)

    def _client(self, clients: list[str]) -> list[str | None]:
        """Who asked may be what a column says: it is as secret as the most secret of them."""
        known = [client or None for client in clients]
        return hashed(self._key(), known) if self.removed else list(known)

    def _flagged(self, found: Found, count: int) -> Any:
        pa = arrow()
        if not len(found.rows):
            return pa.nulls(count, pa.list_(pa.string()))
        many = np.bincount(found.rows, minlength=count)
        offsets = np.concatenate(([0], np.cumsum(many))).astype("int32")
        texts = self._flags.take(pa.array(found.codes))
        return pa.ListArray.from_arrays(pa.array(offsets), texts, mask=pa.array(many == 0))

    def _removed(self, kept: Array) -> Any:
        pa = arrow()
        names = [f"{name}:{action}" for name, action in self.removed.items()]
        return pa.array([names if names and is_kept else None for is_kept in kept.tolist()], pa.list_(pa.string()))


def _arms(told: Sequence[str]) -> dict[str, list[Any]]:
    """Which arm each took, as columns."""
    took = [read_arm(text) for text in told]
    return {
        "alias": [each.alias or None for each in took],
        "revision": [each.revision or None for each in took],
        "arm": [each.arm or None for each in took],
        "pinned": [each.is_pinned if each.arm else None for each in took],
    }


def _at_fault(refusal: Refusal) -> str:
    return f"at fault: {', '.join(refusal.fields)}" if refusal.fields else refusal.code


def _dropped(values: list[Any]) -> list[Any]:
    return [None] * len(values)


def _head_schema() -> Any:
    pa = arrow()
    text, texts, number = pa.string(), pa.list_(pa.string()), pa.int32()
    return pa.schema(
        [
            ("prediction_id", text), ("request_id", text), ("time", pa.timestamp("us", "UTC")), ("arm", text),
            ("alias", text), ("revision", number), ("pinned", pa.bool_()), ("code", text), ("client", text),
            ("rows", number), *((name, pa.float64()) for name in STAGE_COLUMNS),
            ("batch", number), ("worker", number), ("flags", texts), ("kept", text), ("removed", texts),
            ("reason", text), ("body", pa.binary()),
        ]
    )  # fmt: skip


def _type(field: Field) -> Any:
    """The type of a field's storage; half floats, which few can read, as floats."""
    pa = arrow()
    storage = {"object": "string", "float16": "float32"}.get(field.storage, field.storage)
    kind = pa.string() if storage == "string" else pa.from_numpy_dtype(np.dtype(storage))
    for _ in field.shape:
        kind = pa.list_(kind)
    return kind


def _column(values: Array, field: Field, gone: Array | None, *, has_gaps: bool) -> Any:
    """Values of one field as an array; null where they are ``gone``, and where numbers are missing."""
    pa = arrow()
    if field.storage == "float16":
        values = values.astype("float32")
    if field.shape:
        return _nested(values, field, gone if gone is not None else np.zeros(len(values), dtype=bool))
    if has_gaps and values.dtype.kind == "f":
        missing = np.isnan(values)
        gone = missing if gone is None else gone | missing
    if values.dtype.hasobject:
        return _texts(values, gone)
    return pa.array(values, _type(field), mask=gone)


def _texts(values: Array, gone: Array | None = None) -> Any:
    pa = arrow()
    try:
        return pa.array(values, pa.string(), mask=gone)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # a model may answer with other things
        texts = [None if v is None or v != v else str(v) for v in values.tolist()]
        return pa.array(np.array([*texts, None], dtype=object)[:-1], pa.string(), mask=gone)


def _nested(values: Array, field: Field, gone: Array) -> Any:
    pa = arrow()
    chosen = values[~gone]
    array = _texts(chosen.ravel()) if values.dtype.hasobject else pa.array(chosen.ravel())
    for axis in range(values.ndim - 1, 1, -1):
        count = prod(chosen.shape[:axis])
        array = pa.ListArray.from_arrays(pa.array(np.arange(count + 1) * values.shape[axis], pa.int32()), array)
    ends = np.cumsum(np.where(gone, 0, values.shape[1]))
    offsets = pa.array(np.concatenate(([0], ends)), pa.int32())
    return pa.ListArray.from_arrays(offsets, array, mask=pa.array(gone))
