"""A worker under a supervisor: ``python -m modelyard.serving.employed LINK CONNECTIONS MEMORY`` (file descriptors).

Its options come over the link, its connections beside it, and it counts in memory that all workers share. It ends
when it is told to, or when the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from modelyard.serving.application import Application
from modelyard.serving.catalog import Change, ServerCatalog
from modelyard.serving.isolation.frames import failure_of
from modelyard.serving.link import (
    Answer,
    Apply,
    Begin,
    Failed,
    Leaving,
    Limit,
    Link,
    LinkedKeeper,
    Model,
    Ready,
    Said,
    Stop,
    Up,
)
from modelyard.serving.shared import Board
from modelyard.serving.worker import Security, Worker, new_loop, settle_memory

#: How often a worker tells what it has counted, in seconds; it is also how it shows that it lives.
PUBLISH_SECONDS = 0.25

#: Seconds that a worker told to end gives connections that it was just handed; those of TLS have to agree on keys.
ARRIVAL_SECONDS = 1.0

#: Seconds for what is in flight when the supervisor was killed: nobody can ask for longer.
ORPHAN_SECONDS = 5.0


class LinkEntrance:
    """Takes connections that the supervisor has accepted."""

    def __init__(self, line: socket.socket, board: Board) -> None:
        self._line = line
        self._board = board
        self._loop = asyncio.get_running_loop()
        self._connect: Callable[[], asyncio.Protocol]
        self._secure: Security = {}
        self._arriving: set[asyncio.Task[None]] = set()
        self._is_open = False

    async def open(self, connect: Callable[[], asyncio.Protocol], secure: Security) -> None:
        self._connect = connect
        self._secure = secure
        self._is_open = True
        self._loop.add_reader(self._line, self._take)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._take()
            self._loop.remove_reader(self._line)

    async def settle(self) -> None:
        if self._arriving:
            await asyncio.wait(self._arriving, timeout=ARRIVAL_SECONDS)

    def note_lost(self) -> None:
        self._board.note_lost()

    def _take(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._line, 1, 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._loop.remove_reader(self._line)
                return
            self._board.note_taken()
            with contextlib.suppress(OSError):  # so that the supervisor lets go of it, at once rather than soon
                self._line.send(b"+")
            if not descriptors:  # we had none left for it: the system has closed it
                self.note_lost()
            for descriptor in descriptors:
                task = self._loop.create_task(self._let_in(socket.socket(fileno=descriptor)))
                self._arriving.add(task)
                task.add_done_callback(self._arriving.discard)

    async def _let_in(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(self._connect, connection, **self._secure)
        except OSError:
            connection.close()
            self.note_lost()


class Employment:
    """The time of one worker under its supervisor."""

    def __init__(self, link: socket.socket, connections: socket.socket, memory: int) -> None:
        self._line = link
        self._connections = connections
        self._memory = memory
        self._loop = asyncio.get_running_loop()
        self._begin: asyncio.Future[Begin] = self._loop.create_future()
        self._stopping = asyncio.Event()
        self._worker: Worker | None = None
        #: What was said before there was a worker to do it.
        self._early: list[Said] = []
        self._link: Link

    async def live(self) -> None:
        self._link = await Link.over(self._line, self._hear, self._end)
        begin = await self._begin
        sys.path[:] = begin.path
        try:
            application = self._make(begin)
            await self._serve(application, LinkEntrance(self._connections, self._board))
        except Exception as error:
            self._link.say(Failed(failure_of(error)))
        finally:
            self._link.close()
            await asyncio.sleep(0)  # what was said last goes out

    def _make(self, begin: Begin) -> Application:
        options: dict[str, Any] = pickle.loads(begin.options)
        application = Application(begin.references, **options)
        self._board = Board(self._memory, begin.number)
        application.log.always(worker=begin.number)
        application.metrics.board = self._board
        application.metrics.adopt(self._board.inherited())
        application.catalog.coordinate = self._coordinate
        application.apply_limits(begin.limits)
        application.spread = lambda told: self._link.say_from_thread(Limit(dict(told)))
        application.catalog.isolation.keeper = LinkedKeeper(self._link)
        return application

    def _coordinate(self, change: Change) -> None:
        """In a thread: have every worker make a change that a client asked this one for."""
        self._link.ask_from_thread(lambda number: Apply(change, number))

    async def _serve(self, application: Application, entrance: LinkEntrance) -> None:
        self._worker = Worker(application)
        for said in self._early:
            self._hear(said)
        self._loop.add_signal_handler(signal.SIGTERM, self._leave)
        publishing = asyncio.ensure_future(self._publish(application))
        try:
            self._link.say(Up())
            await self._worker.live(entrance, self._stopping, lambda: self._tell_ready(application))
        finally:
            publishing.cancel()
            application.metrics.publish()
            application.close()

    async def _publish(self, application: Application) -> None:
        while True:
            application.metrics.publish()
            await asyncio.sleep(PUBLISH_SECONDS)

    def _tell_ready(self, application: Application) -> None:
        settle_memory()
        application.log.flush()
        self._link.say(Ready([Model.of(served) for served in application.catalog.models()]))

    def _leave(self) -> None:
        self._link.say(Leaving())
        self._stopping.set()

    def _hear(self, said: Said) -> None:
        if isinstance(said, Begin):
            self._begin.set_result(said)
        elif isinstance(said, Stop):
            self._stopping.set()
        elif self._worker is None:
            self._early.append(said)
        elif isinstance(said, Apply):
            catalog = self._worker.application.catalog
            # A thread of its own, one at a time: those of the application may all wait for this very change.
            threading.Thread(target=self._apply, args=(catalog, said), name="modelyard-change", daemon=True).start()
        elif isinstance(said, Limit):
            self._worker.application.apply_limits(said.limits)

    def _apply(self, catalog: ServerCatalog, said: Apply) -> None:
        """In a thread: make a change that the supervisor tells all of us to make."""
        try:
            catalog.apply(said.change)
            answer = Answer(said.id, references=list(catalog.references))
        except Exception as error:
            answer = Answer(said.id, failure_of(error))
        self._link.say_from_thread(answer)

    def _end(self) -> None:
        """The supervisor is gone, or we have ended ourselves."""
        if self._worker is None:
            os._exit(1)
        if not self._stopping.is_set():
            self._worker.drain_seconds = min(self._worker.drain_seconds, ORPHAN_SECONDS)
            self._stopping.set()


def main(link: int, connections: int, memory: int) -> None:
    """Live on these file descriptors."""
    lines = []
    for descriptor in (link, connections, memory):
        os.set_inheritable(descriptor, False)
    for descriptor in (link, connections):
        line = socket.socket(fileno=descriptor)
        line.setblocking(False)
        lines.append(line)

    async def live() -> None:
        await Employment(lines[0], lines[1], memory).live()

    loop = new_loop()
    loop.run_until_complete(live())
    loop.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
