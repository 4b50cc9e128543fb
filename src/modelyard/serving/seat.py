"""One worker's place at the supervisor: the process that sits there, and the connections it was given."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from time import monotonic

from modelyard.serving.link import Begin, Link, Said, Stop
from modelyard.serving.shared import Board

#: Connections that may be on their way to a worker: more wait for those who take faster.
MOST_ON_THE_WAY = 64

#: Seconds after which a worker that shows no sign of life is killed: while it serves, and while it starts.
SILENT_SECONDS = 20.0
START_SECONDS = 120.0

#: Seconds that a process has to end after it has said its last word.
GOODBYE_SECONDS = 2.0

#: Libraries for numbers run on one thread in a worker, unless the environment says otherwise: the threads of several
#: workers would only stand in each other's way.
_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


#: A connection, after the number of the bound socket at which it came in.
Arrival = tuple[int, socket.socket]


class Seat:
    """A place for a worker. Used on the loop's thread only.

    A connection is kept here until the worker says that it has taken it, so that one which was on its way to a worker
    that died goes to another.
    """

    def __init__(self, number: int, board: Board, memory: int) -> None:
        self.number = number
        self._board = board
        self._memory = memory
        self.process: subprocess.Popen[bytes] | None = None
        self.link: Link | None = None
        self._line: socket.socket | None = None
        #: Takes connections, and has loaded every model.
        self.is_up = self.is_ready = False
        #: How often the process was replaced, and how often in a row before it had served for long.
        self.replaced = self.failures = 0
        self.since = 0.0
        self._given = 0
        self._seen_taken = 0
        self._on_the_way: deque[Arrival] = deque()
        #: The sign of life that was seen last, when, and whether the process has given any.
        self._pulse, self._seen, self._has_pulsed = 0, 0.0, False

    async def start(
        self,
        references: list[str],
        limits: dict[str, int | float],
        options: bytes,
        hear: Callable[[Said], None],
        end: Callable[[], None],
        took: Callable[[], None],
    ) -> None:
        """Put a fresh process here. ``end`` is called once it has ended, ``took`` when it took connections."""
        link, its_link = socket.socketpair()
        line, its_line = socket.socketpair()
        descriptors = (its_link.fileno(), its_line.fileno(), self._memory)
        environment = dict.fromkeys(_THREADS, "1") | os.environ
        if environment.get("MODELYARD_WEIGHTS", "auto") == "auto":
            environment["MODELYARD_WEIGHTS"] = "mapped"
        command = [sys.executable, "-P", "-m", "modelyard.serving.employed", *map(str, descriptors)]
        try:
            # A process group of its own: Ctrl-C is for the supervisor, which then tells the workers.
            self.process = subprocess.Popen(
                command, pass_fds=descriptors, env=environment, stdin=subprocess.DEVNULL, process_group=0
            )
        except OSError:
            link.close()
            line.close()
            raise
        finally:
            its_link.close()
            its_line.close()
        self._board.settle(self.number, self.process.pid, self.replaced)
        self._given = self._seen_taken = 0
        self.since = self._seen = monotonic()
        self._pulse, self._has_pulsed = self._board.pulse(self.number), False
        line.setblocking(False)
        self._line = line
        asyncio.get_running_loop().add_reader(line, self._hear_taken, took)
        self.link = await Link.over(link, hear, end)
        self.link.say(Begin(self.number, references, limits, sys.path, options))

    # Connections.

    @property
    def load(self) -> int:
        """How many connections the worker has, and soon will have."""
        return self._given - self._board.lost(self.number)

    @property
    def has_room(self) -> bool:
        """Whether one more connection can be given."""
        return self.is_up and len(self._on_the_way) < MOST_ON_THE_WAY

    def give(self, at: int, connection: socket.socket) -> bool:
        """Hand over a connection and the number of the socket where it came in; False where the worker is gone."""
        assert self._line is not None
        try:
            socket.send_fds(self._line, [bytes([at])], [connection.fileno()])
        except OSError:
            return False
        self._given += 1
        self._on_the_way.append((at, connection))
        return True

    def _hear_taken(self, took: Callable[[], None]) -> None:
        assert self._line is not None
        try:
            if not self._line.recv(4096):
                asyncio.get_running_loop().remove_reader(self._line)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            asyncio.get_running_loop().remove_reader(self._line)
        self._let_go()
        took()

    def _let_go(self) -> None:
        taken = self._board.taken(self.number)
        while self._seen_taken < taken:
            self._seen_taken += 1
            self._on_the_way.popleft()[1].close()

    # Life and death.

    def is_silent(self) -> bool:
        """Whether the process has shown no sign of life for too long."""
        now, pulse = monotonic(), self._board.pulse(self.number)
        if pulse != self._pulse:
            self._pulse, self._seen, self._has_pulsed = pulse, now, True
        return self.process is not None and now - self._seen > (SILENT_SECONDS if self._has_pulsed else START_SECONDS)

    def stop(self) -> None:
        """Tell the process to finish."""
        self.is_up = self.is_ready = False
        if self.link is not None:
            self.link.say(Stop())

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self.process is not None:
            self.process.kill()

    async def clear(self) -> tuple[int, list[Arrival]]:
        """Clean up after a process that has ended, or is about to: its exit code, and what it never took."""
        process, line = self.process, self._line
        assert process is not None and line is not None
        self.is_up = self.is_ready = False
        until = monotonic() + GOODBYE_SECONDS
        while process.poll() is None and monotonic() < until:
            await asyncio.sleep(0.002)
        process.kill()  # its end of the link is gone: whatever is left of it is of no use
        code = process.wait()
        self._let_go()
        left = list(self._on_the_way)
        self._on_the_way.clear()
        asyncio.get_running_loop().remove_reader(line)
        line.close()
        self._board.settle(self.number, 0, self.replaced)
        self.process = self.link = self._line = None
        return code, left
