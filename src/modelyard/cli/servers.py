"""Asking a running server."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from typing import Any

import click

from modelyard import settings
from modelyard.errors import InvalidInput, ModelyardError, NotFound, Problem, Refused, RemoteFailed


def _url() -> str:
    return os.environ.get("MODELYARD_URL") or f"http://127.0.0.1:{settings.get('port')}"


URL_OPTION = click.option(
    "--url", default=_url, metavar="URL", show_default="MODELYARD_URL, else http://127.0.0.1 and MODELYARD_PORT",
    help="The running server.",
)  # fmt: skip

KEY_OPTION = click.option(
    "--key",
    default=None,
    envvar="MODELYARD_KEY",
    show_envvar=True,
    metavar="KEY",
    help="An API key, where the server wants one.",
)

_HINT = "is `modelyard serve` running there? see --url"

#: Statuses that mean more than that a server is unwell.
_ERRORS: dict[int, type[ModelyardError]] = {400: InvalidInput, 401: Refused, 403: Refused, 404: NotFound}


def ask(url: str, path: str, *, key: str | None = None, body: bytes | None = None, seconds: float = 10.0) -> Any:
    """The JSON that a server answers to a GET, or to a POST of JSON. Raises what it says; RemoteFailed where it is not
    to be reached.
    """
    if not url.startswith(("http://", "https://")):
        raise InvalidInput.at("--url", "http://HOST:PORT or https://HOST:PORT", url)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if body is not None:
        headers["content-type"] = "application/json"
    request = urllib.request.Request(url.rstrip("/") + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise _told(error) from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        is_distrusted = isinstance(reason, ssl.SSLCertVerificationError)
        hint = "SSL_CERT_FILE=FILE names authorities to trust" if is_distrusted else _HINT
        raise RemoteFailed(f"no answer from {url}: {reason}", hint=hint) from None


def _told(error: urllib.error.HTTPError) -> ModelyardError:
    kind = _ERRORS.get(error.code, RemoteFailed)
    problems: list[Problem] = []
    try:
        told = json.loads(error.read(1 << 20))["error"]
        message, hint = (told["message"], told.get("hint", "")) if isinstance(told, dict) else (str(told), "")
    except (ValueError, KeyError, TypeError, OSError):
        message, hint = f"the server answered {error.code} {error.reason}", ""
    else:
        if kind is InvalidInput and isinstance(told, dict):
            problems = [Problem(p["path"], p["expected"], p["got"]) for p in told.get("problems", ())]
    if error.code == 401:
        hint = "give a key that allows it with --key or MODELYARD_KEY"
    return InvalidInput(message, hint=hint, problems=problems) if problems else kind(message, hint=hint)
