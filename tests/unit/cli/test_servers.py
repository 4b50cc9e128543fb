"""Commands that ask a running server."""

import ssl
import urllib.request
from email.message import Message
from io import BytesIO
from urllib.error import HTTPError, URLError

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


@pytest.mark.parametrize(
    ("fault", "code", "hint"),
    [
        (HTTPError("", 401, "Unauthorized", Message(), BytesIO(b'{"error": {"message": "a key", "hint": "a header"}}')),
         "refused", "give a key that allows it with --key or MODELYARD_KEY"),
        (URLError(ssl.SSLCertVerificationError(1, "self-signed")), "remote_failed", "SSL_CERT_FILE=FILE"),
    ],
    ids=["no-key", "unknown-authority"],
)  # fmt: skip
def test_hints_are_those_of_the_command(
    fault: Exception, code: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    assert main(["explain-batching", "--url", "https://server"]) == exits.NUMBERS[code]
    assert f"hint: {hint}" in capsys.readouterr().err
