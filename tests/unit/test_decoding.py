"""JSON rows: the three forms, and what every kind of bad body is told."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from modelyard.decoding import NOT_PLAIN, RowDecoder, ValuesDecoder, check_json
from modelyard.errors import InvalidInput
from modelyard.schema import Field

X1 = Field(name="x1", dtype="float64")
X2 = Field(name="x2", dtype="float64")
MIXED = (
    Field(name="age", dtype="int64"),
    Field(name="income", dtype="float64", nullable=True),
    Field(name="city", dtype="string", nullable=True),
    Field(name="member", dtype="bool"),
    Field(name="since", dtype="datetime"),
)
GOOD = b'{"age":41,"income":null,"city":"","member":true,"since":"1970-01-02"}'


def told(fields: tuple[Field, ...], body: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        RowDecoder.of(fields).decode(body)
    return caught.value


def only(fields: tuple[Field, ...], body: bytes) -> tuple[str, str, str]:
    problems = told(fields, body).problems
    assert len(problems) == 1, problems
    return problems[0].path, problems[0].expected, problems[0].got


def first(field: Field, text: str) -> Any:
    """What one value of a field is stored as."""
    columns = RowDecoder.of((field,)).decode(f'{{"{field.name}":[{text}]}}'.encode()).columns
    assert columns is not None
    return columns[field.name][0]


class TestForms:
    def test_a_record_is_one_row_in_layout_order(self) -> None:
        request = RowDecoder.of(MIXED).decode(GOOD)
        assert (request.rows, request.form) == (1, "record")
        layout = RowDecoder.of(MIXED).layout
        assert request.tuples is not None
        row = dict(zip((f.name for f in layout.fields), request.tuples[0], strict=True))
        assert row == {"age": 41, "income": None, "city": None, "member": True, "since": 86400.0}

    def test_a_list_of_records(self) -> None:
        request = RowDecoder.of((X1, X2)).decode(b' [{"x1":1,"x2":2},{"x2":4,"x1":3}]')
        assert (request.rows, request.form, request.tuples) == (2, "records", [(1.0, 2.0), (3.0, 4.0)])

    def test_columns(self) -> None:
        request = RowDecoder.of((X1, X2)).decode(b'{"x2":[2,4],"x1":[1,3]}')
        assert (request.rows, request.form) == (2, "columns")
        assert request.columns is not None
        assert request.columns.blocks[0].tolist() == [[1.0, 2.0], [3.0, 4.0]]

    def test_columns_of_every_type(self) -> None:
        body = (
            b'{"age":[41,42],"income":[null,1.5],"city":["","Rome"],"member":[true,false],'
            b'"since":["1970-01-01T00:01:00Z","1970-01-01"]}'
        )
        columns = RowDecoder.of(MIXED).decode(body).columns
        assert columns is not None
        assert columns["age"].tolist() == [41, 42]
        assert np.isnan(columns["income"][0]) and columns["income"][1] == 1.5
        assert columns["city"].tolist() == [None, "Rome"]
        assert columns["member"].tolist() == [True, False]
        assert columns["since"].tolist() == [60.0, 0.0]

    def test_a_vector_field_tells_record_and_columns_apart(self) -> None:
        vector = Field(name="v", dtype="float32", shape=(3,))
        decoder = RowDecoder.of((vector, X1))
        record = decoder.decode(b'{"v":[1,2,3],"x1":0}')
        assert (record.form, record.rows) == ("record", 1)
        columns = decoder.decode(b'{"v":[[1,2,3],[4,5,6]],"x1":[0,1]}')
        assert (columns.form, columns.rows) == ("columns", 2)
        assert columns.columns is not None and columns.columns["v"].shape == (2, 3)
        alone = RowDecoder.of((vector,))
        assert alone.decode(b'{"v":[1,2,3]}').form == "record"
        assert alone.decode(b'{"v":[[1,2,3]]}').form == "columns"

    def test_rows_of_varying_shape_are_joined_only_where_they_agree(self) -> None:
        decoder = RowDecoder.of((Field(name="v", dtype="float64", shape=(-1, 2)),))
        request = decoder.decode(b'[{"v":[[1,2],[3,4]]},{"v":[[5,6],[7,8]]}]')
        assert request.columns is not None and request.columns["v"].shape == (2, 2, 2)
        with pytest.raises(InvalidInput, match="unequal shapes"):
            decoder.decode(b'[{"v":[[1,2],[3,4]]},{"v":[[5,6]]}]')

    def test_ragged_columns_of_texts_are_refused_too(self) -> None:
        field = Field(name="words", dtype="string", shape=(-1,))
        assert "unequal shapes" in str(told((field,), b'{"words":[["a"],["b","c"]]}'))

    @pytest.mark.parametrize("name", ["a:b", 'quo"te', "naïve", "100 %", "f0", "x.y", "class"])
    def test_any_name_may_be_a_column(self, name: str) -> None:
        import msgspec

        body = msgspec.json.encode({name: 1.5})
        assert RowDecoder.of((Field(name=name, dtype="float64"),)).decode(body).tuples == [(1.5,)]


class TestNumbers:
    @pytest.mark.parametrize(
        ("dtype", "text", "value"),
        [
            ("int8", "-128", -128), ("int8", "127", 127), ("uint8", "255", 255),
            ("int64", "9223372036854775807", 2**63 - 1),
            ("uint64", "18446744073709551615", 2**64 - 1), ("int16", "3.0", 3), ("int64", "1e3", 1000),
            ("float32", "3.4028235e38", np.float32(3.4028235e38)), ("float64", "1", 1.0), ("float64", "1e-400", 0.0),
            ("float16", "65504", 65504.0), ("bool", "true", True),
        ],
    )  # fmt: skip
    def test_what_fits(self, dtype: str, text: str, value: Any) -> None:
        assert first(Field(name="a", dtype=dtype), text) == value

    @pytest.mark.parametrize(
        ("dtype", "text", "expected", "got"),
        [
            ("int8", "128", "a whole number from -128 to 127", "128"),
            ("uint8", "-1", "a whole number from 0 to 255", "-1"),
            ("int64", "9223372036854775808", "a whole number from", "9223372036854775808"),
            ("uint64", "18446744073709551616", "a whole number from 0", "18446744073709551616"),
            ("int64", "1.5", "a whole number (int64)", "1.5, which has a fraction"),
            ("int64", "1e300", "a whole number (int64)", "1e+300"),
            ("int64", "1" * 5000, "a whole number (int64)", "1" * 37 + "..."),
            ("float64", "1e400", "a number that fits float64", "1e400"),
            ("float64", "-1e400", "a number that fits float64", "-1e400"),
            ("float64", "1" + "0" * 350, "a number that fits float64", "1" + "0" * 36 + "..."),
            ("float32", "1e39", "a number that fits float32", "1e+39"),
            ("float16", "65520", "a number that fits float16", "65520"),
            ("float64", "true", "a number (float64)", "true"),
            ("float64", '"1.5"', "a number (float64)", 'the text "1.5"'),
            ("float64", "null", "a number (float64)", "null"),
            ("float64", "NaN", "a number (float64)", "NaN"),
            ("float64", "Infinity", "a number (float64)", "Infinity"),
            ("float64", "-Infinity", "a number (float64)", "-Infinity"),
            ("bool", "1", "true or false", "1"),
            ("string", "1", "a text", "1"),
            ("string", "[]", "a text", "a list"),
            ("string", '{"a":1}', "a text", "an object"),
            ("string", "null", "a text", "null"),
            ("datetime", '"yesterday"', "an ISO 8601 date or time", 'the text "yesterday"'),
            ("datetime", "12", "an ISO 8601 date or time", "12"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit(self, dtype: str, text: str, expected: str, got: str) -> None:
        body = f'{{"a":1,"b":{text}}}'.encode()
        path, wanted, came = only((Field(name="a", dtype="int8"), Field(name="b", dtype=dtype)), body)
        assert (path, came) == ("b", got)
        assert wanted.startswith(expected)

    def test_nan_is_told_to_send_null(self) -> None:
        assert told((X1,), b'{"x1":NaN}').hint == "JSON has no NaN and no infinity"
        gaps = (Field(name="x1", dtype="float64", nullable=True),)
        assert told(gaps, b'{"x1":NaN}').hint == "JSON has no NaN and no infinity; send null for a missing value"

    def test_a_nullable_integer_must_be_exact_in_a_double(self) -> None:
        field = Field(name="n", dtype="int64", nullable=True)
        assert first(field, str(2**53)) == 2**53
        assert only((field,), b'{"n":9007199254740993}')[2] == "9007199254740993"


class TestNames:
    def test_an_unknown_column_names_the_nearest(self) -> None:
        error = told((Field(name="tenure", dtype="float64"),), b'{"tenur":1,"tenure":2}')
        assert error.problems[0].path == "tenur"
        assert error.problems[0].got == "an unknown column"
        assert error.hint == "did you mean tenure?"

    def test_a_missing_column_is_named(self) -> None:
        assert only((X1, X2), b'{"x1":1}') == ("x2", "a number (float64)", "nothing: the column is missing")

    def test_a_missing_nullable_column_is_told_to_send_null(self) -> None:
        assert told((Field(name="a", dtype="string", nullable=True),), b"{}").hint == "send null for a missing value"

    def test_rows_in_a_list_are_numbered(self) -> None:
        error = told((X1, X2), b'[{"x1":1,"x2":2},{"x1":"a"},7]')
        assert [p.path for p in error.problems] == ["[1].x2", "[1].x1", "[2]"]

    def test_values_in_columns_are_numbered(self) -> None:
        assert only((X1, X2), b'{"x1":[1,null],"x2":[2,3]}')[0] == "x1[1]"

    def test_elements_of_a_vector_are_numbered(self) -> None:
        field = Field(name="v", dtype="float64", shape=(2, 2))
        assert only((field,), b'[{"v":[[1,2],[3,"4"]]}]')[0] == "[0].v[1][1]"
        assert only((field,), b'{"v":[[1,2],[3]]}') == ("v[1]", "a list of 2", "a list of 1")

    def test_at_most_ten_problems_are_told(self) -> None:
        rows = ",".join('{"x1":"no","x2":null}' for _ in range(1000))
        assert len(told((X1, X2), f"[{rows}]".encode()).problems) == 10


class TestRepeatedKeys:
    @pytest.mark.parametrize(
        "body",
        [
            b'{"x1":1,"x2":2,"x1":3}',
            b'{"x1" : 1,"x2" :2,"x1":3}',
            b'[{"x1":1,"x2":2},{"x1":1,"x2":2,"x2":2}]',
            b'{"x1":[1],"x2":[2],"x2":[3]}',
            b'{"x1":1,"x2":2,"x\\u0031":3}',
        ],
    )
    def test_are_found_even_where_every_value_is_right(self, body: bytes) -> None:
        problems = told((X1, X2), body).problems
        assert problems[0].got == "the same key twice"

    def test_colons_inside_texts_are_not_keys(self) -> None:
        fields = (Field(name="a", dtype="string"), Field(name="b", dtype="datetime"))
        body = b'{"a":"x:y","b":"1970-01-01T00:00:00+00:00"}'
        RowDecoder.of(fields).plain(body)  # not sent to the slow reading
        assert told(fields, body[:-1] + b',"a":"x:y"}').problems[0].path == "a"

    def test_an_escaped_colon_does_not_hide_a_repeated_key(self) -> None:
        fields = (Field(name="a", dtype="string"),)
        assert "twice" in str(told(fields, b'{"a":"b","a":"\\u003a"}'))


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "got"),
        [
            (b"", "nothing: it is empty"),
            (b"  \n", "nothing: it is empty"),
            (b'{"x1": 1', "a text that ends too early, at byte 8"),
            (b'{"x1', "a text that ends too early, at byte 4"),
            (b'{"x1": 1}}', 'the end of it is followed by "}" at byte 9'),
            (b'{"x1": 01}', '"1}" at byte 8'),
            (b"\xff\xfe", "byte 0xff at offset 0"),
            (b'{"x1": "\xc3\x28"}', "byte 0xc3 at offset 8"),
            (b"x1=1", '"x1=1" at byte 0'),
        ],
    )
    def test_that_are_not_json(self, body: bytes, got: str) -> None:
        path, expected, came = only((X1,), body)
        assert path == "body" and "JSON" in expected
        assert got in came

    @pytest.mark.parametrize("body", [b"1", b'"x"', b"null", b"true"])
    def test_that_are_no_rows(self, body: bytes) -> None:
        assert only((X1,), body)[:2] == ("body", "an object or a list of objects")

    @pytest.mark.parametrize("body", [b"[]", b'{"x1":[],"x2":[]}'])
    def test_without_rows(self, body: bytes) -> None:
        assert only((X1, X2), body)[1].startswith("at least one")

    def test_columns_of_unequal_lengths(self) -> None:
        assert only((X1, X2), b'{"x1":[1,2],"x2":[1]}') == ("x2", "2 values, as in the other columns", "1")

    def test_a_mixture_of_columns_and_single_values(self) -> None:
        assert only((X1, X2), b'{"x1":[1,2],"x2":3}')[0] == "x2"

    def test_a_byte_order_mark_is_passed_over(self) -> None:
        assert RowDecoder.of((X1,)).decode(b'\xef\xbb\xbf{"x1":1}').tuples == [(1.0,)]

    def test_half_a_surrogate_pair_is_no_text(self) -> None:
        assert "surrogate" in only((Field(name="a", dtype="string"),), b'{"a":"\\ud800"}')[2]

    @pytest.mark.parametrize("start", [b"[", b'{"x1":', b'{"x1":['])
    def test_ten_megabytes_of_nesting_are_refused_quickly(self, start: bytes) -> None:
        started = time.process_time()
        error = told((X1,), start * (10_000_000 // len(start)))
        assert "nested too deep" in str(error)
        assert time.process_time() - started < 5  # a quadratic reading would take hours

    def test_a_long_number_takes_no_quadratic_time(self) -> None:
        started = time.process_time()
        told((Field(name="a", dtype="int64"),), b'{"a":' + b"1" * 5_000_000 + b"}")
        assert time.process_time() - started < 5

    def test_empty_text_is_missing_only_where_it_may_be(self) -> None:
        assert first(Field(name="a", dtype="string"), '""') == ""
        assert first(Field(name="a", dtype="string", nullable=True), '""') is None

    def test_the_fast_reading_takes_what_is_plainly_right(self) -> None:
        assert RowDecoder.of(MIXED).plain(GOOD).rows == 1
        with pytest.raises(NOT_PLAIN):
            RowDecoder.of((X1,)).plain(b'{"x1":NaN}')


class TestValues:
    def test_flat_and_nested(self) -> None:
        decoder = ValuesDecoder.of(X1)
        assert decoder.decode(b"[1,2,3,4]", [2, 2], "data") == [1, 2, 3, 4]
        assert decoder.decode(b"[[1,2],[3,4]]", [2, 2], "data") == [1, 2, 3, 4]
        assert decoder.decode(b"[[[1],[2]],[[3],[4]]]", [2, 2, 1], "data") == [1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("text", "path", "got"),
        [
            (b'[1,"2"]', "data[1]", 'the text "2"'),
            (b"[[1,2],[3]]", "data[1]", "a list of 1"),
            (b"[[1,2]]", "data", "a list of 1"),
            (b"3", "data", "3"),
            (b"[1,NaN]", "data[1]", "NaN"),
        ],
    )
    def test_wrong(self, text: bytes, path: str, got: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            ValuesDecoder.of(X1).decode(text, [2, 2], "data")
        assert (caught.value.problems[0].path, caught.value.problems[0].got) == (path, got)


def test_check_json_finds_repeats_wherever_they_are() -> None:
    check_json(b'{"a":[{"b":1},{"b":2}]}')
    with pytest.raises(InvalidInput, match=r"a\[1\].b: expected each key once"):
        check_json(b'{"a":[{"b":1},{"b":2,"b":3}]}')


@pytest.mark.parametrize("nullable", [False, True])
def test_a_float_for_a_whole_number_is_taken_only_where_it_is_one_number(nullable: bool) -> None:
    field = (Field(name="n", dtype="int64", nullable=nullable),)
    assert RowDecoder.of(field).decode(b'{"n": 9007199254740991.0}').tuples == [(2**53 - 1,)]
    assert "expected a whole number" in str(told(field, b'{"n": 9007199254740993.0}'))
