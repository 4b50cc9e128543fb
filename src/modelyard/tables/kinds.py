"""What kind of values a column of text holds, decided over the whole column, and their conversion."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from modelyard.tables.source import LISTED, arrow


@dataclass(frozen=True)
class Kind:
    """``bool``, ``int``, ``float``, ``date`` (with its strptime format; empty for ISO 8601), ``text`` or ``empty``."""

    name: str
    format: str = ""

    def describe(self) -> str:
        words = {"bool": "true or false", "int": "a whole number", "float": "a number", "text": "a text"}
        return words.get(self.name) or f"a date written {spoken(self.format)}"


BOOL, INT, FLOAT, ISO, TEXT, EMPTY = (
    Kind("bool"), Kind("int"), Kind("float"), Kind("date"), Kind("text"), Kind("empty"),
)  # fmt: skip
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_ISO = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$"
_ZONED = r"(Z|:\d{2}[+-]\d{2}:?\d{2}|\.\d+[+-]\d{2}:?\d{2})$"
_DATE = re.compile(r"(\d{1,4})([/.\-])(\d{1,2})\2(\d{1,4})(?:([ T])\d{1,2}:\d{2}(:\d{2})?( ?[APap][Mm])?)?")
#: Whole numbers that are codes, and not quantities.
ZERO_FIRST, LONG, TOO_LONG = r"^0\d", r"^-?\d{19,}$", "has whole numbers too long to be numbers"
#: A column is of a kind if at least this share of its values is; the others are then faults to be named.
MOST = 0.95


def spoken(format: str) -> str:
    """A date format as people write it: day/month/year."""
    if not format:
        return "as ISO 8601"
    words = {"%d": "day", "%m": "month", "%Y": "year", "%H": "hh", "%I": "hh", "%M": "mm", "%S": "ss", "%p": "AM"}
    return re.sub(r"%\w", lambda m: words[m.group()], format)


def date_formats(value: str) -> list[Kind]:
    """The ways in which one text may be a date; two where day and month might be either way round."""
    if re.match(_ISO, value):
        return [ISO]
    found = _DATE.fullmatch(value)
    if not found:
        return []
    first, mark, _, last, gap, seconds, half = found.groups()
    time = ""
    if gap:
        time = gap + ("%I" if half else "%H") + ":%M" + (":%S" if seconds else "")
        time += half.replace(half.strip(), "%p") if half else ""
    if len(first) == 4:
        return [Kind("date", f"%Y{mark}%m{mark}%d{time}")] if len(last) <= 2 else []
    if len(last) != 4 or len(first) > 2:
        return []
    return [Kind("date", f"%d{mark}%m{mark}%Y{time}"), Kind("date", f"%m{mark}%d{mark}%Y{time}")]


def convert(texts: Any, kind: Kind, decimal: str = ".") -> tuple[Any, Any]:
    """``texts`` (an arrow array of strings, null where missing) as values of ``kind``.

    Returns the values, null where missing or wrong, and a mask of the wrong ones: None where there are none.
    """
    pa = arrow()
    pc = pa.compute
    if kind.name == "text":
        return texts, None
    if kind.name == "empty":
        return pa.nulls(len(texts), pa.float64()), None
    if kind.name == "bool":
        lower = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
        yes = pc.equal(lower, "true")
        wrong = pc.invert(pc.or_(yes, pc.equal(lower, "false")))
        return _masked(yes, wrong)
    if kind.name == "date":
        return _dates(texts, kind)
    if decimal == "," and kind is not INT:
        texts = pc.replace_substring(texts, ",", ".")
    target = pa.int64() if kind.name == "int" else pa.float64()
    try:
        return texts.cast(target), None
    except pa.ArrowInvalid:
        texts = pc.replace_substring_regex(pc.utf8_trim_whitespace(texts), r"^\+", "")
        pattern = r"^-?\d{1,18}$" if kind.name == "int" else _NUMBER
        good = pc.match_substring_regex(texts, pattern)
        return _masked(pc.if_else(good, texts, None).cast(target), pc.invert(good))


def _masked(values: Any, wrong: Any) -> tuple[Any, Any]:
    pc = arrow().compute
    wrong = pc.fill_null(wrong, False)
    if not pc.any(wrong).as_py():
        return values, None
    return pc.if_else(wrong, None, values), wrong


def _dates(texts: Any, kind: Kind) -> tuple[Any, Any]:
    pa = arrow()
    pc = pa.compute
    moment = pa.timestamp("us")
    if not kind.format:
        try:
            return texts.cast(moment), None
        except pa.ArrowInvalid:
            pass
        texts = pc.utf8_trim_whitespace(texts)
        good = pc.match_substring_regex(texts, _ISO)
        zoned = pc.and_(good, pc.match_substring_regex(texts, _ZONED))
        try:
            with_zone = pc.if_else(zoned, texts, None).cast(pa.timestamp("us", "UTC")).cast(moment)
            without = pc.if_else(pc.and_not(good, zoned), texts, None).cast(moment)
        except pa.ArrowInvalid:  # of the right shape, but no date: 2011-02-31
            return _one_by_one(texts)
        return _masked(pc.coalesce(with_zone, without), pc.invert(good))
    shape = re.escape(kind.format).replace("%Y", r"\d{4}")
    shape = re.sub(r"%p", "[APap][Mm]", re.sub(r"%[dmHIMS]", r"\\d{1,2}", shape))
    texts = pc.utf8_trim_whitespace(texts)
    good = pc.match_substring_regex(texts, f"^{shape}$")
    values = pc.strptime(pc.if_else(good, texts, None), format=kind.format, unit="us", error_is_null=True)
    return _masked(values, pc.and_(pc.is_valid(texts), pc.is_null(values)))


def _one_by_one(texts: Any) -> tuple[Any, Any]:
    import datetime as dt

    pa = arrow()
    values: list[Any] = []
    wrong = []
    for text in texts.to_pylist():
        try:
            value = None if text is None else dt.datetime.fromisoformat(text)
            if value is not None and value.tzinfo is not None:
                value = value.astimezone(dt.UTC).replace(tzinfo=None)
            wrong.append(False)
        except ValueError:
            value = None
            wrong.append(True)
        values.append(value)
    return _masked(pa.array(values, pa.timestamp("us")), pa.array(wrong))


@dataclass
class Evidence:
    """What has been seen of one column, block by block; ``settle`` names its kind."""

    decimal: str = "."
    present: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    #: Kinds that may still be, narrowest first; None before the first value.
    kinds: list[Kind] | None = None
    #: Values that are not of the column's kind: their number, and (row, text) of the first.
    odd: int = 0
    first_odd: list[tuple[int, str]] = field(default_factory=list)
    why_text: str = ""

    def see(self, texts: Any, row: int) -> None:
        """Look at the next ``texts`` (nulls are missing), the first of which is row ``row``."""
        count = len(texts) - texts.null_count
        self.present += count
        if not count:
            return
        if self.kinds is None:
            self.kinds = self._guess(texts.drop_null().slice(0, 2000))
            if self.kinds == [FLOAT]:
                self._set_code(texts, LONG, TOO_LONG)
        if not self.kinds:
            return
        if self.kinds[0] in (INT, FLOAT):
            self._see_numbers(texts, row, self.kinds[0])
            return
        faults = [(kind, convert(texts, kind)[1]) for kind in self.kinds]
        fitting = [kind for kind, wrong in faults if wrong is None]
        if fitting:
            self.kinds = fitting
        else:
            self._set_odd(texts, row, *min(faults, key=lambda fault: _count(fault[1])))

    def _guess(self, head: Any) -> list[Kind]:
        """The kinds that nearly all of the first values fit."""
        dates: list[Kind] = []
        for text in head.slice(0, 20).to_pylist():
            dates += [kind for kind in date_formats(text.strip()) if kind not in dates]
        for group in ([BOOL], [INT], [FLOAT], dates):
            fitting = [kind for kind in group if _is_few(_count(convert(head, kind, self.decimal)[1]), len(head))]
            if fitting:
                return fitting
        return []

    def _see_numbers(self, texts: Any, row: int, kind: Kind) -> None:
        wrong = convert(texts, kind, self.decimal)[1]
        if kind is INT and wrong is None:
            # a leading zero means something in a code: 007 is not 7
            self._set_code(texts, ZERO_FIRST, "has whole numbers with leading zeros")
            return
        if kind is INT and self._set_code(texts, LONG, TOO_LONG):
            return
        if kind is INT:
            kind, wrong = FLOAT, convert(texts, FLOAT, self.decimal)[1]
        self.kinds = [kind]
        if wrong is not None:
            self._set_odd(texts, row, kind, wrong)

    def _set_code(self, texts: Any, pattern: str, why: str) -> bool:
        pc = arrow().compute
        if pattern == ZERO_FIRST and not pc.any(pc.starts_with(texts, "0")).as_py():  # the cheap question first
            return False
        found = texts.filter(pc.fill_null(pc.match_substring_regex(texts, pattern), False))
        if not len(found):
            return False
        self.kinds = []
        self.why_text = f"{why}, such as {found[0]}: read as codes, that is as text"
        return True

    def _set_odd(self, texts: Any, row: int, kind: Kind, wrong: Any) -> None:
        places = [i for i, bad in enumerate(wrong.to_pylist()) if bad]
        self.odd += len(places)
        self.first_odd += [(row + i, texts[i].as_py()) for i in places[: LISTED - len(self.first_odd)]]
        self.kinds = [kind]
        if not _is_few(self.odd, self.present):
            self.kinds = []
            self.why_text = f"is read as text: {self.odd} of its values are not {kind.describe()}, such as " + repr(
                self.first_odd[0][1]
            )

    def settle(self) -> Kind:
        """The kind of the column."""
        if self.kinds is None:
            return EMPTY
        if len(self.kinds) > 1:
            first, second = (spoken(kind.format) for kind in self.kinds[:2])
            self.why_text = (
                f"is read as text: its dates may be {first} or {second}; write them as ISO 8601 (2024-12-31)"
            )
            return TEXT
        return self.kinds[0] if self.kinds else TEXT


def _count(mask: Any) -> int:
    return 0 if mask is None else int(arrow().compute.sum(mask).as_py() or 0)


def _is_few(odd: int, present: int) -> bool:
    """Whether so few values are of another kind that they are faults, and not another kind of column."""
    return odd <= present * (1 - MOST) or (odd == 1 and present >= 4)
