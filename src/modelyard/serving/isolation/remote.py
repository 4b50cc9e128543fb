"""A model in processes of its own, as the server sees it: calls go out over Unix sockets, answers come back.

Nothing is watched in the background: that a process ended is noticed where its socket is used, and its replacement
listens at the same address once it can answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

from modelyard.errors import ModelFailed, ModelyardError, NotReady
from modelyard.schema import Columns, Signature
from modelyard.serving.isolation.doors import Door, exchange
from modelyard.serving.isolation.frames import AT_ONCE, Broken, ProcessEnded, pack, result_of, size_of
from modelyard.serving.isolation.keeper import Address
from modelyard.serving.isolation.sockets import connected, process_behind, resident, unread

#: A call whose process ended is made once more, if a replacement is there within so many seconds.
PATIENCE = 10.0

#: How often a replacement is looked for meanwhile.
LOOK_SECONDS = 0.02

#: A call that the process has not even read after its time waits for those of others, up to so many times that time.
LOOKS = 4

#: Seconds of a call without a bound.
FOREVER = 1e8

Done = Callable[[Columns | BaseException], None]


class Remote:
    """The processes of one loaded version. ``call`` is for the loop's thread, the rest for any."""

    def __init__(self, address: Address, signature: Signature, seconds: float = 60.0) -> None:
        #: Calls that may be under way at once; more of them wait here.
        self.slots = len(address.sockets)
        self.address = address
        self.layout = signature.output_layout
        #: Calls that wait for a process.
        self.waiting: deque[_Call] = deque()
        self._seconds = seconds or FOREVER
        self._lines = [_Line(path, self) for path in address.sockets]
        self._doors = [Door(path) for path in address.sockets]
        self._turn = 0
        self._is_closed = False

    def call(self, columns: Columns, seconds: float, done: Done, *, again: bool = True, ended: float = 0.0) -> None:
        """Predict; ``done`` is called once, later, on this loop's thread, with the outputs or with what went wrong.
        0 ``seconds`` set no bound. Where the process ends under the call, it is made once more if it may be, ``again``.

        NotReady where no process lives; but for one that ``ended`` not long ago (``perf_counter`` seconds) the
        replacement is waited for. ModelFailed where the model raised; of those ProcessEnded where its process ended
        under the call for the last time, or did not answer within ``seconds``: such a process is replaced.
        """
        loop = asyncio.get_running_loop()
        seconds = seconds or FOREVER
        try:
            pieces = pack(columns, seconds)
        except Exception as error:  # texts that are none
            loop.call_soon(done, _unsendable(error))
        else:
            self.place(_Call(pieces, seconds, done, loop, again, ended))

    def place(self, call: _Call) -> None:
        """Send a call to a process that waits for one."""
        is_busy = False
        for line in self._lines:
            if line.call is not None:
                is_busy = True
            elif line.send(call):
                return
        if is_busy:
            self.waiting.append(call)
        elif call.ended and perf_counter() - call.ended < PATIENCE and not self._is_closed:
            call.loop.call_later(LOOK_SECONDS, self.place, call)
        else:
            call.loop.call_soon(call.done, _not_ready())

    def place_waiting(self) -> None:
        """A process waits for a call, or ended."""
        waiting, self.waiting = self.waiting, deque()
        for call in waiting:
            self.place(call)

    def predict(self, columns: Columns, *, again: bool = True, ended: float = 0.0) -> Columns:
        """``call`` as a plain function that waits; safe to call from several threads."""
        try:
            pieces = pack(columns, self._seconds)
        except Exception as error:
            raise _unsendable(error) from error
        while True:
            door, line = self._reach(ended)
            started = perf_counter()
            try:
                answer = exchange(line, pieces, self.layout)
            except Broken as error:
                line.close()
                raise _broken(error) from error
            except OSError:
                line.close()
                now = perf_counter()
                if not again or now - started >= self._seconds:
                    raise _ended(now - started, self._seconds) from None
                again, ended = False, now
                continue
            door.give_back(line)
            if isinstance(answer, ModelyardError):
                raise answer
            return answer

    def _reach(self, ended: float) -> tuple[Door, socket.socket]:
        """A connection to one of the processes. Where one ended under the call, waits for its replacement."""
        while True:
            self._turn += 1
            for i in range(self.slots):
                door = self._doors[(self._turn + i) % self.slots]
                line = door.take(2 * self._seconds + 1)
                if line is not None:
                    return door, line
            if not ended or perf_counter() - ended > PATIENCE or self._is_closed:
                raise _not_ready()
            time.sleep(LOOK_SECONDS)

    @property
    def is_alive(self) -> bool:
        """Whether a process can answer, now."""
        return any(door.is_alive() for door in self._doors)

    @property
    def processes(self) -> tuple[int, ...]:
        """The numbers of the processes that can answer, now; 0 for one of which the system does not tell."""
        return tuple(door.process for door in self._doors if door.is_alive())

    @property
    def memory(self) -> int:
        """Bytes that the processes hold in memory; 0 where the system does not tell."""
        return sum(map(resident, self.processes))

    def close(self) -> None:
        """Nobody calls any more. The loop's connections end with the processes, and calls under way with them."""
        self._is_closed = True
        for line in self._lines:
            line.abandon()
        for door in self._doors:
            door.close()


