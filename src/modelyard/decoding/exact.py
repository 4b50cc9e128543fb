"""The exact reading of JSON rows: says everything that is wrong with a body, and decides what is right."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelyard.decoding.fast import FLOAT_LIMITS, integer_range
from modelyard.errors import MOST_PROBLEMS, InvalidInput, Problem
from modelyard.messages import Request
from modelyard.schema import EXACT_INTEGER, INTEGER_RANGES, Field, seconds_since_epoch

if TYPE_CHECKING:
    from modelyard.decoding.fast import RowDecoder

#: Digits after which a number is no longer read, only reported: no double is that large.
MOST_DIGITS = 400

_SEND_NULL = "send null for a missing value"
_NO_NAN = "JSON has no NaN and no infinity"


class Enough(Exception):
    """Enough problems were found."""


class Problems(list[Problem]):
    """The problems found so far, and the hint of the first that has one."""

    hint = ""

    def add(self, path: str, expected: str, got: str, hint: str = "") -> None:
        self.append(Problem(path, expected, got))
        self.hint = self.hint or hint
        if len(self) >= MOST_PROBLEMS:
            raise Enough


class Token:
    """A number that JSON or a double does not have: ``NaN``, ``1e400``."""

    def __init__(self, text: str) -> None:
        self.text = text


class Repeated(dict[str, Any]):
    """An object in which a key came twice."""

    key = ""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated = Repeated(found)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            repeated.key = key
            break
        seen.add(key)
    return repeated


def _float(text: str) -> float | Token:
    number = float(text)
    return number if math.isfinite(number) else Token(text)


def _integer(text: str) -> int | Token:
    return int(text) if len(text) <= MOST_DIGITS else Token(text)


_decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=Token, parse_float=_float, parse_int=_integer)


def parse(body: bytes, what: str = "body") -> Any:
    """The JSON value of ``body``, with ``Token`` and ``Repeated`` where it is not quite JSON.

    Raises InvalidInput where it is not JSON at all.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        got = f"byte 0x{body[error.start]:02x} at offset {error.start}"
        raise InvalidInput.at(what, "JSON in UTF-8", got) from None
    if not text.strip():
        raise InvalidInput.at(what, "a JSON object or list", "nothing: it is empty")
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidInput.at(what, "JSON", _describe_syntax(text, error)) from None
    except RecursionError:
        raise InvalidInput.at(what, "values nested as the signature says", "lists or objects nested too deep") from None


def check_json(body: bytes) -> None:
    """Raise InvalidInput where ``body`` is not JSON, or a key comes twice in an object, or a number is none."""
    problems = Problems()
    with contextlib.suppress(Enough):
        _look_for_repeats(parse(body), "", problems)
    if problems:
        raise InvalidInput.of(problems, hint=problems.hint)


def _look_for_repeats(value: Any, path: str, problems: Problems) -> None:
    if isinstance(value, Repeated):
        problems.add(f"{path}.{value.key}".lstrip("."), "each key once", "the same key twice")
    if isinstance(value, dict):
        for key, inside in value.items():
            _look_for_repeats(inside, f"{path}.{key}".lstrip("."), problems)
    elif isinstance(value, list):
        for i, inside in enumerate(value):
            if isinstance(inside, (dict, list, Token)):
                _look_for_repeats(inside, f"{path}[{i}]", problems)
    elif isinstance(value, Token):
        problems.add(path, "a JSON number", got(value), _NO_NAN)


def _describe_syntax(text: str, error: json.JSONDecodeError) -> str:
    offset = len(text[: error.pos].encode("utf-8", "surrogatepass"))
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"a text that ends too early, at byte {len(text.encode('utf-8', 'surrogatepass'))}"
    if error.msg == "Extra data":
        return (
            f"a JSON value, but the end of it is followed by {_show(text[error.pos : error.pos + 20])} at byte {offset}"
        )
    return f"{_show(text[error.pos : error.pos + 20])} at byte {offset} (line {error.lineno}): {error.msg}"


def read(body: bytes, decoder: RowDecoder) -> Request:
    """The rows in ``body``. Raises InvalidInput with every problem found, up to ``MOST_PROBLEMS``."""
    value = parse(body)
    problems = Problems()
    request: Request | None = None
    try:
        if isinstance(value, dict):
            form = _columns if _looks_like_columns(value, decoder) else _record
            request = form(value, decoder, problems)
        elif isinstance(value, list):
            request = _records(value, decoder, problems)
        else:
            problems.add("body", "an object or a list of objects", got(value))
    except Enough:
        pass
    if problems or request is None:
        raise InvalidInput.of(problems, hint=problems.hint)
    return request


