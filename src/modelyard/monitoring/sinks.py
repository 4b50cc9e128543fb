"""Sinks: how an alert looks to a receiver, and one attempt to bring it there, within a time limit.

A webhook's body is signed: ``Modelyard-Signature: t=<seconds since 1970>,v1=<hex>``, where v1 is HMAC-SHA256 with the
sink's secret over ``<t>.<body>``. Check it with ``verify``, and refuse what is older than a few minutes. A delivery may
come twice; ``Modelyard-Delivery`` is then the same.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import os
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec

from modelyard.errors import InvalidInput, ModelyardError, NotFound, RemoteFailed
from modelyard.monitoring.rules import Sink, load, masked
from modelyard.registry.alerts import Alert, Delivery
from modelyard.registry.records import now
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.registry import Registry

#: The longest that an attempt may take, in seconds, whatever the receiver does.
LIMIT_SECONDS = 10.0

PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"

_COLOURS = {"info": "#2563c9", "warning": "#d97706", "error": "#c2410c", "critical": "#b91c1c"}


def deliver(sink: Sink, alert: Alert, delivery: Delivery, log: Log, limit: float = LIMIT_SECONDS) -> None:
    """Bring an alert to a sink. Raises RemoteFailed, or NotFound and InvalidInput where the sink is not fit to send."""
    if sink.kind == "log":
        log.write(
            "warning" if delivery.event != "close" else "info", f"alert {_verb(delivery)}", alert=alert.id,
            severity=alert.severity, title=alert.title, text=alert.text, links=alert.links,
        )  # fmt: skip
        return
    try:
        if sink.kind == "email":
            _mail(sink, alert, delivery, limit)
        else:
            _post(*_request(sink, alert, delivery), limit)
    except RemoteFailed as error:
        raise RemoteFailed(_without_secrets(error.message, sink)) from None


def try_sinks(registry: Registry, name: str | None = None) -> list[dict[str, Any]]:
    """Send a test to every sink, or to one, and say what went wrong."""
    known = load(registry.database).sinks
    if name is not None and name not in known:
        raise NotFound.among("sink", name, known)
    log, tried = Log(), []
    test = Alert(
        rule="test", model="test", version="", about="inputs", finding=0, severity="info", opened=now(),
        title="a test of Modelyard's alerts", text="Nothing happened: somebody wants to know whether this arrives.",
        links={"command": "modelyard alerts list"},
    )  # fmt: skip
    for each, sink in known.items():
        if name in (None, each):
            delivery = Delivery(alert=0, sink=each, event="test", due=now())
            try:
                deliver(sink, test, delivery, log)
                error = ""
            except ModelyardError as failed:
                error = failed.message
            tried.append({"sink": each, "kind": sink.kind, "error": error})
    log.flush()
    return tried


def payload(sink: Sink, alert: Alert, delivery: Delivery) -> dict[str, Any]:
    """The body for a webhook, Slack or PagerDuty, without secrets."""
    if sink.kind == "slack":
        return _slack(alert, delivery)
    if sink.kind == "pagerduty":
        return _pagerduty(alert, delivery)
    told: dict[str, Any] = msgspec.to_builtins(alert)
    return {"event": delivery.event, "delivery": delivery.id, "alert": told}


def sign(secret: str, body: bytes, moment: int) -> str:
    """What ``Modelyard-Signature`` says of a body."""
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


def verify(secret: str, body: bytes, signature: str, *, now: float | None = None, tolerance: float = 300) -> bool:
    """Whether a signature is right and recent: what a receiver asks."""
    parts = dict(part.partition("=")[::2] for part in signature.split(","))
    moment = parts.get("t", "")
    if not moment.isdecimal() or abs((time.time() if now is None else now) - int(moment)) > tolerance:
        return False
    return hmac.compare_digest(sign(secret, body, int(moment)), signature)


def secret_of(named: str) -> str:
    """The secret behind ``env:NAME`` or ``file:PATH``. Raises NotFound."""
    kind, _, place = named.partition(":")
    if kind == "env":
        found = os.environ.get(place)
        if not found:
            raise NotFound(f"the variable {place} is not set where alerts are sent from", hint=f"export {place}=...")
        return found
    try:
        return Path(place).expanduser().read_text().strip()
    except OSError as error:
        raise NotFound(f"cannot read the secret in {place}: {error.strerror or error}") from None


def _without_secrets(text: str, sink: Sink) -> str:
    """What a receiver answered may repeat what it was sent."""
    parts = urlsplit(_address(sink))
    secrets = [parts.path.strip("/"), parts.query, parts.password, secret_of(sink.secret) if sink.secret else ""]
    for secret in secrets:
        if secret and len(secret) > 3:
            text = text.replace(secret, "***")
    return text


def _address(sink: Sink) -> str:
    return secret_of(sink.url) if sink.url.startswith(("env:", "file:")) else sink.url


def _request(sink: Sink, alert: Alert, delivery: Delivery) -> tuple[str, bytes, dict[str, str]]:
    told = payload(sink, alert, delivery)
    url = _address(sink) or PAGERDUTY
    headers = {"content-type": "application/json", "user-agent": "modelyard"}
    if sink.kind == "pagerduty":
        told["routing_key"] = secret_of(sink.secret)
    body = msgspec.json.encode(told)
    if sink.kind == "webhook":
        headers["modelyard-delivery"] = str(delivery.id)
        headers["modelyard-event"] = delivery.event
        if sink.secret:
            headers["modelyard-signature"] = sign(secret_of(sink.secret), body, int(time.time()))
    return url, body, headers


def _slack(alert: Alert, delivery: Delivery) -> dict[str, Any]:
    links = " · ".join(
        f"<{place}|{name}>" if "://" in place else f"`{place}`" for name, place in reversed(alert.links.items())
    )
    said = [f"*{_escape(_title(alert, delivery))}*"]
    if delivery.event != "close" and alert.text:
        said.append(_escape(alert.text))
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": _cut(text)}} for text in said
    ]
    if links:
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": links}]})
    colour = "#15803d" if delivery.event == "close" else _COLOURS[alert.severity]
    return {"text": _title(alert, delivery), "attachments": [{"color": colour, "blocks": blocks}]}


def _pagerduty(alert: Alert, delivery: Delivery) -> dict[str, Any]:
    action = {"open": "trigger", "close": "resolve", "test": "trigger"}[delivery.event]
    return {
        "event_action": action,
        "dedup_key": f"modelyard-alert-{alert.id}" if alert.id else f"modelyard-test-{delivery.due}",
        "payload": {
            "summary": _title(alert, delivery)[:1024],
            "source": f"{alert.model}:{alert.version}",
            "severity": alert.severity,
            "timestamp": alert.opened,
            "component": alert.model,
            "class": alert.about,
            "custom_details": {"text": alert.text, "rule": alert.rule, "findings": list(alert.findings)},
        },
        "links": [{"href": place, "text": name} for name, place in alert.links.items() if "://" in place],
    }


def _title(alert: Alert, delivery: Delivery) -> str:
    return {"open": "", "close": "Over: ", "test": "Test: "}[delivery.event] + alert.title


def _verb(delivery: Delivery) -> str:
    return {"open": "opened", "close": "over", "test": "test"}[delivery.event]


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, most: int = 2_900) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


# -- sending -------------------------------------------------------------------------------------------------------


def _post(url: str, body: bytes, headers: dict[str, str], limit: float) -> None:
    """One POST, whose answer must be a 2xx; redirects are not followed. Whatever hangs is cut off at the limit."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput.at("url", "an address such as https://example.org/hook", masked(url))
    made: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        made = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=limit, context=context)
    else:
        made = http.client.HTTPConnection(parts.hostname, parts.port, timeout=limit)
    if parts.username:
        named = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = {**headers, "authorization": f"Basic {base64.b64encode(named.encode()).decode()}"}
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    with _told(url), _cut_off(made, limit):
        made.request("POST", path, body, headers)
        answer = made.getresponse()
        if not 200 <= answer.status < 300:
            said = " ".join(answer.read(300).decode("utf-8", "replace").split())
            raise RemoteFailed(f"{masked(url)} answered {answer.status} {answer.reason}: {said}"[:300])


