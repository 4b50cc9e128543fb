"""TLS: certificates and their faults, clients' certificates, new files, and where a server binds."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority
from modelyard.errors import Conflict, InvalidInput, Refused
from modelyard.serving import tls
from modelyard.serving.server import Server
from receivers import until

from .conftest import MemorySource, linear

Serve = Callable[..., Server]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secure(source: MemorySource, serve: Serve, authority: Authority) -> Serve:
    """A server with a certificate."""
    source.add("lin", linear())
    certificate, key = authority.sign("server")

    def start(**options: Any) -> Server:
        return serve("lin", **{"tls_certificate": str(certificate), "tls_key": str(key), **options})

    return start


def trusting(authority: Authority, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    if client is not None:
        context.load_cert_chain(*client)
    return context


def ask(server: Server, context: ssl.SSLContext, path: str = "/health/live") -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def shake(server: Server, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", server.port), 60), server_hostname="localhost")


class TestServing:
    def test_requests_are_answered_over_tls(self, secure: Serve, authority: Authority) -> None:
        server = secure()
        assert server.url == f"https://127.0.0.1:{server.port}"
        context = trusting(authority)
        assert ask(server, context) == 200
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=context)
        for _ in range(4):
            connection.request("POST", "/predict", '{"x1": 1.5, "x2": 2}')
            answer = connection.getresponse()
            assert (answer.status, b'"prediction":6.5' in answer.read()) == (200, True)
        connection.close()

    def test_a_large_body_passes(self, secure: Serve, authority: Authority) -> None:
        server = secure()
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=trusting(authority))
        rows = '[{"x1": 1.5, "x2": 2}' + ', {"x1": 1.5, "x2": 2}' * 19_999 + "]"
        connection.request("POST", "/predict", rows)
        assert connection.getresponse().read().count(b"6.5") == 20_000
        connection.close()

    def test_clients_choose_the_version_of_http(self, secure: Serve, authority: Authority) -> None:
        server = secure()
        for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (["spdy/1"], None)):
            context = trusting(authority)
            context.set_alpn_protocols(offered)
            with shake(server, context) as connection:
                assert connection.selected_alpn_protocol() == chosen

    def test_old_versions_of_tls_are_refused(self, secure: Serve, authority: Authority) -> None:
        server = secure()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(authority)
            context.minimum_version = context.maximum_version = version
            with shake(server, context) as connection:
                assert connection.version() == version.name.replace("_", ".")
        old = trusting(authority)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            shake(server, old)

    @pytest.mark.parametrize("first", [b"SSH-2.0-x\r\n", b"\x00" * 100, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
    def test_who_does_not_speak_tls_is_cut_off_and_harms_nobody(
        self, first: bytes, secure: Serve, authority: Authority
    ) -> None:
        server = secure()
        with socket.create_connection(("127.0.0.1", server.port), 60) as plain:
            plain.sendall(first)
            with contextlib.suppress(ConnectionError):
                assert b"HTTP/1.1" not in plain.recv(1000)
        assert ask(server, trusting(authority)) == 200

    @pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
    @pytest.mark.parametrize(
        ("method", "mutual"), [("GET", False), ("GET", True), ("POST", False), ("PUT", False), ("CONNECT", False)]
    )
    def test_plain_http_is_told_to_use_https(
        self, loop: str, method: str, mutual: bool, secure: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if loop == "asyncio":
            monkeypatch.setitem(sys.modules, "uvloop", None)
        server = secure(**({"tls_clients": str(authority.path)} if mutual else {}))
        plain = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        body = "x" * 1_000_000 if method == "POST" else None  # more than comes at once
        plain.request(method, "/health/live", body)
        answer = plain.getresponse()
        assert (answer.status, answer.headers["content-type"]) == (400, "text/plain; charset=utf-8")
        assert answer.headers["connection"] == "close"
        if method != "CONNECT":
            assert b"https:// instead of http://" in answer.read()
        plain.close()
        assert ask(server, trusting(authority, authority.sign("caller"))) == 200
        assert [line["event"] for line in server.lines()].count("plain HTTP came to the port of HTTPS") == 1  # type: ignore[attr-defined]

    def test_plain_http_does_not_stay_for_long(
        self, secure: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 2.0)
        server = secure()
        with socket.create_connection(("127.0.0.1", server.port), 60) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
            received = b""
            with contextlib.suppress(ConnectionError):
                while part := plain.recv(1000):
                    received += part
                    plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert received.count(b"HTTP/1.1 400") == 1

    def test_stopping_does_not_wait_for_idle_clients(self, secure: Serve, authority: Authority) -> None:
        server = secure()
        with shake(server, trusting(authority)):
            server.stop()


class TestClients:
    def test_those_with_a_certificate_come_in(self, secure: Serve, authority: Authority) -> None:
        server = secure(tls_clients=str(authority.path))
        assert ask(server, trusting(authority, authority.sign("caller"))) == 200

    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    def test_others_do_not(self, version: str, secure: Serve, authority: Authority, tmp_path: Path) -> None:
        server = secure(tls_clients=str(authority.path))
        (tmp_path / "other").mkdir()
        stranger = Authority(tmp_path / "other").sign("stranger")
        for client in (None, stranger):
            context = trusting(authority, client)
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                ask(server, context)


class TestNewFiles:
    def replace(self, target: Path, source: Path) -> None:
        shutil.copy(source, target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)

    def subject(self, server: Server, authority: Authority) -> str:
        with shake(server, trusting(authority)) as connection:
            return str(dict(pair[0] for pair in connection.getpeercert()["subject"])["commonName"])  # type: ignore[index]

    def test_new_connections_get_the_new_certificate(self, secure: Serve, authority: Authority, tmp_path: Path) -> None:
        server = secure()
        certificate, key = authority.sign("newer")
        context = trusting(authority)
        old = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=context)
        old.request("GET", "/health/live")
        old.getresponse().read()
        assert self.subject(server, authority) == "server"
        self.replace(tmp_path / "server.key", key)
        self.replace(tmp_path / "server.pem", certificate)
        until(lambda: self.subject(server, authority) == "newer")
        old.request("GET", "/health/live")  # the old connection goes on
        assert old.getresponse().status == 200
        old.close()

    def test_half_of_a_pair_is_waited_out(self, secure: Serve, authority: Authority, tmp_path: Path) -> None:
        server = secure()
        certificate, key = authority.sign("newer")
        self.replace(tmp_path / "server.pem", certificate)
        told = "the new certificate cannot be used; keeping the one before"
        until(lambda: any(line["event"] == told for line in server.lines()))  # type: ignore[attr-defined]
        assert self.subject(server, authority) == "server"
        self.replace(tmp_path / "server.key", key)
        until(lambda: self.subject(server, authority) == "newer")

    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    def test_an_authority_that_is_taken_out_lets_nobody_in(
        self, version: str, secure: Serve, authority: Authority, tmp_path: Path
    ) -> None:
        (tmp_path / "other").mkdir()
        other = Authority(tmp_path / "other")
        clients = tmp_path / "clients.pem"
        clients.write_bytes(authority.path.read_bytes() + other.path.read_bytes())
        server = secure(tls_clients=str(clients))
        leaving = trusting(authority, other.sign("leaving"))
        staying = trusting(authority, authority.sign("staying"))
        for context in (leaving, staying):
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
            assert ask(server, context) == 200
        self.replace(clients, authority.path)

        def is_out() -> bool:
            try:
                ask(server, leaving)
            except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
                return True
            return False

        until(is_out)
        assert ask(server, staying) == 200

    def test_a_session_from_before_is_not_resumed(self, secure: Serve, authority: Authority, tmp_path: Path) -> None:
        clients = tmp_path / "clients.pem"
        shutil.copy(authority.path, clients)
        server = secure(tls_clients=str(clients))
        context = trusting(authority, authority.sign("caller"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # with 1.3 there is nothing to resume by

        def come(session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
            address = ("127.0.0.1", server.port)
            with context.wrap_socket(
                socket.create_connection(address, 60), server_hostname="localhost", session=session
            ) as connection:
                connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"200 OK" in connection.recv(1000)
                told = connection.session_reused, connection.session
                connection.unwrap()  # the server forgets the sessions of connections that were not ended properly
                return told

        _, before = come(None)
        assert come(before)[0] is True
        clients.write_bytes(authority.path.read_bytes() * 2)
        until(lambda: any(line["event"] == "certificate loaded anew" for line in server.lines()))  # type: ignore[attr-defined]
        with pytest.raises((ssl.SSLError, ConnectionError)):
            come(before)
        time.sleep(1.1)  # sessions tell their age in whole seconds
        _, after = come(None)
        assert come(after)[0] is True


class TestFaults:
    @pytest.fixture
    def start(self, source: MemorySource, serve: Serve) -> Serve:
        source.add("lin", linear())
        return lambda **options: serve("lin", **options)

    def test_a_key_or_clients_alone(self, start: Serve, authority: Authority) -> None:
        for name in ("tls_key", "tls_clients"):
            with pytest.raises(InvalidInput, match=f"to go with {name}") as caught:
                start(**{name: str(authority.path)})
            assert "--tls-certificate" in caught.value.hint

    @pytest.mark.parametrize("name", ["tls_certificate", "tls_key", "tls_clients"])
    @pytest.mark.parametrize("fault", ["missing", "nonsense", "empty"])
    def test_files_that_are_no_good(
        self, name: str, fault: str, start: Serve, authority: Authority, tmp_path: Path
    ) -> None:
        certificate, key = authority.sign("server")
        wrong = tmp_path / "wrong.pem"
        if fault != "missing":
            wrong.write_text("nonsense\n" if fault == "nonsense" else "")
        options = {"tls_certificate": str(certificate), "tls_key": str(key), "tls_clients": str(authority.path)}
        with pytest.raises(InvalidInput) as caught:
            start(**{**options, name: str(wrong)})
        assert caught.value.problems[0].path == name
        assert str(wrong) in caught.value.problems[0].got
        assert ("no such file" in caught.value.message) == (fault == "missing")

    def test_the_key_of_another_certificate(self, start: Serve, authority: Authority) -> None:
        certificate, _ = authority.sign("server")
        _, key = authority.sign("other")
        with pytest.raises(InvalidInput, match=f"tls_key: expected the private key of {certificate}, got another key"):
            start(tls_certificate=str(certificate), tls_key=str(key))

    def test_an_encrypted_key_does_not_ask_for_its_passphrase(self, start: Serve, authority: Authority) -> None:
        certificate, key = authority.sign("server", passphrase="secret")
        with pytest.raises(InvalidInput, match="a private key without a passphrase, got an encrypted one") as caught:
            start(tls_certificate=str(certificate), tls_key=str(key))
        assert f"openssl pkey -in {key}" in caught.value.hint

    def test_one_file_may_hold_both(self, start: Serve, authority: Authority, tmp_path: Path) -> None:
        certificate, key = authority.sign("server")
        both = tmp_path / "both.pem"
        both.write_bytes(certificate.read_bytes() + key.read_bytes())
        assert ask(start(tls_certificate=str(both)), trusting(authority)) == 200
        with pytest.raises(InvalidInput, match="tls_key: expected a private key in PEM") as caught:
            start(tls_certificate=str(certificate))
        assert "--tls-key" in caught.value.hint


class TestExposure:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
    def test_a_public_address_wants_a_word(self, host: str, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        with pytest.raises(Refused, match="it wants neither keys nor certificates of clients") as caught:
            serve("lin", host=host)
        assert "--keys" in caught.value.hint and "--public" in caught.value.hint
        assert serve("lin", host=host, public=True).port

    def test_keys_or_certificates_of_clients_will_do(
        self, secure: Serve, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
        with pytest.raises(Refused):
            secure(host="0.0.0.0")
        assert secure(host="0.0.0.0", tls_clients=str(authority.path)).port
        assert secure(host="0.0.0.0", keys=True).port

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "::1"])
    def test_loopback_needs_none(self, host: str, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        assert serve("lin", host=host).port


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class TestAdminPort:
    OPEN = ("/health/live", "/health/ready", "/v2/health/ready")
    ADMIN = ("/metrics", "/debug/limits")
    MAIN = ("/", "/models", "/openapi.json")

    def ask(self, port: int, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    def test_admin_calls_are_answered_there_and_nowhere_else(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        port = free_port()
        server = serve("lin", admin_port=port)
        for _ in range(4):  # heads that are known by heart mean another thing at the other port
            assert [self.ask(port, path) for path in self.OPEN + self.ADMIN] == [200] * 5
            assert [self.ask(server.port, path) for path in self.OPEN + self.MAIN] == [200] * 6
            assert [self.ask(server.port, path) for path in self.ADMIN] == [404] * 2
            assert [self.ask(port, path) for path in self.MAIN] == [404] * 3

    def test_one_that_is_taken_is_told(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(Conflict, match=f"port {port} on 127.0.0.1 is taken") as caught:
                serve("lin", admin_port=port)
            assert f"--admin-port {port + 1}" in caught.value.hint
