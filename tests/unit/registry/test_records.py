"""Names, references and moments: what is taken, what is refused and with which words."""

import datetime as dt

import msgspec
import pytest

from modelyard.errors import InvalidInput
from modelyard.registry import Change, Reference, check_alias, check_name
from modelyard.registry.records import check_tag, check_text, now, read_moment

BAD = [
    "",
    ".hidden",
    "-x",
    "_x",
    "a/b",
    "../etc",
    "a\\b",
    "x" * 101,
    "x" * 300,
    "mödel",
    "🦆",
    "a b",
    "a\n",
    "a:1",
    "a@b",
]


@pytest.mark.parametrize("name", ["a", "7", "churn", "Churn-2.1_b", "x" * 100])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_told_the_rule(name: str) -> None:
    with pytest.raises(InvalidInput, match="model name: expected 1 to 100 of a-z, A-Z, 0-9") as caught:
        check_name(name)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("alias", [*BAD, "4", "9lives"])
def test_bad_aliases(alias: str) -> None:
    with pytest.raises(InvalidInput, match="alias: expected 1 to 100"):
        check_alias(alias)


@pytest.mark.parametrize("key", BAD)
def test_bad_tags(key: str) -> None:
    with pytest.raises(InvalidInput, match="tag: expected"):
        check_tag(key, "")


@pytest.mark.parametrize("text", ["a\0b", "\ud83d"])
def test_texts_that_no_database_keeps(text: str) -> None:
    with pytest.raises(InvalidInput, match="why: expected text"):
        check_text("why", text)
    with pytest.raises(InvalidInput, match="at most 10000 characters, got 10001"):
        check_text("why", "x" * 10_001)


DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("churn", Reference("churn")),
        ("churn:4", Reference("churn", number=4)),
        ("churn:004", Reference("churn", number=4)),
        ("churn@production", Reference("churn", alias="production")),
        ("7@blue-green", Reference("7", alias="blue-green")),
        (f"churn@{DIGEST}", Reference("churn", digest=DIGEST)),
        ("churn@sha256:0a0a0a0a0a0a", Reference("churn", digest="sha256:0a0a0a0a0a0a")),
    ],
)
def test_references(text: str, reference: Reference) -> None:
    assert Reference.parse(text) == reference


@pytest.mark.parametrize(
    "text",
    [*BAD[:12], ":4", "@production", "churn:", "churn:x", "churn:-1", "churn:1:2", "churn@", "churn@a@b", "churn:1@a",
     "churn@4", "churn@sha256:", "churn@sha256:0a0a0a0a0a0", "churn@sha256:" + "0a" * 33,
     "churn:" + "9" * 400, "churn:٤"],
)  # fmt: skip
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidInput):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("2026-11-23", "2026-11-23T00:00:00.000000Z"),
        ("2026-11-23T10:30", "2026-11-23T10:30:00.000000Z"),
        ("2026-11-23T10:30:00.5Z", "2026-11-23T10:30:00.500000Z"),
        ("2026-11-23T10:30:00+02:00", "2026-11-23T08:30:00.000000Z"),
        (dt.datetime(2026, 11, 23, 10), "2026-11-23T10:00:00.000000Z"),
        (dt.datetime(2026, 11, 23, 10, tzinfo=dt.timezone(dt.timedelta(hours=-1))), "2026-11-23T11:00:00.000000Z"),
    ],
)
def test_moments(given: str | dt.datetime, read: str) -> None:
    assert read_moment(given) == read


@pytest.mark.parametrize("given", ["", "yesterday", "2026-13-01", "0001-01-01T00:00:00+10:00"])
def test_what_is_no_moment(given: str) -> None:
    with pytest.raises(InvalidInput, match="moment: expected an ISO 8601"):
        read_moment(given)


def test_now_is_in_the_form_that_compares_as_text() -> None:
    one, two = now(), now()
    assert one <= two
    assert read_moment(one) == one


def test_a_change_as_json_says_from() -> None:
    change = Change(id=1, when=now(), who="ada", action="promote", model="m", alias="production", from_=1, to=2)
    assert msgspec.json.decode(msgspec.json.encode(change))["from"] == 1
