"""The model process: loads one bundle, proves it by its golden rows, answers calls one at a time.

It is told what to do by one line of JSON on stdin and says one line on stdout once it can answer, or why it cannot.
Stdin stays open as long as the keeper lives: its end is ours. Calls come over a Unix socket, from any number of
callers.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelyard.bundle import Bundle, Trust
from modelyard.errors import BadBundle, ModelFailed
from modelyard.interfaces import Predict
from modelyard.schema import Columns, Layout
from modelyard.serving.isolation.frames import (
    AT_ONCE,
    Broken,
    Failure,
    failure_of,
    pack,
    pack_failure,
    size_of,
    unpack,
)
from modelyard.serving.isolation.sockets import send_all, wait_at_most

#: A caller that stops in the middle of a frame, or reads no answer, is given up after this many seconds.
PATIENCE = 30

#: Callers that may wait to be let in.
BACKLOG = 512


class Task(msgspec.Struct, kw_only=True):
    """What a model process is told."""

    folder: str
    digest: str
    trust: tuple[str, ...]
    #: Where to listen.
    address: str
    #: Bytes that it may take; 0 sets no bound.
    memory: int = 0


class Report(msgspec.Struct):
    """What it says once: nothing, when it answers from now on, or why it cannot."""

    failure: Failure | None = None


def live(told: dict[str, Any]) -> None:
    """Be a model process until stdin ends."""
    # What libraries and models print goes to stderr, so that the report stands alone.
    report = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    task = msgspec.convert(told, Task)
    _end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # the keeper decides, also where the terminal signals all of us
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends a call that takes too long, whatever code it is in
    try:
        _limit_memory(task.memory)
        predict, bundle = _load(task)
        listener = _listen(Path(task.address))
    except BaseException as error:  # the model's own code has run, and may raise anything
        _say(report, Report(failure_of(error)))
        os._exit(1)
    gc.collect()
    gc.freeze()
    _say(report, Report())
    signature = bundle.signature
    _serve(listener, _Answering(predict, signature.input_layout, signature.output_layout))


def _say(report: Any, said: Report) -> None:
    with report:
        report.write(msgspec.json.encode(said) + b"\n")


def _end_with_parent() -> None:
    """Ask Linux to kill us when the thread that started us ends; elsewhere the end of stdin has to do."""
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    with contextlib.suppress(OSError):  # where memory runs out, the kernel takes a model rather than the server
        Path("/proc/self/oom_score_adj").write_text("500")


def _limit_memory(memory: int) -> None:
    if not memory or sys.platform != "linux":
        return
    import resource

    with contextlib.suppress(ValueError, OSError):  # the system's own bound is lower
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _load(task: Task) -> tuple[Predict, Bundle]:
    bundle = Bundle.open(task.folder)
    if bundle.digest != task.digest:
        raise BadBundle(f"the bundle in {task.folder} is another one: expected {task.digest}, got {bundle.digest}")
    predict = bundle.load(trust=Trust(task.trust))
    bundle.check_golden(predict)
    return predict, bundle


def _listen(address: Path) -> socket.socket:
    """A socket that takes the place of the last process's in one step."""
    fresh = address.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(fresh))
    fresh.chmod(0o600)
    listener.listen(BACKLOG)
    fresh.rename(address)
    return listener


class _Answering:
    """From the bytes of a call to the pieces of its answer."""

    def __init__(self, predict: Predict, inputs: Layout, outputs: Layout) -> None:
        self._predict = predict
        self._inputs = inputs
        self._outputs = outputs
        #: Set once the process is of no more use: it has run out of memory, and would again.
        self.is_spent = False

    def answer(self, frame: Any) -> list[Any]:
        note, columns = unpack(frame, self._inputs)
        if columns is None:
            raise Broken("a call without columns")
        signal.setitimer(signal.ITIMER_REAL, note.seconds)
        try:
            return pack(self._fitting(self._predict(columns)))
        except BaseException as error:  # a model may call sys.exit, and a panic of a Rust library is no Exception
            self.is_spent = _is_out_of_memory(error)
            return pack_failure(error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _fitting(self, found: Any) -> Columns:
        if not isinstance(found, Columns):
            raise ModelFailed(f"the model answered a {type(found).__name__} instead of columns")
        if found.layout is self._outputs or found.layout.fields == self._outputs.fields:
            return found
        return self._outputs.from_arrays(found)


def _is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__
    return False


def _serve(listener: socket.socket, answering: _Answering) -> None:
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    poll.register(listener, select.POLLIN)
    callers: dict[int, socket.socket] = {}
    scratch = np.empty(AT_ONCE, dtype=np.uint8)
    while True:
        for number, _ in poll.poll():
            if number == 0:
                os._exit(0)  # nobody is there any more; what a model left running must not keep us
            if number == listener.fileno():
                with contextlib.suppress(OSError):
                    caller = _let_in(listener)
                    callers[caller.fileno()] = caller
                    poll.register(caller, select.POLLIN)
                continue
            caller = callers[number]
            try:
                frame = _receive(caller, scratch)
                if frame is not None:
                    send_all(caller, answering.answer(frame))
            except (OSError, Broken):
                frame = None
            if frame is None:
                poll.unregister(caller)
                del callers[number]
                caller.close()
            if answering.is_spent:
                os._exit(1)


def _let_in(listener: socket.socket) -> socket.socket:
    caller, _ = listener.accept()
    wait_at_most(caller, PATIENCE)
    return caller


def _receive(caller: socket.socket, scratch: Any) -> Any:
    """The next frame of a caller, in memory of its own; None at the end."""
    got = caller.recv_into(scratch)
    while got and not (size := size_of(scratch[:got])):
        more = caller.recv_into(scratch[got:])
        got = got + more if more else 0
    if not got:
        return None
    if got > size:
        raise Broken(f"{got} bytes for a frame of {size}")
    frame = np.empty(size, dtype=np.uint8)
    frame[:got] = scratch[:got]
    while got < size:
        more = caller.recv_into(frame.data[got:])
        if not more:
            return None
        got += more
    return frame
