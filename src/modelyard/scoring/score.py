"""The batch job itself: read a piece, predict, write, and now and then a checkpoint."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelyard.errors import Conflict, InvalidInput, ModelFailed, NotFound
from modelyard.interfaces import Predict
from modelyard.schema import Array, Columns, Field, Signature, check_outputs
from modelyard.scoring.dates import date_forms
from modelyard.scoring.filling import fill
from modelyard.scoring.journal import Job, Journal, sync_folder
from modelyard.scoring.writing import Encoding, Shape, arrow_array, arrow_type, encoding_of
from modelyard.tables.pieces import Piece, Rejected, Source, check_names, open_source

if TYPE_CHECKING:
    from modelyard.bundle import Bundle, Trust

#: Called with what is done and the total: bytes of a CSV file, rows of a Parquet file.
Progress = Callable[[int, int], None]


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch job did. ``resumed_at`` is the row after which it went on; 0 where it began at the start."""

    output: str
    rows: int
    scored: int
    rejected: int
    rejected_file: str | None
    resumed_at: int
    seconds: float


def score(
    bundle: Bundle,
    input: Path,
    output: Path,
    *,
    trust: Trust | None = None,
    device: str = "cpu",
    **options: Any,
) -> Scored:
    """Apply a bundle's model to a file; see ``score_with`` for the options."""
    from modelyard.bundle import Trust

    predict = bundle.load(trust=trust or Trust(), device=device)
    return score_with(predict, bundle.signature, bundle.digest, input, output, **options)


def score_with(
    predict: Predict,
    signature: Signature,
    digest: str,
    input: Path,
    output: Path,
    *,
    keep: Iterable[str] | str = (),
    outputs: Iterable[str] | None = None,
    encoding: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    checkpoint_seconds: float = 1.0,
) -> Scored:
    """Apply ``predict`` to every row of ``input`` (CSV, also compressed, or Parquet) and write ``output`` (.parquet,
    .csv or .jsonl by its name).

    The output has the columns ``row`` (counted from 1), those of the input named by ``keep`` (``"all"`` for every
    one), and the model's ``outputs`` (all of them when None). A row that does not fit, or that the model refuses, goes
    to ``OUTPUT.rejected.csv`` with its line, the reason and its text. Killed at any moment, the same call goes on
    from the last checkpoint. Memory does not grow with the file.

    Raises Conflict where the output is there already, or where work begun on it was for another input or model;
    ``overwrite`` replaces both. Raises InvalidInput where the file lacks a column or writes dates that may be read in
    two ways, ModelFailed where the model
    refuses every row of a piece.
    """
    begun = time.perf_counter()
    form = encoding_of(output)
    source = open_source(input, encoding)
    if not output.parent.is_dir():
        raise NotFound(f"no such folder: {output.parent}", hint=f"mkdir -p {output.parent}")
    if output.is_dir():
        raise InvalidInput(f"a folder, not a file: {output}")
    if output.exists() and not overwrite and not output.with_name(output.name + ".partial").exists():
        raise Conflict(f"the output is there already: {output}", hint="--overwrite replaces it")
    plan = _Plan(signature, source, keep, outputs)
    facts = input.stat()
    job = Job(
        input=str(input.resolve()),
        input_size=facts.st_size,
        input_modified=facts.st_mtime_ns,
        model=digest,
        columns=f"{plan.shape.schema.names} {output.suffix.lower()}",
    )
    rejected_file = output.with_name(output.name + ".rejected.csv")
    with Journal(output, job, anew=overwrite) as journal:
        start = journal.checkpoint.place
        if not journal.checkpoint.done:
            if output.exists() and not overwrite:
                raise Conflict(f"the output is there already: {output}", hint="--overwrite replaces it")
            _run(plan, predict, source, form, journal, progress, checkpoint_seconds)
        journal.close_files()
        last = journal.checkpoint
        if journal.rejected_path.exists():
            if last.rejected:
                journal.rejected_path.replace(rejected_file)
            else:
                rejected_file.unlink(missing_ok=True)
        form.finish(journal.rows_path, output)
        sync_folder(output.parent)
        journal.remove()
    return Scored(
        output=str(output),
        rows=last.scored + last.rejected,
        scored=last.scored,
        rejected=last.rejected,
        rejected_file=str(rejected_file) if last.rejected else None,
        resumed_at=start.row,
        seconds=time.perf_counter() - begun,
    )


