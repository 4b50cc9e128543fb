"""Commands that ask a running server."""

import pytest

from modelyard.cli import exits, main


@pytest.mark.parametrize(("variable", "value"), [("MODELYARD_PORT", "1"), ("MODELYARD_URL", "http://127.0.0.1:1")])
def test_the_server_that_the_environment_names_is_asked(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["explain-batching"]) == exits.NUMBERS["remote_failed"]
    assert "no answer from http://127.0.0.1:1:" in capsys.readouterr().err


def test_serving_nothing_says_how_to_serve_something(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MODELYARD_CONTROL", raising=False)
    assert main(["serve"]) == exits.NUMBERS["invalid_input"]
    assert capsys.readouterr().err.splitlines()[0] == "error: which model: REFS are missing"
