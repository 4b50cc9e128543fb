"""Rows as lists, in any JSON form, and as CSV: what they mean, and what is said of those that are wrong."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.decoding import AnyDecoder, CsvDecoder, EnvelopeDecoder, ListsDecoder, RowDecoder, check_envelope
from modelyard.errors import InvalidInput
from modelyard.messages import Request
from modelyard.schema import Columns, Field, Layout

FIELDS = (
    Field(name="age", dtype="int32"),
    Field(name="city", dtype="string", nullable=True, categories=("Rome", "NA")),
    Field(name="height", dtype="float64"),
    Field(name="weight", dtype="float32", nullable=True),
    Field(name="member", dtype="bool"),
    Field(name="since", dtype="datetime", nullable=True),
)
ROW = [41, "Rome", 1.5, 70.5, True, "1970-01-02"]


def columns(request: Request, fields: tuple[Field, ...] = FIELDS) -> Columns:
    return request.columns if request.columns is not None else Layout.of(fields).from_tuples(request.tuples or [])


def rows(request: Request) -> list[list[Any]]:
    found = columns(request)
    return [list(row) for row in zip(*(found[field.name].tolist() for field in FIELDS), strict=True)]


def refusal(call: Any, *given: Any, **named: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        call(*given, **named)
    return "; ".join(map(str, caught.value.problems))


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


class TestLists:
    def test_the_order_of_the_signature(self) -> None:
        request = ListsDecoder.of(FIELDS).decode(dumps([ROW]), "data")
        assert rows(request) == [[41, "Rome", 1.5, 70.5, True, 86400.0]]

    def test_an_order_of_its_own_and_columns_passed_over(self) -> None:
        names = ("note", "since", "member", "weight", "height", "city", "age")
        decoder = ListsDecoder.of(FIELDS, names, True)
        request = decoder.decode(dumps([[{"any": "thing"}, *reversed(ROW)]]), "data")
        assert rows(request) == [[41, "Rome", 1.5, 70.5, True, 86400.0]]

    def test_missing_values(self) -> None:
        found = rows(ListsDecoder.of(FIELDS).decode(dumps([[1, None, 2, None, False, None]]), "data"))[0]
        assert found[1] is None and math.isnan(found[3]) and math.isnan(found[5])

    @pytest.mark.parametrize(
        ("names", "said"),
        [
            (("age", "city"), "the column height, got none"),
            ((*(f.name for f in FIELDS), "extra"), r"columns[6]: expected one of age"),
            ((*(f.name for f in FIELDS), "age"), "age twice"),
        ],
    )
    def test_wrong_names(self, names: tuple[str, ...], said: str) -> None:
        assert said in refusal(ListsDecoder.of, FIELDS, names)

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ([], "data: expected at least one row"),
            (ROW, "data[0]: expected a list of 6 (age, city, height, weight, member, since), got 41"),
            ([ROW[:5]], "data[0]: expected a list of 6"),
            ([[*ROW, 1]], "got a list of 7"),
            ([[1.5, *ROW[1:]]], "data[0][0]: expected a whole number (int32), got 1.5"),
            ([[2**31, *ROW[1:]]], "data[0][0]: expected a whole number from -2147483648"),
            ([ROW, ["41", *ROW[1:]]], 'data[1][0]: expected a whole number (int32), got the text "41"'),
            ([[*ROW[:5], "soon"]], 'data[0][5]: expected an ISO 8601 date or time or null, got the text "soon"'),
            ({"a": 1}, "data: expected a list of rows, got an object"),
        ],
    )
    def test_wrong_rows(self, value: Any, said: str) -> None:
        assert said in refusal(ListsDecoder.of(FIELDS).decode, dumps(value), "data")

    def test_a_whole_float_is_a_whole_number(self) -> None:
        assert rows(ListsDecoder.of(FIELDS).decode(dumps([[41.0, *ROW[1:]]]), "data"))[0][0] == 41


class TestAnyForm:
    def test_extras_are_passed_over_only_where_asked(self) -> None:
        record = dict(zip((f.name for f in FIELDS), ROW, strict=True)) | {"label": 1, "at": {"x": [1]}}
        assert rows(AnyDecoder.of(FIELDS, True).decode(dumps([record])))[0][0] == 41
        assert "[0].label" in refusal(AnyDecoder.of(FIELDS).decode, dumps([record]))
        assert "age" in refusal(AnyDecoder.of(FIELDS, True).decode, dumps([{**record, "age": "x"}]))

    def test_places_are_those_of_the_whole_body(self) -> None:
        assert "instances[0].age: " in refusal(AnyDecoder.of(FIELDS).decode, b'[{"age":1.5}]', "instances")
        assert "inputs.age: " in refusal(AnyDecoder.of(FIELDS).decode, b'{"age":1.5}', "inputs")

    @pytest.mark.parametrize(
        "text", ["[1.5, 2]", "[[1.5], [2]]", " [ 1.5,2.0]", '[{"x":1.5},{"x":2}]', '{"x":[1.5,2]}']
    )
    def test_values_of_a_single_field(self, text: str) -> None:
        fields = (Field(name="x", dtype="float64"),)
        assert columns(AnyDecoder.of(fields).decode(text.encode()), fields)["x"].tolist() == [1.5, 2.0]

    @pytest.mark.parametrize("text", ["[[1, 2], [3, 4]]", "[[[1, 2]], [[3, 4]]]"])
    def test_values_of_a_single_field_with_a_shape(self, text: str) -> None:
        fields = (Field(name="x", dtype="float64", shape=(2,)),)
        assert columns(AnyDecoder.of(fields).decode(text.encode()), fields)["x"].tolist() == [[1, 2], [3, 4]]

    @pytest.mark.parametrize(
        ("text", "said"),
        [("[[1], [2, 3]]", "[0]: expected a list of 2"), ("[1]", "body[0]"), ("3", "a list of rows"), ("", "empty")],
    )
    def test_wrong_values_of_a_single_field_with_a_shape(self, text: str, said: str) -> None:
        fields = (Field(name="x", dtype="float64", shape=(2,)),)
        assert said in refusal(AnyDecoder.of(fields).decode, text.encode())


class TestEnvelopes:
    def test_colons_in_texts_are_no_keys(self) -> None:
        body = b'{"rows":[["a:b"]],"id":"c:d"}'
        fields = (Field(name="x", dtype="string"),)
        request, others = EnvelopeDecoder(fields, rows=("rows",), others=("id",)).decode(body)
        assert request.tuples == [("a:b",)] and others == {"id": b'"c:d"'}
        check_envelope(b'{"a":":"}', 1)
        with pytest.raises(InvalidInput, match="twice"):
            check_envelope(b'{"a":1,"a":2}', 1)

    def test_a_body_that_is_none(self) -> None:
        envelopes = EnvelopeDecoder(FIELDS, rows=("rows", "more"))
        assert envelopes.open(b'{"rows":[1]}') == ("rows", b"[1]")
        assert envelopes.open(b'{"age":1}')[0] == envelopes.open(b"[")[0] == envelopes.open(b"[]")[0] == ""
        assert "exactly one of rows, more, got rows, more" in refusal(envelopes.decode, b'{"rows":[],"more":[]}')
        assert "too deep" in refusal(envelopes.decode, b'{"rows":' + b"[" * 100_000)


CSV = "age,city,height,weight,member,since\n"


class TestCsv:
    def test_rows(self) -> None:
        text = CSV + '41,Rome,1.5,70.5,true,1970-01-02\n7.0,"a, ""b""\nc",2,,no,\r\n\n8,NA,-1e3,NaN,1,NaT\n'
        found = rows(CsvDecoder.of(FIELDS).decode(text.encode()))
        assert found[0] == [41, "Rome", 1.5, 70.5, True, 86400.0]
        assert found[1][:3] == [7, 'a, "b"\nc', 2.0] and found[1][4] is False and math.isnan(found[1][3])
        assert found[2][1] == "NA"  # a category is no missing value
        assert math.isnan(found[2][5])

    def test_another_order_and_columns_passed_over(self) -> None:
        text = b"\xef\xbb\xbfsince,member,weight,height,city,age,\n,0,1,2,x,3,9\n"
        assert rows(CsvDecoder.of(FIELDS).decode(text, loose=True))[0][:3] == [3, "x", 2.0]
        assert "the unknown column" in refusal(CsvDecoder.of(FIELDS).decode, text)

    @pytest.mark.parametrize("text", [b"3,x,2,1,0,\n", CSV.encode() + b"3,x,2,1,0,\n"])
    def test_a_header_that_need_not_be(self, text: bytes) -> None:
        assert rows(CsvDecoder.of(FIELDS).decode(text, header=False))[0][:3] == [3, "x", 2.0]

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("1_0,x,2,1,0,", 'line 2, age: expected a whole number (int32), got the text "1_0"'),
            ("1.5,x,2,1,0,", "line 2, age"),
            ("99999999999,x,2,1,0,", "line 2, age: expected a whole number from"),
            (",x,2,1,0,", "line 2, age: expected a whole number (int32), got a missing value"),
            ("1,x,inf,1,0,", "line 2, height"),
            ("1,x,1e999,1,0,", "line 2, height"),
            ("1,x,nan,1,0,", "line 2, height: expected a number (float64), got a missing value"),
            ("1,x,2,1,maybe,", "line 2, member"),
            ("1,x,2,1,0,soon", "line 2, since"),
            ("1,x,2,1,0", "line 2: expected 6 cells, got 5"),
            ("1,x,2,1,0,,,", "line 2: expected 6 cells, got 8"),
            ('1,"x,2,1,0,', "unexpected end"),
            ('1,"x"y,2,1,0,', "line 2: expected a row of CSV"),
            ("", "at least one row after the header"),
        ],
    )
    def test_wrong_rows(self, line: str, said: str) -> None:
        assert said in refusal(CsvDecoder.of(FIELDS).decode, (CSV + line).encode())

    def test_what_is_no_text(self) -> None:
        assert "UTF-8" in refusal(CsvDecoder.of(FIELDS).decode, b"age\n\xff")
        assert "empty" in refusal(CsvDecoder.of(FIELDS).decode, b"\n\n")

    def test_lists_in_a_cell(self) -> None:
        fields = (Field(name="x", dtype="float64", shape=(2,)), Field(name="y", dtype="int8"))
        found = columns(CsvDecoder.of(fields).decode(b'x,y\n"[1, 2]",3\n"[4,5]",6\n'), fields)
        assert found["x"].tolist() == [[1, 2], [4, 5]]
        assert "line 2, x" in refusal(CsvDecoder.of(fields).decode, b'x,y\n"[1]",3\n')


PLAIN = (Field(name="x", dtype="float64"), Field(name="s", dtype="string"), Field(name="n", dtype="int64"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
TABLES = st.lists(
    st.tuples(st.floats(allow_nan=False, allow_infinity=False), TEXTS, st.integers(-(2**63), 2**63 - 1)),
    min_size=1,
    max_size=80,
)


@given(TABLES)
def test_every_form_means_the_same(table: list[tuple[float, str, int]]) -> None:
    records = [dict(zip("xsn", row, strict=True)) for row in table]
    expected = columns(RowDecoder.of(PLAIN).decode(dumps(records)), PLAIN)
    text = io.StringIO()
    csv.writer(text).writerows([["x", "s", "n"], *([repr(x), s, n] for x, s, n in table)])
    for request in (
        ListsDecoder.of(PLAIN, ("n", "x", "s")).decode(dumps([[n, x, s] for x, s, n in table]), "data"),
        CsvDecoder.of(PLAIN).decode(text.getvalue().encode()),
    ):
        found = columns(request, PLAIN)
        assert all(found[name].tolist() == expected[name].tolist() for name in "xsn")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_junk_is_refused_and_nothing_else(body: bytes) -> None:
    for call in (
        lambda: CsvDecoder.of(FIELDS).decode(body),
        lambda: CsvDecoder.of(PLAIN).decode(body, header=False),
        lambda: ListsDecoder.of(FIELDS).decode(body, "data"),
        lambda: AnyDecoder.of(FIELDS, True).decode(body),
        lambda: EnvelopeDecoder(FIELDS, rows=("a",), splits=("b",)).decode(body),
    ):
        try:
            assert call()
        except InvalidInput as error:
            assert error.problems
