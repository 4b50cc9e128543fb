"""The supervisor of worker processes: accepts connections, gives each to the worker that has the fewest, and replaces
workers that end.

Measured with 64 connections that stay open and two workers: where both listen on one socket, they got 13 to 31 and
33 to 51 of them; with a socket each (SO_REUSEPORT) 26 to 29 and 35 to 38, and what waits at a worker that is killed
is lost. Here each gets 32, nothing that waits is lost, and a request costs the same, since the supervisor sees none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from modelyard.errors import ModelyardError, RemoteFailed
from modelyard.serving import shared
from modelyard.serving.catalog import Change
from modelyard.serving.isolation.frames import error_of, failure_of
from modelyard.serving.link import Answer, Apply, End, Failed, Leaving, Limit, Link, Model, Ready, Said, Start, Up
from modelyard.serving.seat import Arrival, Seat
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.serving.isolation.keeper import Address, Keeper

#: A worker that ends is replaced at once; each further time that one ends before it has served for ``STEADY`` seconds
#: doubles the wait, from the first of these to the second.
BACK_OFF = (0.1, 10.0)
STEADY = 10.0

#: Seconds that workers have beyond their own time for what is in flight.
GRACE = 3.0


class Supervisor:
    """Keeps ``count`` workers that serve ``references`` at the ``bound`` sockets.

    ``options`` are the pickled options of an ``Application``.
    """

    def __init__(
        self,
        count: int,
        references: Sequence[str],
        options: bytes,
        bound: Sequence[socket.socket],
        *,
        drain_seconds: float,
        log: Log,
    ) -> None:
        self._count = count
        self._references = list(references)
        #: Those that were changed since the start.
        self._limits: dict[str, int | float] = {}
        self._options = options
        self._bound = bound
        self._drain_seconds = drain_seconds
        self._log = log
        self._seats: list[Seat] = []
        self._leaving: set[Seat] = set()
        #: Connections that were on their way to a worker that ended.
        self._again: deque[Arrival] = deque()
        self._is_listening = self._is_stopping = self._is_short = False
        self._models: list[Model] = []
        #: A worker was ready: what keeps one from starting is a passing trouble from then on.
        self._has_served = False
        self._failure: ModelyardError | None = None
        self._changed = asyncio.Event()
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Future[None]] = set()
        # For what blocks: starting the processes of models.
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="modelyard-supervisor")
        self._keeper: Keeper | None = None
        self._kept: dict[Seat, list[Address]] = {}
        self._loop = asyncio.get_running_loop()

    async def live(self, stopping: asyncio.Event, ready: Callable[[list[Model]], None]) -> None:
        """Serve until ``stopping``; ``ready`` is told the models once every worker has loaded them.

        Raises what kept a worker from its first start.
        """
        memory = shared.make(self._count)
        board = shared.Board(memory)
        self._seats = [Seat(number, board, memory) for number in range(self._count)]
        waiting = asyncio.ensure_future(stopping.wait())
        waiting.add_done_callback(lambda _: self._changed.set())
        watching = asyncio.ensure_future(self._watch())
        try:
            for seat in self._seats:
                await self._start(seat)
            while not (stopping.is_set() or self._failure or all(seat.is_ready for seat in self._seats)):
                await self._change()
            if self._failure is None and not stopping.is_set():
                ready(self._models)
                await stopping.wait()
            self._log.write("info", "stopping", workers=len(self._seats))
            await self._end()
            self._log.write("info", "stopped")
        finally:
            watching.cancel()
            waiting.cancel()
            self._is_stopping = True
            self._listen(False)
            for seat in self._seats:
                seat.kill()
            while any(seat.process for seat in self._seats):
                await self._change()
            for _, connection in self._again:
                connection.close()
            self._threads.shutdown(wait=False, cancel_futures=True)
            if self._keeper is not None:
                self._keeper.close()
            os.close(memory)
        if self._failure is not None:
            raise self._failure

    async def _change(self) -> None:
        """Wait until a worker has started, is ready or has ended."""
        await self._changed.wait()
        self._changed.clear()

    async def _end(self) -> None:
        """Have every worker finish what is in flight, and what waits to be accepted."""
        self._pump()
        self._is_stopping = True
        self._listen(False)
        for bound in self._bound:
            bound.close()  # who comes from now on is to hear at once that nobody is there
        for seat in self._seats:
            seat.stop()
        until = monotonic() + self._drain_seconds + GRACE
        while any(seat.process for seat in self._seats) and (left := until - monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._change(), left)

    # Workers.

    async def _start(self, seat: Seat) -> None:
        try:
            await seat.start(
                self._references,
                self._limits,
                self._options,
                partial(self._hear, seat),
                lambda: self._later(self._lost(seat)),
                self._pump,
            )
        except OSError as error:
            self._log.write("error", "no worker could be started", worker=seat.number, error=error)
            seat.failures += 1
            self._replace(seat)

    def _hear(self, seat: Seat, said: Said) -> None:
        if isinstance(said, Up):
            seat.is_up = True
            self._pump()
        elif isinstance(said, Ready):
            seat.is_ready = True
            seat.since = monotonic()
            self._models, self._has_served = said.models, True
            self._changed.set()
            self._pump()
        elif isinstance(said, Leaving):
            seat.is_up = seat.is_ready = False
            self._leaving.add(seat)
        elif isinstance(said, Failed):
            error = error_of(said.failure)
            if self._has_served:
                self._log.write("error", "a worker could not start", worker=seat.number, error=error)
            else:
                self._failure = self._failure or error
        elif isinstance(said, Apply) and seat.link is not None:
            self._later(self._apply(seat.link, said))
        elif isinstance(said, Limit):
            self._limits |= said.limits
            for other in self._seats:
                if other is not seat and other.link is not None:
                    other.link.say(said)
        elif isinstance(said, (Start, End)):
            self._keep(seat, said)

    async def _lost(self, seat: Seat) -> None:
        """A worker has ended, or ends."""
        served = monotonic() - seat.since if seat.is_ready else 0.0
        code, left = await seat.clear()
        self._again.extend(left)
        for address in self._kept.pop(seat, []):
            self._keep(seat, End(address))
        self._changed.set()
        if self._is_stopping:
            return
        if not self._has_served and self._failure is None:
            self._failure = RemoteFailed(
                f"a worker ended before it was ready: {_how(code)}", hint="its log says why: modelyard serve ... 2>log"
            )
        if seat in self._leaving:
            self._leaving.discard(seat)
            served = STEADY
        elif code or served:
            self._log.write("error", "a worker ended", worker=seat.number, how=_how(code), connections_kept=len(left))
        seat.failures = 0 if served >= STEADY else seat.failures + 1
        self._replace(seat)
        self._pump()

    def _replace(self, seat: Seat) -> None:
        wait = min(BACK_OFF[0] * 2 ** (seat.failures - 2), BACK_OFF[1]) if seat.failures > 1 else 0.0
        seat.replaced += 1
        self._loop.call_later(wait, self._start_again, seat)

    def _start_again(self, seat: Seat) -> None:
        if not self._is_stopping:
            self._later(self._start(seat))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for seat in self._seats:
                if seat.is_silent():
                    self._log.write("error", "a worker hangs: it is killed and replaced", worker=seat.number)
                    seat.kill()
            self._log.flush()

    def _later(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Connections.

    def _pump(self) -> None:
        """Give away every connection that waits, as long as somebody can take it."""
        seat = self._freest()
        while seat is not None:
            arrival = self._again.popleft() if self._again else self._accept()
            if arrival is None:
                break
            if not seat.give(*arrival):
                seat.is_up = False
                self._again.appendleft(arrival)
            seat = self._freest()
        self._listen(seat is not None and not self._is_stopping and not self._is_short)

    def _freest(self) -> Seat | None:
        """Who gets the next connection: of those who are ready, or else of those who can say that they are not."""
        ready = [seat for seat in self._seats if seat.is_ready]
        return min((seat for seat in ready or self._seats if seat.has_room), key=lambda seat: seat.load, default=None)

    def _accept(self) -> Arrival | None:
        if self._is_short:
            return None
        for at, bound in enumerate(self._bound):
            try:
                return at, bound.accept()[0]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                continue
            except OSError as error:  # no file descriptor is left, for now
                self._log.write("error", "connections cannot be accepted", error=error)
                self._is_short = True
                self._loop.call_later(0.2, self._resume)
        return None

    def _resume(self) -> None:
        self._is_short = False
        self._pump()

    def _listen(self, on: bool) -> None:
        if on != self._is_listening:
            self._is_listening = on
            for bound in self._bound:
                if on:
                    self._loop.add_reader(bound, self._pump)
                else:
                    self._loop.remove_reader(bound)

    # What workers ask for.

    async def _apply(self, link: Link, asked: Apply) -> None:
        """Have every worker make a change; where one cannot, the others go back to what they served."""
        async with self._changing:
            answers = await self._tell(asked.change, self._links())
            failures = [answer.failure for answer in answers.values() if answer.failure is not None]
            if failures:
                before = Change("replace", tuple(self._references))
                await self._tell(before, [each for each, answer in answers.items() if answer.failure is None])
            elif answers:
                self._references = next(iter(answers.values())).references
                late = [each for each in self._links() if each not in answers]  # they began with what was before
                await self._tell(Change("replace", tuple(self._references)), late)
        link.say(Answer(asked.id, failures[0] if failures else None))

    def _links(self) -> list[Link]:
        return [seat.link for seat in self._seats if seat.link is not None]

    async def _tell(self, change: Change, links: Sequence[Link]) -> dict[Link, Answer]:
        """The answers of those who live to give one."""
        asked = [asyncio.wrap_future(link.ask(lambda number: Apply(change, number))) for link in links]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return {link: each for link, each in zip(links, answers, strict=True) if isinstance(each, Answer)}

    def _keep(self, seat: Seat, said: Start | End) -> None:
        """Start or end the processes of a model; a thread waits for that."""
        if self._keeper is None:
            from modelyard.serving.isolation.keeper import Keeper

            self._keeper = Keeper(self._log)
        keeper, kept, link = self._keeper, self._kept.setdefault(seat, []), seat.link
        if isinstance(said, End):
            if said.address in kept:
                kept.remove(said.address)
            self._threads.submit(keeper.stop, said.address)
        elif link is not None:
            self._threads.submit(self._start_model, keeper, seat, kept, link, said)

    def _start_model(self, keeper: Keeper, seat: Seat, kept: list[Address], link: Link, said: Start) -> None:
        try:
            address = keeper.start(said.order)
        except Exception as error:
            link.say_from_thread(Answer(said.id, failure_of(error)))
        else:
            if seat.link is not link:  # the worker that asked has ended meanwhile
                keeper.stop(address)
                return
            kept.append(address)
            link.say_from_thread(Answer(said.id, address=address))


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