def _looks_like_columns(value: dict[str, Any], decoder: RowDecoder) -> bool:
    """Whether the first known field holds one level of lists more than one of its rows would."""
    by_name = {field.name: field for field in decoder.fields}
    for name, inside in value.items():
        field = by_name.get(name)
        if field is not None:
            depth = 0
            while isinstance(inside, list) and depth <= len(field.shape):
                depth += 1
                inside = inside[0] if inside else None
            return depth > len(field.shape)
    return False


def _record(value: dict[str, Any], decoder: RowDecoder, problems: Problems) -> Request | None:
    row = _row(value, decoder, "", problems)
    return _request(decoder, [row], "record", problems)


def _records(values: list[Any], decoder: RowDecoder, problems: Problems) -> Request | None:
    if not values:
        problems.add("body", "at least one record", "an empty list")
    rows: list[tuple[Any, ...]] = []
    for i, value in enumerate(values):
        if isinstance(value, dict):
            rows.append(_row(value, decoder, f"[{i}].", problems))
        else:
            example = json.dumps(dict.fromkeys([f.name for f in decoder.fields][:2], "…"), ensure_ascii=False)
            problems.add(f"[{i}]", "an object", got(value), f"each record names its columns, as in {example}")
    return _request(decoder, rows, "records", problems)


def _request(decoder: RowDecoder, rows: list[tuple[Any, ...]], form: str, problems: Problems) -> Request | None:
    if problems:
        return None
    try:
        return decoder.request_of(rows, form)
    except ValueError:
        problems.add("body", "rows whose values have one shape", "rows of unequal shapes")
        return None


def _row(value: dict[str, Any], decoder: RowDecoder, prefix: str, problems: Problems) -> tuple[Any, ...]:
    check_names(value, decoder, prefix, problems)
    return tuple(
        element(value[field.name], field, field.shape, f"{prefix}{field.name}", problems)
        if field.name in value
        else None
        for field in decoder.layout.fields
    )


def _columns(value: dict[str, Any], decoder: RowDecoder, problems: Problems) -> Request | None:
    check_names(value, decoder, "", problems)
    lists: list[list[Any]] = []
    rows = -1
    for field in decoder.layout.fields:
        if field.name not in value:
            continue
        values = value[field.name]
        if not isinstance(values, list):
            problems.add(field.name, "a list with one value a row, as in the other columns", got(values))
            continue
        if rows < 0:
            rows = len(values)
        elif len(values) != rows:
            problems.add(field.name, f"{rows} values, as in the other columns", str(len(values)))
        lists.append([element(v, field, field.shape, f"{field.name}[{i}]", problems) for i, v in enumerate(values)])
    if rows == 0 and not problems:
        problems.add("body", "at least one row", "columns without values")
    if problems:
        return None
    try:
        return decoder.request_of_columns(lists)
    except ValueError:
        problems.add("body", "rows whose values have one shape", "rows of unequal shapes")
        return None


def check_names(value: dict[str, Any], decoder: RowDecoder, prefix: str, problems: Problems) -> None:
    names = [field.name for field in decoder.fields]
    if isinstance(value, Repeated):
        problems.add(f"{prefix}{value.key}", "each key once", "the same key twice")
    for name in value:
        if name not in decoder.layout.places:
            near = difflib.get_close_matches(name, names, n=1)
            known = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
            hint = f"did you mean {near[0]}?" if near else ""
            problems.add(f"{prefix}{_clip(name)}", f"one of the columns {known}", "an unknown column", hint)
    for field in decoder.fields:
        if field.name not in value:
            hint = _SEND_NULL if field.nullable else ""
            problems.add(f"{prefix}{field.name}", field.describe(), "nothing: the column is missing", hint)


