"""The access log: a line for each answer, or for those that are errors. Most of a line is known before."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.messages import Message
from modelyard.telemetry import Log, masked

if TYPE_CHECKING:
    from modelyard.serving.http import HttpExchange
    from modelyard.serving.streams import StreamExchange

#: The most of a target that is told, and how many are known by heart.
LONGEST_TARGET = 200
MOST_KNOWN = 1024


def is_probe(target: str) -> bool:
    """Whether a target asks for health: probes come every second, and what is not ready has a line of its own."""
    return target.partition("?")[0].rstrip("/").endswith(("/ready", "/live"))


class AccessLog:
    """Tells of answers: ``which`` are ``errors``, ``all`` or ``off``. Never of bodies, nor of secrets in targets."""

    def __init__(self, log: Log, which: str, *, tells_clients: bool) -> None:
        self._log = log
        self._tells_clients = tells_clients
        #: Whether every answer is told, and whether those that are errors.
        self.is_whole = which == "all"
        self.has_errors = which != "off"
        #: What is told of a method, target and version of a model.
        self._known: dict[tuple[str, str, str, str], str] = {}

    def note(self, exchange: HttpExchange | StreamExchange, message: Message, status: int) -> None:
        """Tell of one answer, if it is one of those that are told.

        Of errors, not those who ask more than their key may: one client could fill the log. Metrics count them.
        """
        head, endpoint = exchange.head, exchange.endpoint
        if not self.is_whole and (status < 400 or not self.has_errors or status == 429 or is_probe(head.target)):
            return
        key = (head.method, head.target, endpoint.model, endpoint.version)
        asked = self._known.get(key) or self._learn(key)
        fields = (
            f'"request_id":"{exchange.id}",{asked}"status":{status},"code":"{message.code}",'
            f'"milliseconds":{(perf_counter() - exchange.received) * 1000:.3f},"bytes_out":{len(message.body)}'
        )
        if head.length >= 0:
            fields += f',"bytes_in":{head.length}'
        if exchange.trace is not None:
            fields += f',"trace_id":"{exchange.trace.trace_id}"'
        if self._tells_clients:
            fields += self._client(exchange)
        self._log.write_fields("info" if status < 500 else "warning", "request", fields)

    def _learn(self, key: tuple[str, str, str, str]) -> str:
        method, target, model, version = key
        told = {"method": method, "target": target[:LONGEST_TARGET]}
        if model:
            told |= {"model": model, "version": version}
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        text = self._known[key] = masked(msgspec.json.encode(told)).decode()[1:-1] + ","
        return text

    @staticmethod
    def _client(exchange: Any) -> str:
        peer = exchange.transport.get_extra_info("peername")
        return f',"client":"{peer[0]}"' if isinstance(peer, tuple) else ""
