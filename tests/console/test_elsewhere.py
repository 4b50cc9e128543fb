"""The console in an application of others, and over TLS."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certificates import Authority
from commands import environment, type_in
from console.conftest import Tab, Yard, ask, end, start, table_of

HOST = """
import sys
import uvicorn
from fastapi import FastAPI
import modelyard.api
from modelyard.console.server import mount

app = FastAPI()

@app.get("/")
def index():
    return {"app": "theirs"}

mount(app, "/yard", modelyard.api.open_registry(), keys=False)
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", lifespan="on")
"""


@pytest.fixture(scope="module")
def host(yard: Yard) -> Iterator[str]:
    """An application of somebody's that mounts the console at /yard."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = yard.folder / "host.py"
    script.write_text(HOST)
    process = subprocess.Popen([sys.executable, str(script), str(port)], env=environment(yard.home), text=True)
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 120
    while True:
        try:
            assert ask(url, "/") == {"app": "theirs"}
            break
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.2)
    yield url
    end(process)


def test_it_can_be_mounted_in_an_application_of_others(tab: Callable[..., Tab], host: str) -> None:
    look = tab(url=host)
    page = look.open("/yard/")
    (row,) = table_of(page, "Models")
    assert row[0] == "flowers"
    assert page.locator("tbody a").first.get_attribute("href") == "/yard/models/flowers"
    page.get_by_role("link", name="Batch jobs").click()
    page.get_by_role("heading", name="Batch jobs").wait_for()
    assert page.url == f"{host}/yard/jobs"
    assert "/yard/api/overview" in ask(host, "/yard/api/openapi.json")["paths"]
    assert ask(host, "/yard/api/overview")["endpoints"][0]["model"] == "flowers"


def test_over_tls_the_session_stays_on_it(tab: Callable[..., Tab], yard: Yard, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("console")
    made = yard.type("keys", "create", "tls", "--scope", "admin")["key"]
    words = ["console", "--port", "0", "--keys", "--tls-certificate", str(certificate), "--tls-key", str(key)]
    process, url = start(yard.home, yard.folder, *words, log=tmp_path / "console.log")
    try:
        trust = ssl.create_default_context(cafile=str(authority.path))
        request = urllib.request.Request(f"{url}/api/overview", headers={"Authorization": f"Bearer {made}"})
        with urllib.request.urlopen(request, context=trust) as answer:
            assert json.load(answer)["endpoints"]
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=trust), type("Stay", (urllib.request.HTTPRedirectHandler,), {
                "redirect_request": lambda *_: None})(),
        )  # fmt: skip
        with pytest.raises(urllib.error.HTTPError) as sent:
            opener.open(f"{url}/login?next=https://evil.example/", f"key={made}".encode())
        assert sent.value.code == 303
        assert sent.value.headers["location"] == "/"
        assert {"HttpOnly", "Secure", "SameSite=Strict"} <= set(sent.value.headers["set-cookie"].split("; "))
    finally:
        end(process)
        yard.type("keys", "revoke", "tls")


def test_mistakes_of_starting_teach(yard: Yard) -> None:
    done = type_in(yard.home, yard.folder, "console", "--host", "0.0.0.0", "--port", "0")
    assert done.code != 0
    assert "it asks for no key" in done.err
    assert "--keys" in done.err
    port = yard.url.rpartition(":")[2]
    done = type_in(yard.home, yard.folder, "console", "--port", port)
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in done.err
    assert "--port 0" in done.err