def element(value: Any, field: Field, shape: Sequence[int], path: str, problems: Problems) -> Any:
    """The stored form of a value, or None with a problem added. ``shape`` is what is left of the field's."""
    if shape:
        return _nested(value, field, shape, path, problems)
    if value is None and field.nullable:
        return None
    expected = _describe_element(field)
    if isinstance(value, Token):
        is_word = value.text.strip("-") in ("NaN", "Infinity")
        if not is_word and field.dtype.startswith("float"):  # 1e400 is a number, but no double
            expected = f"a number that fits {field.dtype}"
        hint = f"{_NO_NAN}; {_SEND_NULL}" if field.nullable else _NO_NAN
        problems.add(path, expected, got(value), hint if is_word else "")
    elif field.dtype in ("string", "datetime"):
        return _text(value, field, path, expected, problems)
    elif field.dtype == "bool":
        if isinstance(value, bool):
            return value
        problems.add(path, expected, got(value))
    elif field.dtype in INTEGER_RANGES:
        return _whole(value, field, path, expected, problems)
    else:
        return _number(value, field, path, expected, problems)
    return None


def _nested(value: Any, field: Field, shape: Sequence[int], path: str, problems: Problems) -> list[Any] | None:
    if not isinstance(value, list):
        problems.add(path, field.describe(), got(value))
        return None
    if shape[0] >= 0 and len(value) != shape[0]:
        problems.add(path, f"a list of {shape[0]}", f"a list of {len(value)}")
        return None
    return [element(v, field, shape[1:], f"{path}[{i}]", problems) for i, v in enumerate(value)]


def _text(value: Any, field: Field, path: str, expected: str, problems: Problems) -> Any:
    if not isinstance(value, str):
        problems.add(path, expected, got(value))
        return None
    if field.dtype == "datetime":
        try:
            return seconds_since_epoch(value)
        except (ValueError, OverflowError):
            problems.add(path, expected, got(value))
            return None
    try:
        value.encode()
    except UnicodeEncodeError:
        problems.add(path, "a text of whole characters", "half of a surrogate pair")
    return value or None if field.nullable else value


def _whole(value: Any, field: Field, path: str, expected: str, problems: Problems) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        problems.add(path, expected, got(value))
        return None
    # From 2**53 on, several whole numbers are written as the same float.
    if isinstance(value, float) and (not value.is_integer() or abs(value) >= EXACT_INTEGER):
        problems.add(path, expected, f"{value}, which has a fraction" if value % 1 else got(value))
        return None
    low, high = integer_range(field)
    if not low <= value <= high:
        problems.add(path, f"a whole number from {low} to {high}", got(value))
        return None
    return int(value)


def _number(value: Any, field: Field, path: str, expected: str, problems: Problems) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        problems.add(path, expected, got(value))
        return None
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    limit = FLOAT_LIMITS.get(field.dtype, math.inf)
    if not -limit < number < limit:
        problems.add(path, f"a number that fits {field.dtype}", got(value))
        return None
    return number


def _describe_element(field: Field) -> str:
    if not field.shape:
        return field.describe()
    return Field(name=field.name, dtype=field.dtype, nullable=field.nullable).describe()


def read_values(text: bytes, field: Field, shape: Sequence[int], path: str) -> list[Any]:
    """The elements of a list that is flat or nested as ``shape``, row after row. Raises InvalidInput."""
    values = parse(text, path)
    problems = Problems()
    found: list[Any] = []
    try:
        if not isinstance(values, list):
            problems.add(path, "a list", got(values))
        else:
            is_nested = len(shape) > 1 and bool(values) and isinstance(values[0], list)
            _flatten(values, field, shape if is_nested else (len(values),), path, problems, found)
    except Enough:
        pass
    if problems:
        raise InvalidInput.of(problems, hint=problems.hint)
    return found


def _flatten(values: Any, field: Field, shape: Sequence[int], path: str, problems: Problems, into: list[Any]) -> None:
    if not isinstance(values, list) or len(values) != shape[0]:
        problems.add(
            path, f"a list of {shape[0]}", f"a list of {len(values)}" if isinstance(values, list) else got(values)
        )
        return
    for i, value in enumerate(values):
        if len(shape) > 1:
            _flatten(value, field, shape[1:], f"{path}[{i}]", problems, into)
        else:
            into.append(element(value, field, (), f"{path}[{i}]", problems))


def got(value: Any) -> str:
    """What came, in words for an error message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {_show(value)}"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, Token):
        return _clip(value.text)
    return _clip(str(value))


def _show(text: str) -> str:
    return json.dumps(_clip(text), ensure_ascii=not text.isprintable())


def _clip(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
