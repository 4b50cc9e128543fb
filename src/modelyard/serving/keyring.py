"""The keys of a registry, as a server knows them: read once, then followed from a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.registry import Registry
    from modelyard.registry.keys import Key

#: Keys that were not revoked and the digests of their secrets, by their ids.
Digests = Mapping[str, "tuple[Key, str]"]


class Keyring:
    """Reads the keys of the registry at ``where``, and tells ``changed`` of them whenever they are others.

    While the registry does not answer, the keys that were read last hold.
    """

    def __init__(self, where: Any, poll_seconds: float, changed: Callable[[Digests], None], log: Log) -> None:
        self._where = where
        self._poll_seconds = poll_seconds
        self._changed = changed
        self._log = log
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._marker = -1
        self._known: Digests = {}

    def start(self) -> None:
        """Read the keys, and follow them from now on. Raises where the registry does not answer."""
        from modelyard.registry import Registry

        registry = self._where if isinstance(self._where, Registry) else Registry.open(self._where)
        self._read(registry)
        if not self._known:
            self._log.write("warning", "there is no API key: nobody can call", hint="modelyard keys create NAME")
        self._thread = threading.Thread(target=self._follow, args=(registry,), name="modelyard-keys", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _follow(self, registry: Registry) -> None:
        fault = ""
        while not self._stopping.wait(self._poll_seconds):
            try:
                self._read(registry)
            except Exception as error:
                if not fault:
                    self._log.write("warning", "the registry does not answer; keys stay as they are", error=error)
                fault = str(error)
                self._marker = -1
            else:
                fault = ""

    def _read(self, registry: Registry) -> None:
        marker = registry.marker()
        if marker == self._marker:
            return
        found = registry.keys.digests()
        self._marker = marker
        if found != self._known:
            self._known = found
            self._changed(found)
