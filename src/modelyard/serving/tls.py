"""TLS: the server's certificate, whose clients may come in, new files without a restart, and who does not speak it."""

from __future__ import annotations

import ssl
from pathlib import Path
from time import time
from typing import Any

from modelyard.errors import InvalidInput, ModelyardError
from modelyard.settings import Chosen
from modelyard.telemetry import Log

#: Seconds for a handshake.
HANDSHAKE_SECONDS = 15.0

#: Seconds that a client may take to say goodbye.
SHUTDOWN_SECONDS = 2.0

#: For TLS 1.2: forward secrecy and authenticated encryption only, which is also what HTTP/2 asks for.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

#: What OpenSSL says of a first message that begins as a request of HTTP does.
_PLAIN = ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST")
_TOLD = b"400: plain HTTP was sent to a port that speaks HTTPS: ask for https:// instead of http://\n"
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nserver: modelyard\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_TOLD), _TOLD)
)


class Certificates:
    """The files of a server's TLS, and the context made from them.

    ``context`` stays the same object for as long as the server lives; a handshake is made with what the files held
    when they were last found to be good.
    """

    def __init__(self, certificate: str, key: str, clients: str, log: Log) -> None:
        self._certificate = certificate
        self._key = key
        self._clients = clients
        self._log = log
        self._stamps = self._read_stamps()
        #: When the files were last found to have changed.
        self._renewed = 0.0
        self.context = self._newest = self._make()
        self.context.sni_callback = self._take_newest

    @classmethod
    def of(cls, chosen: Chosen, log: Log) -> Certificates | None:
        """The certificates that the settings name, or None. Raises InvalidInput where their files are no good."""
        for name in ("tls_key", "tls_clients"):
            if getattr(chosen, name) and not chosen.tls_certificate:
                raise InvalidInput.at(
                    "tls_certificate", f"a file with a certificate, to go with {name}", "nothing",
                    hint="modelyard serve ... --tls-certificate chain.pem --tls-key key.pem",
                )  # fmt: skip
        if not chosen.tls_certificate:
            return None
        return cls(chosen.tls_certificate, chosen.tls_key, chosen.tls_clients, log)

    def options(self) -> dict[str, Any]:
        """What an event loop is told, to speak TLS on a connection."""
        return {
            "ssl": self.context,
            "ssl_handshake_timeout": HANDSHAKE_SECONDS,
            "ssl_shutdown_timeout": SHUTDOWN_SECONDS,
        }

    def refresh(self) -> None:
        """Where the files have changed, use them for new connections. Those that are no good are left alone."""
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self._newest = self._make()
            self._renewed = time()
        except ModelyardError as error:  # such as a certificate whose key has not been written yet
            self._log.write("warning", "the new certificate cannot be used; keeping the one before", error=error)
        else:
            self._log.write("info", "certificate loaded anew", file=self._certificate)

    def _take_newest(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        """Called in every handshake, before a certificate is chosen. A number refuses the handshake."""
        if self._newest is self.context:
            return None
        session = connection.session if self._clients and connection.session_reused else None
        if session is not None and session.time <= self._renewed:
            return ssl.ALERT_DESCRIPTION_ACCESS_DENIED  # its certificate was checked by the authorities of then
        connection.context = self._newest
        return None

    def _read_stamps(self) -> list[tuple[int, int, int]]:
        """What tells that a file was replaced, also behind a link, as Kubernetes does it."""
        stamps = []
        for name in (self._certificate, self._key, self._clients):
            try:
                found = Path(name).expanduser().stat() if name else None
            except OSError:
                found = None
            stamps.append((found.st_mtime_ns, found.st_ino, found.st_size) if found else (0, 0, 0))
        return stamps

    def _make(self) -> ssl.SSLContext:
        """The context that the files make. Raises InvalidInput, about the setting whose file is at fault."""
        context = _Context(ssl.PROTOCOL_TLS_SERVER)
        context.sslobject_class = _Connection
        context.log = self._log
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["h2", "http/1.1"])
        certificate = _existing("tls_certificate", self._certificate)
        _read_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "tls_certificate", certificate)
        key = _existing("tls_key", self._key) if self._key else certificate
        try:
            context.load_cert_chain(certificate, key, password=_refuse_to_ask)
        except _IsEncrypted:
            raise InvalidInput.at(
                "tls_key", "a private key without a passphrase", f"an encrypted one: {key}",
                hint=f"openssl pkey -in {key} -out plain.pem   # and let nobody else read that",
            ) from None  # fmt: skip
        except (ssl.SSLError, OSError) as error:
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                raise InvalidInput.at("tls_key", f"the private key of {certificate}", f"another key: {key}") from None
            raise InvalidInput.at(
                "tls_key", "a private key in PEM", f"{key} ({_words(error)})",
                hint="" if self._key else "modelyard serve ... --tls-certificate chain.pem --tls-key key.pem",
            ) from None  # fmt: skip
        if self._clients:
            _read_authorities(context, "tls_clients", _existing("tls_clients", self._clients))
            context.verify_mode = ssl.CERT_REQUIRED
            # Whoever comes back shows the certificate again: a ticket would outlive its authority.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        return context


class _Connection(ssl.SSLObject):
    """TLS on one connection, which answers whoever speaks plain HTTP, once and in plain text.

    The event loop would close without a word. It sends what is to go out as long as the handshake wants to read, and
    so it is told that it does; what still comes is thrown away until the client, or the handshake's time, is gone.
    What is asked here costs the others nothing: it is OpenSSL that tells, once it has given up.
    """

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    _is_plain = False

    def do_handshake(self) -> None:
        if not self._is_plain:
            try:
                super().do_handshake()
            except ssl.SSLError as error:
                if error.reason not in _PLAIN:
                    raise
            else:
                return
            self._is_plain = True
            self.outgoing.read()
            self.outgoing.write(_ANSWER)
            self.context.log.write("info", "plain HTTP came to the port of HTTPS")  # type: ignore[attr-defined]
        self.incoming.read()
        raise ssl.SSLWantReadError


class _Context(ssl.SSLContext):
    """Makes connections that know their buffers."""

    log: Log

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, *args, **options)
        assert isinstance(made, _Connection)
        made.incoming, made.outgoing = incoming, outgoing
        return made


class _IsEncrypted(Exception):
    """A key wants a passphrase."""


def _refuse_to_ask() -> str:
    raise _IsEncrypted  # without this, OpenSSL would ask on the terminal, and a server would wait there for ever


def _existing(setting: str, name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise InvalidInput.at(setting, "a file in PEM", f"no such file: {path}")
    return path


def _read_authorities(context: ssl.SSLContext, setting: str, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise InvalidInput.at(setting, "certificates in PEM", f"{path} ({_words(error)})") from None


def _words(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else (error.strerror or str(error))
