"""Unix sockets between the server and model processes, and what the system tells of who is behind them."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import termios
from contextlib import suppress
from pathlib import Path


def connected(path: str) -> socket.socket | None:
    """A connection to whoever listens at ``path``; None where nobody does."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.setblocking(False)  # where too many wait to be let in, we do not join them
    try:
        line.connect(path)
    except OSError:
        line.close()
        return None
    return line


def wait_at_most(line: socket.socket, seconds: float) -> None:
    """Let calls on ``line`` block, up to ``seconds``, and then fail with an OSError.

    The kernel keeps the time: Python's own timeouts cost a system call each.
    """
    line.setblocking(True)
    bound = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        line.setsockopt(socket.SOL_SOCKET, option, bound)


def is_open(line: socket.socket) -> bool:
    """Whether a connection on which nothing is under way still has somebody at its other end."""
    try:
        line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def unread(line: socket.socket) -> bool:
    """Whether something that was sent was not read yet; False where the system does not tell."""
    if sys.platform != "linux":
        return False
    left = bytearray(4)
    with suppress(OSError):
        fcntl.ioctl(line, termios.TIOCOUTQ, left)
    return any(left)


def process_behind(line: socket.socket) -> int:
    """The number of the process that listens at the other end; 0 where the system does not tell."""
    with suppress(OSError):
        # Elsewhere it is macOS: SOL_LOCAL and LOCAL_PEERPID.
        level, option = (socket.SOL_SOCKET, socket.SO_PEERCRED) if hasattr(socket, "SO_PEERCRED") else (0, 2)
        return int(struct.unpack_from("i", line.getsockopt(level, option, 12))[0])
    return 0


def resident(process: int) -> int:
    """Bytes that a process holds in memory; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def send_all(line: socket.socket, pieces: list[bytes]) -> None:
    """Send pieces one after another on a connection that blocks."""
    sent = line.sendmsg(pieces)
    for piece in pieces:
        if sent >= len(piece):
            sent -= len(piece)
        else:
            line.sendall(memoryview(piece)[sent:])
            sent = 0
