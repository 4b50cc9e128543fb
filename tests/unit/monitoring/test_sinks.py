"""Alerts reach receivers as they want them, signed, within a time limit, and without secrets in what is told."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest

from modelyard.errors import InvalidInput, NotFound, RemoteFailed
from modelyard.monitoring import sinks
from modelyard.monitoring.rules import Sink
from modelyard.registry.alerts import Alert, Delivery
from modelyard.telemetry import Log
from receivers import Mailbox, hanging, receiving

ALERT = Alert(
    id=7, rule="all", model="churn", version="5", about="inputs", finding=12, findings=(12, 13), severity="error",
    opened="2026-11-30T12:00:00.000000Z", title="churn:5: weight is <another> unit & more", text="n = 1,500; 95% …",
    links={"command": "modelyard monitor churn --finding 12", "console": "https://yard.example.org/monitoring/churn"},
)  # fmt: skip
OPEN = Delivery(id=3, alert=7, sink="ops", due="2026-11-30T12:00:00.000000Z")
CLOSE = Delivery(id=4, alert=7, sink="ops", event="close", due="2026-11-30T13:00:00.000000Z")
LOG = Log("error")


def test_a_webhook_is_signed_and_says_which_delivery_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS", "a very secret word")
    with receiving() as receiver:
        sinks.deliver(Sink(kind="webhook", url=f"{receiver.url}/hook?a=1", secret="env:OPS"), ALERT, OPEN, LOG)
    ((path, headers, body),) = receiver.got
    assert (path, headers["modelyard-delivery"], headers["modelyard-event"]) == ("/hook?a=1", "3", "open")
    told = json.loads(body)
    assert (told["event"], told["delivery"], told["alert"]["findings"]) == ("open", 3, [12, 13])
    signature = headers["modelyard-signature"]
    assert sinks.verify("a very secret word", body, signature)
    assert not sinks.verify("another word", body, signature)
    assert not sinks.verify("a very secret word", body + b" ", signature)
    assert not sinks.verify("a very secret word", body, signature, now=time.time() + 3600)
    assert not sinks.verify("a very secret word", body, "t=abc,v1=def")


def test_a_webhook_gets_the_user_and_password_of_its_address() -> None:
    with receiving() as receiver:
        place = receiver.url.removeprefix("http://")
        sinks.deliver(Sink(kind="webhook", url=f"http://ops:p%40ss@{place}/hook"), ALERT, OPEN, LOG)
    ((_, headers, _),) = receiver.got
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"ops:p@ss"


def test_a_signature_is_what_the_page_says_it_is() -> None:
    # printf '1700000000.{}' | openssl dgst -sha256 -hmac word
    digest = "91e1a27c6c2add42f8afa1ef0f5089c28ec42164b1896b14d47739687ccb2bf5"
    assert sinks.sign("word", b"{}", 1_700_000_000) == f"t=1700000000,v1={digest}"


def test_slack_gets_blocks_with_its_letters_escaped() -> None:
    told = sinks.payload(Sink(kind="slack"), ALERT, OPEN)
    (attachment,) = told["attachments"]
    assert attachment["color"] == "#c2410c"
    first = attachment["blocks"][0]["text"]["text"]
    assert first == "*churn:5: weight is &lt;another&gt; unit &amp; more*"
    context = attachment["blocks"][-1]["elements"][0]["text"]
    assert "<https://yard.example.org/monitoring/churn|console>" in context
    assert "`modelyard monitor churn --finding 12`" in context
    over = sinks.payload(Sink(kind="slack"), ALERT, CLOSE)
    assert over["text"].startswith("Over: ")
    assert len(over["attachments"][0]["blocks"]) == 2
    assert all(len(block["text"]["text"]) <= 3_000 for block in attachment["blocks"][:2])


def test_pagerduty_gets_a_trigger_and_a_resolve_of_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTING", "0123456789abcdef")
    with receiving(202) as receiver:
        sink = Sink(kind="pagerduty", url=f"{receiver.url}/v2/enqueue", secret="env:ROUTING")
        sinks.deliver(sink, ALERT, OPEN, LOG)
        sinks.deliver(sink, ALERT, CLOSE, LOG)
    opened, over = (json.loads(body) for _, _, body in receiver.got)
    assert (opened["event_action"], over["event_action"]) == ("trigger", "resolve")
    assert opened["dedup_key"] == over["dedup_key"] == "modelyard-alert-7"
    assert opened["routing_key"] == "0123456789abcdef"
    assert opened["payload"]["severity"] == "error"
    assert opened["payload"]["summary"] == ALERT.title
    assert opened["links"] == [{"href": "https://yard.example.org/monitoring/churn", "text": "console"}]
    assert "routing_key" not in sinks.payload(sink, ALERT, OPEN)


def test_an_email_is_sent() -> None:
    mailbox = Mailbox()
    sink = Sink(kind="email", url=mailbox.url, sender="yard@example.org", to=("a@example.org", "b@example.org"))
    try:
        sinks.deliver(sink, ALERT, OPEN, LOG)
    finally:
        mailbox.close()
    (message,) = mailbox.messages
    assert "To: a@example.org, b@example.org" in message
    assert "Subject: churn:5: weight is <another> unit & more" in message
    assert "command: modelyard monitor churn --finding 12" in message


@pytest.mark.parametrize("drip", [False, True])
def test_a_receiver_that_hangs_is_cut_off(drip: bool) -> None:
    begun = time.monotonic()
    with hanging(drip=drip) as url, pytest.raises(RemoteFailed, match="could not be reached"):
        sinks.deliver(Sink(kind="webhook", url=url), ALERT, OPEN, LOG, limit=0.5)
    assert time.monotonic() - begun < 60


def test_a_mail_server_that_hangs_is_cut_off() -> None:
    with hanging() as url, pytest.raises(RemoteFailed, match="could not be reached"):
        address = url.replace("http", "smtp").removesuffix("/hook")
        sinks.deliver(Sink(kind="email", url=address, sender="a@b", to=("c@d",)), ALERT, OPEN, LOG, limit=0.5)


@pytest.mark.parametrize("status", [302, 400, 404, 500])
def test_anything_but_success_is_a_failure_and_redirects_are_not_followed(status: int) -> None:
    with receiving(status) as receiver, pytest.raises(RemoteFailed, match=f"answered {status}"):
        sinks.deliver(Sink(kind="webhook", url=f"{receiver.url}/hook"), ALERT, OPEN, LOG)
    assert [path for path, _, _ in receiver.got] == ["/hook"]


def test_no_secret_is_in_what_is_told_of_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTING", "0123456789abcdef")
    monkeypatch.setenv("SLACK", "http://127.0.0.1:9/services/T0/B0/XYZ")
    # a receiver that repeats what it got
    with receiving(500) as receiver, pytest.raises(RemoteFailed) as failed:
        sinks.deliver(Sink(kind="pagerduty", url=f"{receiver.url}/v2", secret="env:ROUTING"), ALERT, OPEN, LOG)
    assert "0123456789abcdef" not in str(failed.value)
    with pytest.raises(RemoteFailed) as failed:
        sinks.deliver(Sink(kind="slack", url="env:SLACK"), ALERT, OPEN, LOG, limit=2.0)
    assert "XYZ" not in str(failed.value)
    assert "127.0.0.1:9" in str(failed.value)


def test_secrets_are_read_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "word").write_text("of a file\n")
    monkeypatch.setenv("WORD", "of the environment")
    assert sinks.secret_of(f"file:{tmp_path / 'word'}") == "of a file"
    assert sinks.secret_of("env:WORD") == "of the environment"
    with pytest.raises(NotFound, match="the variable NO_SUCH is not set"):
        sinks.secret_of("env:NO_SUCH")
    with pytest.raises(NotFound, match="cannot read the secret"):
        sinks.secret_of(f"file:{tmp_path / 'nothing'}")


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidInput, match="an address such as"):
        sinks.deliver(Sink(kind="webhook", url="ftp://example.org/x"), ALERT, OPEN, LOG)
    with pytest.raises(InvalidInput, match="smtp://"):
        sinks.deliver(Sink(kind="email", url="http://example.org", sender="a@b", to=("c@d",)), ALERT, OPEN, LOG)


def test_the_log_is_a_sink(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log("info")
    sinks.deliver(Sink(kind="log"), ALERT, OPEN, log)
    sinks.deliver(Sink(kind="log"), ALERT, CLOSE, log)
    log.flush()
    opened, over = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (opened["event"], opened["level"], opened["title"]) == ("alert opened", "warning", ALERT.title)
    assert (over["event"], over["level"]) == ("alert over", "info")
