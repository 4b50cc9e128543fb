"""A process's watch in a thread, whose registry can be taken away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from modelyard.errors import RemoteFailed
from modelyard.watching import Watch


@contextmanager
def running(watch: Watch) -> Iterator[None]:
    """While it runs; it has ended afterwards."""
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield
    finally:
        watch.stop()
        thread.join()


def may_be_cut_off(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is set, the registry does not answer to a beat."""
    beat, gone = watch.lease.beat, threading.Event()

    def beat_if_there() -> bool:
        if gone.is_set():
            raise RemoteFailed("the registry does not answer")
        return beat()

    monkeypatch.setattr(watch.lease, "beat", beat_if_there)
    return gone
