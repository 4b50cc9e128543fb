"""Outputs as one text a row, which is what answers are put together from."""

from __future__ import annotations

import csv
import io
import math
import reprlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from modelyard.errors import InvalidInput
from modelyard.messages import Batch, Message, Request, Response
from modelyard.schema import Field

_encode = msgspec.json.encode


def is_labelled(field: Field) -> bool:
    """Whether the last axis of an output is named by labels, so that it is an object in JSON."""
    return field.shape == (len(field.categories or ()),) and field.is_numeric and bool(field.shape)


class RowTexts:
    """Outputs as one JSON text a row: ``{"prediction":"no","probabilities":{"no":0.9,"yes":0.1}}``, or, where they
    may be ``bare``, the value alone of a single one.
    """

    def __init__(self, outputs: tuple[Field, ...], bare: bool) -> None:
        self._bare = outputs[0].name if bare and len(outputs) == 1 else None
        #: Each output, and how many labels its values are apart for; 0 where they stay together.
        self._widths = [(field.name, len(field.categories or ()) if is_labelled(field) else 0) for field in outputs]
        members = [f"{_escaped(field.name)}:{_template(field)}" for field in outputs]
        self._row = ("{" + ",".join(members) + "}").encode()

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(outputs: tuple[Field, ...], bare: bool = True) -> RowTexts:
        return RowTexts(outputs, bare)

    def render(self, batch: Batch) -> list[bytes]:
        """Every row of a batch, made once for all its requests."""
        if self._bare is not None:
            return batch.texts(self._bare)
        found: list[bytes] | None = batch.kept.get(self)
        if found is None:
            parts: list[list[bytes]] = []
            for name, width in self._widths:
                if width:
                    cells = batch.cells(name)
                    parts.extend(cells[i::width] for i in range(width))
                else:
                    parts.append(batch.texts(name))
            template = self._row
            found = batch.kept[self] = [template % values for values in zip(*parts, strict=True)]
        return found


def _escaped(text: str) -> str:
    """A text as JSON inside a template of ``%``."""
    return _encode(text).decode().replace("%", "%%")


def _template(field: Field) -> str:
    if not is_labelled(field):
        return "%b"
    labels = (_escaped(label) for label in field.categories or ())
    return "{" + ",".join(f"{label}:%b" for label in labels) + "}"


def main_outputs(outputs: Sequence[Field]) -> tuple[Field, ...]:
    """What protocols answer that have no place for more than a prediction: it alone, where the model has one."""
    return tuple(field for field in outputs if field.name == "prediction") or tuple(outputs)


class Predictions:
    """``{"predictions": [...]}``, one a row, of the outputs that a request chooses or else of the ``usual`` ones."""

    def __init__(self, outputs: tuple[Field, ...], usual: tuple[Field, ...]) -> None:
        self._outputs = {field.name: field for field in outputs}
        self._usual = usual
        self._texts = RowTexts.of(usual)

    def take(self, request: Request, text: bytes | None, path: str) -> None:
        """Note the parameters of a request, JSON in ``text``; ``outputs`` among them chooses, others mean nothing."""
        if not text or text == b"null":
            return
        try:
            given = msgspec.json.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise InvalidInput.at(path, "an object", str(error)) from None
        if not isinstance(given, dict):
            raise InvalidInput.at(path, "an object", type(given).__name__)
        request.parameters = given
        if "outputs" in given:
            request.outputs = self.choose(given["outputs"], f"{path}.outputs")

    def choose(self, names: Any, path: str) -> tuple[str, ...]:
        """The outputs that a caller asks for. Raises InvalidInput where that is no list of their names."""
        known = list(self._outputs)  # names may be values that have no hash
        if not isinstance(names, list) or not names or any(name not in known for name in names):
            raise InvalidInput.at(
                path,
                f"a list of outputs: {', '.join(known)}",
                names[:60] if isinstance(names, str) else reprlib.repr(names),
            )
        return tuple(dict.fromkeys(names))

    def chosen(self, request: Request) -> tuple[Field, ...]:
        """The outputs of the answer."""
        return self._usual if request.outputs is None else tuple(self._outputs[name] for name in request.outputs)

    def rows(self, request: Request, response: Response) -> list[bytes]:
        """One JSON text a row."""
        texts = self._texts if request.outputs is None else RowTexts.of(self.chosen(request))
        return texts.render(response.batch)[response.start : response.stop]

    def answer(self, request: Request, response: Response) -> Message:
        return Message(b'{"predictions":[' + b",".join(self.rows(request, response)) + b"]}")


def csv_of(batch: Batch, outputs: Sequence[Field], start: int, stop: int) -> bytes:
    """Rows as CSV without a header: a cell for each output, and for each element of one with a shape."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns: list[list[Any]] = [_cells(batch.values(field.name)[start:stop]) for field in outputs]
    writer.writerows([cell for cells in row for cell in cells] for row in zip(*columns, strict=True))
    return text.getvalue().encode()


def csv_header(outputs: Sequence[Field]) -> bytes:
    """The header of such rows: ``prediction,probabilities.no,probabilities.yes``."""
    text = io.StringIO()
    names: list[str] = []
    for field in outputs:
        width = math.prod(field.shape)
        labels = field.categories if is_labelled(field) and field.categories else map(str, range(width))
        names += [f"{field.name}.{label}" for label in labels] if field.shape else [field.name]
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


def _cells(values: list[Any]) -> list[list[Any]]:
    return [_flat(value) for value in values]


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [cell for inner in value for cell in _flat(inner)]
    return ["true" if value else "false"] if isinstance(value, bool) else [value]