def _mail(sink: Sink, alert: Alert, delivery: Delivery, limit: float) -> None:
    url = _address(sink)
    parts = urlsplit(url)
    if parts.scheme not in ("smtp", "smtp+tls", "smtps") or not parts.hostname:
        raise InvalidInput.at("url", "smtp://host:25, smtp+tls://host:587 or smtps://host:465", masked(url))
    message = EmailMessage()
    message["Subject"] = " ".join(_title(alert, delivery).split())[:200]
    message["From"], message["To"] = sink.sender, ", ".join(sink.to)
    links = "\n".join(f"{name}: {place}" for name, place in alert.links.items())
    message.set_content(f"{alert.title}\n\n{alert.text}\n\n{links}\n")
    context = ssl.create_default_context()
    with _told(url):
        if parts.scheme == "smtps":
            made: smtplib.SMTP = smtplib.SMTP_SSL(parts.hostname, parts.port or 465, timeout=limit, context=context)
        else:
            made = smtplib.SMTP(parts.hostname, parts.port or 25, timeout=limit)
        with _cut_off(made, limit):
            if parts.scheme == "smtp+tls":
                made.starttls(context=context)
            if sink.user:
                made.login(sink.user, secret_of(sink.secret) if sink.secret else "")
            made.send_message(message)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Failures of the network, told without the address's secrets."""
    try:
        yield
    except (OSError, http.client.HTTPException, smtplib.SMTPException) as error:
        reason = str(error) if isinstance(error, (TimeoutError, ssl.SSLError)) else type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise RemoteFailed(f"{masked(url)} could not be reached: {reason}"[:300]) from None


@contextmanager
def _cut_off(connection: Any, limit: float) -> Iterator[None]:
    """Ends the connection after the limit: a receiver that sends a byte now and then never runs into a timeout."""
    late = threading.Event()

    def cut() -> None:
        late.set()
        found = getattr(connection, "sock", None)
        if found is not None:
            try:
                found.shutdown(socket.SHUT_RDWR)
            except OSError:
                found.close()

    timer = threading.Timer(limit, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
        if late.is_set():  # what was cut off may look like a whole answer
            raise TimeoutError
    except (OSError, http.client.HTTPException, smtplib.SMTPException) as error:
        if late.is_set() or isinstance(error, TimeoutError):  # the socket's own limit may come first
            raise TimeoutError(f"no answer within {limit:g} s") from None
        raise
    finally:
        timer.cancel()
        connection.close()