class _Plan:
    """Which columns are read, and which are written."""

    def __init__(
        self, signature: Signature, source: Source, keep: Iterable[str] | str, outputs: Iterable[str] | None
    ) -> None:
        self.signature = signature
        kept = source.names if keep == "all" else [keep] if isinstance(keep, str) else list(dict.fromkeys(keep))
        needed = [field.name for field in signature.inputs]
        check_names(source, needed, kept)
        self.wanted = list(dict.fromkeys([*needed, *kept]))
        self.decimal = source.decimal
        self.dates = date_forms(source, [field for field in signature.inputs if not field.shape])
        self._fields = {field.name: field for field in signature.inputs if not field.shape}
        # A kept column comes as the model saw it where the file is text, else as it is.
        self._typed = self._fields if source.is_text else {}
        types = [arrow_type(self._typed[n]) if n in self._typed else source.type_of(n) for n in kept]
        self.shape = Shape(_chosen(signature, outputs), list(zip(kept, types, strict=True)))

    def kept(self, table: Any, columns: Columns, good: Array) -> list[Any]:
        """The kept columns of the ``good`` rows."""
        arrays = []
        for name, kind in self.shape.kept:
            if name in self._typed:
                arrays.append(arrow_array(columns[name][good], self._typed[name]))
            else:
                arrays.append(table.column(name).take(good).cast(kind).combine_chunks())
        return arrays


def _chosen(signature: Signature, outputs: Iterable[str] | None) -> Sequence[Field]:
    if outputs is None:
        return signature.outputs
    known = {field.name: field for field in signature.outputs}
    chosen = []
    for name in outputs:
        if name not in known:
            raise NotFound.among("output", name, known)
        chosen.append(known[name])
    return chosen


def _run(
    plan: _Plan,
    predict: Predict,
    source: Source,
    form: Encoding,
    journal: Journal,
    progress: Progress | None,
    checkpoint_seconds: float,
) -> None:
    scored, rejected = journal.checkpoint.scored, journal.checkpoint.rejected
    if not journal.checkpoint.written:
        journal.append(form.head(plan.shape.schema), _rejected_rows([("line", "row", "reason", "text")]))
        journal.commit()
    place = journal.checkpoint.place
    due = time.monotonic() + checkpoint_seconds
    for piece in source.pieces(plan.wanted, place):
        batch, set_aside = _one(plan, predict, piece, proven=scored > 0)
        journal.append(form.encode(batch) if batch.num_rows else b"", _rejected_rows(set_aside))
        scored += batch.num_rows
        rejected += len(set_aside)
        place = piece.end
        if time.monotonic() >= due:
            journal.commit(place=place, scored=scored, rejected=rejected)
            due = time.monotonic() + checkpoint_seconds
        if progress is not None:
            progress(source.done, source.size)
    journal.commit(place=place, scored=scored, rejected=rejected, done=True)


def _one(plan: _Plan, predict: Predict, piece: Piece, *, proven: bool) -> tuple[Any, list[Rejected]]:
    """The batch to write for a piece, and the rows that are set aside, in the order of the file."""
    columns, faults = fill(piece.table, plan.signature, plan.decimal, plan.dates)
    reasons = faults.reasons
    good = np.flatnonzero(~faults.bad)
    fit = columns if len(good) == columns.rows else columns.take(good)
    answers, failed = _predict(predict, fit, plan.signature, proven=proven)
    if failed:
        reasons.update({int(good[i]): reason for i, reason in failed.items()})
        good = np.delete(good, list(failed))
    numbers = np.asarray(piece.numbers, dtype="int64")[good]
    batch = plan.shape.batch(numbers, plan.kept(piece.table, columns, good), answers)
    set_aside = [*piece.rejected, *(piece.reject(i, reason) for i, reason in reasons.items())]
    return batch, sorted(set_aside, key=lambda rejected: rejected.row)


def _predict(
    predict: Predict, columns: Columns, signature: Signature, *, proven: bool
) -> tuple[Columns, dict[int, str]]:
    """The answers, and why the model rejected the rows that it rejected: they are found by halving.

    Raises ModelFailed where it refuses every one: then the fault is not in the rows.
    """
    layout = signature.output_layout
    if not columns.rows:
        return _nothing(signature), {}
    try:
        return check_outputs(predict(columns), columns.rows), {}
    except (ModelFailed, InvalidInput) as error:
        whole = error
    answers: list[Columns] = []
    failed: dict[int, str] = {}
    waiting = [(0, columns.rows)]
    while waiting:
        start, stop = waiting.pop()
        try:
            answers.append(check_outputs(predict(columns.slice(start, stop)), stop - start))
        except (ModelFailed, InvalidInput) as error:
            if stop - start == 1:
                failed[start] = error.message
                if len(failed) >= 100 and not answers and not proven:
                    raise whole from None
            else:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]
    if not answers and not proven:
        raise whole
    return layout.concatenate([_nothing(signature), *answers]), failed


def _nothing(signature: Signature) -> Columns:
    layout = signature.output_layout
    blocks = [
        np.empty((0, len(b.names)) if b.is_scalar else (0, *(max(s, 0) for s in b.shape)), dtype=b.storage)
        for b in layout.blocks
    ]
    return Columns(layout, blocks, 0)


def _rejected_rows(rows: Sequence[Any]) -> bytes:
    if not rows:
        return b""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
