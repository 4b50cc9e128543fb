"""The way of threads to one model process: connections that block, and one that only tells whether it lives."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from typing import Any

from modelyard.errors import ModelyardError
from modelyard.schema import Columns, Layout
from modelyard.serving.isolation.frames import AT_ONCE, Broken, result_of, size_of
from modelyard.serving.isolation.sockets import (
    connected,
    is_open,
    process_behind,
    send_all,
    wait_at_most,
)


class Door:
    """Safe for threads, and for a process that forks: what another process has connected is not used here."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._watch: tuple[int, socket.socket] | None = None
        self._idle: deque[tuple[int, socket.socket]] = deque()
        #: The process that was last found to live.
        self.process = 0

    def take(self, seconds: float) -> socket.socket | None:
        """A connection that nobody else uses and that waits up to ``seconds``; None where no process listens."""
        while self._idle:
            try:
                owner, line = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if owner == os.getpid() and is_open(line):
                return line
            line.close()
        found = connected(self._path)
        if found is not None:
            wait_at_most(found, seconds)
        return found

    def give_back(self, line: socket.socket) -> None:
        """The connection may be used by others."""
        self._idle.append((os.getpid(), line))

    def is_alive(self) -> bool:
        """Whether a process listens, now."""
        with self._lock:
            if self._watch is not None:
                owner, line = self._watch
                if owner == os.getpid() and is_open(line):
                    return True
                line.close()
                self._watch = None
            found = connected(self._path)
            if found is None:
                return False
            self._watch = (os.getpid(), found)
            self.process = process_behind(found)
            return True

    def close(self) -> None:
        with self._lock:
            if self._watch is not None:
                self._watch[1].close()
                self._watch = None
        while self._idle:
            self._idle.pop()[1].close()


def exchange(line: socket.socket, pieces: list[Any], layout: Layout) -> Columns | ModelyardError:
    """One call on a connection that blocks. Raises OSError where the process ends or does not answer."""
    send_all(line, pieces)
    came = bytearray()
    size = 0
    while not size or len(came) < size:
        data = line.recv(AT_ONCE)
        if not data:
            raise ConnectionResetError("the process ended")
        came += data
        size = size or size_of(came)
    if len(came) > size:
        raise Broken(f"{len(came)} bytes for an answer of {size}")
    return result_of(came, layout)
