from pathlib import Path

import pytest

from modelyard import settings
from modelyard.errors import InvalidInput


def test_every_default_parses_and_every_row_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in settings.TABLE:
        monkeypatch.delenv(row.variable, raising=False)
        settings.get(row.name)
        assert row.purpose


def test_given_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELYARD_PORT", raising=False)
    assert settings.get("port") == 8080
    monkeypatch.setenv("MODELYARD_PORT", "9000")
    assert settings.get("port") == 9000
    assert settings.get("port", 0) == 0
    monkeypatch.setenv("MODELYARD_HOME", "~/yard")
    assert settings.get("home") == Path.home() / "yard"


@pytest.mark.parametrize(
    ("text", "size"), [("64MB", 64 << 20), ("1GiB", 1 << 30), ("512k", 512 << 10), ("100", 100), ("1.5m", 3 << 19)]
)
def test_sizes(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("MODELYARD_MAX_BODY", text)
    assert settings.get("max_body") == size


@pytest.mark.parametrize("text", ["", "many", "MB"])
def test_a_value_that_does_not_parse_names_its_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MODELYARD_MAX_BODY", text)
    with pytest.raises(InvalidInput, match="MODELYARD_MAX_BODY"):
        settings.get("max_body")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("port", "abc", "a whole number"),
        ("port", "70000", "65535"),
        ("log_level", "loud", "debug, info, warning or error"),
        ("access_log", "some", "errors, all or off"),
        ("poll_seconds", "-1", "a number of seconds"),
        ("drain_seconds", "inf", "a number of seconds"),
        ("train_rows", "0", "a whole number above 0"),
        ("wires", ",", "at least one name"),
    ],
)
def test_a_wrong_value_is_told_what_is_expected(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: str
) -> None:
    monkeypatch.setenv(f"MODELYARD_{name.upper()}", text)
    with pytest.raises(InvalidInput, match=f"expected .*{expected}.*, got '{text}'"):
        settings.get(name)


def test_a_level_may_be_written_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_LOG_LEVEL", "DEBUG")
    assert settings.get("log_level") == "debug"


def test_history_names_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_USER", "ada")
    assert settings.who() == "ada"
    monkeypatch.delenv("MODELYARD_USER")
    assert settings.who()
