"""A real PostgreSQL server for the tests, on a unix socket of its own, gone with the test session.

``MODELYARD_TEST_POSTGRES`` may name another one by URL. Where neither is to be had the tests that want one are
skipped, except under ``CI``, where they fail.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a running server's database, without a password."""
    given = os.environ.get("MODELYARD_TEST_POSTGRES")
    if given:
        yield given
        return
    programs = find_programs()
    if isinstance(programs, str):
        if os.environ.get("CI"):
            pytest.fail(programs)
        pytest.skip(programs)
    with tempfile.TemporaryDirectory(prefix="modelyard-postgres-") as folder:
        server = start(programs, Path(folder))
        try:
            yield f"postgresql://postgres@/postgres?host={quote(folder, safe='')}"
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(timeout=120)


def find_programs() -> Path | str:
    """The folder of PostgreSQL's programs, or why there is none to be used."""
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which("initdb")
    folders += [Path(found).parent] if found else []
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            if os.geteuid() == 0 and not shutil.which("setpriv"):
                return "PostgreSQL does not run as root, and setpriv is not installed"
            return folder
    return "PostgreSQL's server is not installed (Debian: apt-get install postgresql)"


def start(programs: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start a server with its data and its socket in ``folder``; it dies with this process."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        user = next((name for name in ("postgres", "nobody") if _exists(name)), "nobody")
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
        ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        prefix = ["setpriv", *ids, "--pdeathsig", "QUIT"]
    data = folder / "data"
    options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run([*prefix, programs / "initdb", "-D", data, *options], capture_output=True, text=True, cwd="/")
    assert made.returncode == 0, made.stderr
    settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off", "max_connections": "50"}
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = [*prefix, programs / "postgres", "-D", data, *arguments]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
    deadline = time.monotonic() + 120
    while "ready to accept connections" not in (folder / "log").read_text():
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()}")
        time.sleep(0.02)
    return server


class Wire:
    """The way to a server that is reached by a socket, which can be cut and mended."""

    def __init__(self, url: str, folder: Path) -> None:
        there = parse_qs(urlsplit(url).query)["host"][0]
        self._there = f"{there}/.s.PGSQL.5432"
        self._here = folder / ".s.PGSQL.5432"
        #: The server's URL by this way.
        self.url = url.replace(quote(there, safe=""), quote(str(folder), safe=""))
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        self.mend()

    def mend(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._here))
        listener.listen(50)
        self._ends = [listener]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """End all connections, and take no more."""
        self._here.unlink()
        with self._lock:
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
            self._ends = []

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, server = listener.accept()[0], socket.socket(socket.AF_UNIX)
                server.connect(self._there)
                with self._lock:
                    self._ends += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    for end in (one, other):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