class _Call:
    """One call under way."""

    __slots__ = ("done", "ended", "is_suspect", "looks", "loop", "pieces", "seconds", "started", "timer")

    def __init__(
        self, pieces: list[Any], seconds: float, done: Done, loop: asyncio.AbstractEventLoop, again: bool, ended: float
    ) -> None:
        self.pieces = pieces
        self.seconds = seconds
        self.done = done
        self.loop = loop
        self.started = 0.0
        #: When the process that it was sent to, or waited for, ended; 0 while none did.
        self.ended = ended
        #: The next process that ends under it is the last: one did before, and not under somebody else's call before
        #: this one was begun, or its caller wants to know at once.
        self.is_suspect = not again
        #: How often it will be seen unread before the process counts as stuck.
        self.looks = 0
        self.timer: asyncio.TimerHandle


class _Line:
    """The loop's connection to one process: one call at a time."""

    def __init__(self, path: str, remote: Remote) -> None:
        self._path = path
        self._remote = remote
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop
        self.call: _Call | None = None
        #: What of the call is still to be sent, and what of the answer has come.
        self._unsent = memoryview(b"")
        self._came = bytearray()

    def send(self, call: _Call) -> bool:
        """Begin a call; False where no process is there."""
        for _ in range(2):  # the first time may tell that the process of an earlier call is gone
            if self._socket is not None and self._loop is not call.loop:
                self.close()  # that loop is gone, and what it connected with it
            line = self._socket or self._connect(call.loop)
            if line is None:
                return False
            try:
                sent = line.sendmsg(call.pieces)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                continue
            self.call = call
            call.started = perf_counter()
            call.looks = LOOKS
            call.timer = call.loop.call_later(2 * call.seconds + 1, self._look)
            if sent < sum(map(len, call.pieces)):
                self._unsent = memoryview(b"".join(call.pieces))[sent:]
                self._loop.add_writer(line, self._writable)
            return True
        return False

    def _connect(self, loop: asyncio.AbstractEventLoop) -> socket.socket | None:
        self._socket = line = connected(self._path)
        if line is not None:
            self._loop = loop
            loop.add_reader(line, self._readable)
        return line

    def _writable(self) -> None:
        assert self._socket is not None
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(AT_ONCE)
        except BlockingIOError:
            return
        except ConnectionResetError:  # what we sent was never read
            self._lost(begun=False)
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        try:
            whole: Any = data
            if self._came or size_of(data) != len(data):
                self._came += data
                size = size_of(self._came)
                if not size or size > len(self._came):
                    return
                whole, self._came = self._came, bytearray()
            if self.call is None or size_of(whole) < len(whole):
                raise Broken(f"{len(whole)} bytes that nobody waits for")
            answer = result_of(whole, self._remote.layout)
        except Broken as error:
            self._kill()
            call = self.close()
            if call is not None:
                call.done(_broken(error))
            return
        call, self.call = self.call, None
        call.timer.cancel()
        if self._remote.waiting:
            self._remote.place_waiting()
        call.done(answer)

    def _lost(self, begun: bool = True) -> None:
        """The process ended, or cannot be reached any more. Where it had ``begun`` the call, that may be at fault."""
        call = self.close()
        if call is None:
            return
        now = perf_counter()
        elapsed = now - call.started
        if (begun and (call.is_suspect or elapsed >= call.seconds)) or elapsed > 2 * call.seconds + 1:
            call.done(_ended(elapsed, call.seconds))
        else:
            call.is_suspect |= begun
            call.ended = now
            self._remote.place(call)

    def _look(self) -> None:
        """Long after a call was sent: end the process, but not while it is busy with the calls of others."""
        call = self.call
        if call is None or self._socket is None:
            return
        if call.looks and unread(self._socket):
            call.looks -= 1
            call.timer = call.loop.call_later(call.seconds, self._look)
        elif call.looks:  # begun, and maybe only now
            call.looks = 0
            call.timer = call.loop.call_later(call.seconds + 1, self._look)
        else:
            self._kill()

    def _kill(self) -> None:
        """End a process that has outlasted its own alarm, or in which something has gone badly wrong."""
        process = process_behind(self._socket) if self._socket is not None else 0
        if process:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)

    def abandon(self) -> None:
        """Let go of the connection if its loop has ended, and so will not hear of the end of the process."""
        if self._socket is not None and self._loop.is_closed():
            self.close()

    def close(self) -> _Call | None:
        """Let go of the connection. Returns the call that was under way."""
        call, self.call = self.call, None
        if call is not None:
            call.timer.cancel()
        if self._socket is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._socket)
                self._loop.remove_writer(self._socket)
                if self._remote.waiting:
                    self._loop.call_soon(self._remote.place_waiting)
            self._socket.close()
            self._socket = None
        self._unsent = memoryview(b"")
        self._came = bytearray()
        return call


def _not_ready() -> NotReady:
    return NotReady("the model's process ended and is being replaced", hint="try again in a moment")


def _ended(elapsed: float, seconds: float) -> ProcessEnded:
    if elapsed >= seconds:
        return ProcessEnded(f"the model did not answer within {seconds:g} s; its process was replaced")
    return ProcessEnded("the model's process ended under this call, and so did its replacement")


def _broken(error: Broken) -> ProcessEnded:
    return ProcessEnded(f"the model's process sent what is no answer: {error}")


def _unsendable(error: Exception) -> ModelFailed:
    return ModelFailed(f"the rows cannot be sent to the model: {type(error).__name__}: {error}")
