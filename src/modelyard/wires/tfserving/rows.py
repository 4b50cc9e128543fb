"""Reads ``instances`` and ``inputs``, the rows and the columns of a ``:predict``."""

from __future__ import annotations

from typing import Any, Union

import msgspec
from msgspec import UNSET

from modelyard.decoding.exact import Problems, check_names, got
from modelyard.decoding.fast import value_type
from modelyard.messages import Request
from modelyard.schema import Field
from modelyard.wires.tfserving.reader import Reader, element, is_object, wrapped_type

# Types made at run time, which a type checker cannot follow.
_LIST: Any = list
_UNION: Any = Union

_astuple = msgspec.structs.astuple

#: The name of the one input that stands for all, where all are numbers of one type.
MATRIX = "inputs"


def takes_matrix(fields: tuple[Field, ...]) -> bool:
    """Whether the inputs are numbers of one type, so that a list a row holds them all, in the signature's order."""
    return (
        len({(field.dtype, field.storage) for field in fields}) == 1
        and fields[0].is_numeric
        and not any(field.shape for field in fields)
        and MATRIX not in {field.name for field in fields}
    )


class PredictReader(Reader):
    """Reads ``{"instances": [...]}`` and ``{"inputs": ...}``."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        super().__init__(fields, "predict")
        self._only = fields[0] if len(fields) == 1 else None
        self._is_matrix = takes_matrix(fields)
        #: Whether a row may be the list of its values.
        self._has_lists = self._is_matrix or (self._only is not None and not self._only.shape)
        nullable = any(field.nullable for field in fields)
        self._required = [i for i, field in enumerate(self._ordered) if nullable and not field.nullable]
        #: The decoders to be tried in turn, each with the type of its objects and whether their values are wrapped.
        self._decoders = []
        if self._is_plain or self._bare_types():
            self._decoders.append(self._decoder(False))
        if self._is_plain and not any(field.shape for field in fields):
            self._decoders.append(self._decoder(True))

    def _bare_types(self) -> list[Any]:
        """The types that a row may have which names no input."""
        bare = [] if self._only is None else [value_type(self._only)]
        if self._has_lists:  # of any length: msgspec mistakes a union of a tuple and a number of a single bound
            element = value_type(self._fields[0])
            bare.append(_LIST[element | None if any(field.nullable for field in self._fields) else element])
        return bare

    def _decoder(self, wrapped: bool) -> tuple[Any, Any, bool]:
        options: Any = {"gc": False, "forbid_unknown_fields": True}
        bare = [] if wrapped else self._bare_types()
        instances, inputs, record = bare, [_LIST[_UNION[tuple(bare)]]] if bare else [], None
        if self._is_plain:
            record = self._record(wrapped)
            typed = wrapped_type if wrapped else value_type
            columns = [(f"f{i}", _LIST[typed(field)]) for i, field in enumerate(self._ordered)]
            instances = [record, *bare]
            inputs = [*inputs, msgspec.defstruct("Columns", columns, rename=self._rename, **options)]
        body = msgspec.defstruct(
            "Body",
            [
                ("signature_name", str | msgspec.UnsetType, UNSET),
                ("instances", _LIST[_UNION[tuple(instances)]] | msgspec.UnsetType, UNSET),
                ("inputs", _UNION[(*inputs, msgspec.UnsetType)], UNSET),
            ],
            **options,
        )
        return msgspec.json.Decoder(body).decode, record, wrapped

    def _plain(self, body: bytes) -> Request:
        found, record, wrapped = self._typed(body)
        if (found.instances is UNSET) is (found.inputs is UNSET):
            raise ValueError("one of the two, not both")
        form, values = ("rows", found.instances) if found.inputs is UNSET else ("columns", found.inputs)
        objects, rows = 0, values
        if type(values) is not list:
            objects, rows = 1, list(zip(*_astuple(values), strict=True))
        else:
            kinds = set(map(type, values))
            if kinds == {record}:
                objects, rows = len(values), [_astuple(value) for value in values]
            elif record in kinds or (self._has_lists and list in kinds and len(kinds) > 1):
                raise ValueError("several forms in one list")
            elif self._has_lists and list in kinds:
                rows = self._listed(values)
            else:
                rows = [(value,) for value in values]
        if not rows:
            raise ValueError("no rows")
        if wrapped:
            rows = [tuple([value for (value,) in row]) for row in rows]
        return self._request(body, rows, objects, found.signature_name, form)

    def _listed(self, values: list[list[Any]]) -> list[tuple[Any, ...]]:
        """Rows that came as lists of their values. Raises ValueError where one is too short, too long or has a gap."""
        if set(map(len, values)) != {len(self._fields)}:
            raise ValueError("a row of another length")
        rows = [tuple(row) for row in values]
        if self._required and any(row[i] is None for row in rows for i in self._required):
            raise ValueError("a missing value")
        return rows

    def _typed(self, body: bytes) -> tuple[Any, Any, bool]:
        """A body that one of the decoders takes, the type of its objects, and whether their values are wrapped."""
        fault: Exception = ValueError("not plain")
        for decode, record, wrapped in self._decoders:
            try:
                return decode(body), record, wrapped
            except msgspec.ValidationError as error:
                fault = error
        raise fault

    def _exactly(self, value: dict[str, Any], problems: Problems) -> Request | None:
        given = [key for key in ("instances", "inputs") if key in value]
        if len(given) != 1:
            told = "both" if given else "neither"
            problems.add("body", "either instances or inputs", told, 'rows go in "instances", columns in "inputs"')
            return None
        (key,) = given
        values = value[key]
        if key == "inputs" and is_object(values) and not (self._is_matrix and set(values) == {MATRIX}):
            return self._columns(values, problems)
        if key == "inputs" and isinstance(values, dict) and is_object(values):
            values = values[MATRIX]
        if not isinstance(values, list):
            problems.add(key, "a list with one element a row", got(values))
            return None
        if not values:
            problems.add(key, "at least one row", "an empty list")
            return None
        has_objects = key == "instances" and is_object(values[0])
        rows = [self._instance(one, f"{key}[{i}]", has_objects, problems) for i, one in enumerate(values)]
        return self._stored(rows, "rows" if key == "instances" else "columns", problems)

    def _instance(self, value: Any, path: str, has_objects: bool, problems: Problems) -> tuple[Any, ...]:
        if has_objects and is_object(value):
            if not (self._is_matrix and set(value) == {MATRIX}):
                return self._named(value, path, problems)
            value, path = value[MATRIX], f"{path}.{MATRIX}"
        elif has_objects:
            problems.add(path, "an object, as the first instance", got(value))
            return ()
        width, known = len(self._fields), ", ".join(field.name for field in self._fields[:20])
        if self._only is not None and not (isinstance(value, list) and not self._only.shape and len(value) != 1):
            return (element(value, self._only, self._only.shape, path, problems),)
        if not self._is_matrix:
            problems.add(path, f"an object with the inputs {known}", got(value))
        elif not isinstance(value, list) or len(value) != width:
            came = f"a list of {len(value)}" if isinstance(value, list) else got(value)
            problems.add(path, f"a list of {width} ({known}), or an object with these", came)
        else:
            return tuple(
                element(v, field, (), f"{path}[{i}]", problems)
                for i, (v, field) in enumerate(zip(value, self._ordered, strict=True))
            )
        return ()

    def _columns(self, value: dict[str, Any], problems: Problems) -> Request | None:
        check_names(value, self._rows, "inputs.", problems)
        lists: list[list[Any]] = []
        for field in self._ordered:
            path, values = f"inputs.{field.name}", value.get(field.name, [])
            if not isinstance(values, list):
                problems.add(path, "a list with one value a row", got(values))
                continue
            if lists and len(values) != len(lists[0]) and field.name in value:
                problems.add(path, f"{len(lists[0])} values, as in the other inputs", str(len(values)))
            lists.append([element(v, field, field.shape, f"{path}[{i}]", problems) for i, v in enumerate(values)])
        if not problems and not lists[0]:
            problems.add("inputs", "at least one row", "inputs without values")
        return None if problems else self._stored(list(zip(*lists, strict=True)), "columns", problems)
