"""The records folder: what lies where. Nobody but its owner may look into it.

Rings lie in memory where the system has a folder there, behind a link, so that no disk, however slow, ever holds up a
server that writes to one. They outlive processes there as well, and a reboot ends those that wrote into them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
from pathlib import Path
from time import sleep

from modelyard import settings
from modelyard.errors import Conflict, RemoteFailed
from modelyard.recording.ring import MAKING, is_written

_MEMORY = Path("/dev/shm")

_ATTEMPTS = 5


class Places:
    """The parts of one records folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rings = folder / "rings"
        self.segments = folder / "segments"
        self.state = folder / "state"

    @classmethod
    def chosen(cls, given: Path | str | None = None) -> Places | None:
        """The folder that the settings say; None where nothing is to be recorded."""
        chosen: str = settings.get("records", None if given is None else str(given))
        if chosen.lower() == "off":
            return None
        return cls(Path(chosen).expanduser() if chosen else settings.get("home") / "records")

    def make(self) -> None:
        """Make what is not there. Raises OSError."""
        for folder in (self.folder, self.segments, self.state):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.rings.is_symlink():
            if _is_own(self.rings.readlink(), self.folder.stat().st_uid):
                return
            self.rings.unlink()  # it leads to what somebody else has made there after a reboot
        elif self.rings.is_dir():
            return
        target = _new_folder_in_memory(self.folder)
        try:
            if target is None:
                self.rings.mkdir(mode=0o700)
            else:
                self.rings.symlink_to(target)
        except OSError as error:
            if target is not None:
                shutil.rmtree(target, ignore_errors=True)
            if not isinstance(error, FileExistsError):  # another process was first
                raise

    def source(self) -> str:
        """What windows and segments say who recorded them: the same for as long as the folder is there."""
        return self._once("source", f"{os.uname().nodename.partition('.')[0][:40]}-{secrets.token_hex(3)}".encode())[
            :64
        ].decode("ascii", "replace")

    def key(self) -> bytes:
        """The secret with which texts are hashed, made when it is first asked for."""
        return self._once("key", secrets.token_bytes(32))

    def lock(self) -> int:
        """The right to record, held as long as the descriptor is open. Raises Conflict where another process has it."""
        path = self.state / "recorder.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        for attempt in range(_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # whoever only asks who records has it for an instant
                if attempt < _ATTEMPTS - 1:
                    sleep(0.02)
            else:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, b"%d" % os.getpid(), 0)
                return descriptor
        os.close(descriptor)
        process = self.recorder() or "another"
        raise Conflict(
            f"predictions in {self.folder} are recorded by process {process} already",
            hint="one recorder is enough: it reads what all servers of this folder write",
            process=process,
        )

    def recorder(self) -> int | None:
        """The process that records, or None."""
        try:
            with (self.state / "recorder.lock").open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read() or 0) or None
        except (OSError, ValueError):
            pass
        return None

    def _once(self, name: str, content: bytes) -> bytes:
        """The content of a file of the state that is written once, wholly."""
        path = self.state / name
        making = self.state / f"{name}.{secrets.token_hex(4)}{MAKING}"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            with contextlib.suppress(FileExistsError):  # another process was first
                path.hardlink_to(making)
        except OSError as error:
            raise RemoteFailed(f"cannot write to {self.state}: {error.strerror or error}") from error
        finally:
            making.unlink(missing_ok=True)
        return path.read_bytes()


def _is_own(folder: Path, owner: int) -> bool:
    """Whether a folder in memory is its owner's alone. A reboot empties that memory: then it is made again."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not found.st_mode & 0o077


def _new_folder_in_memory(records: Path) -> Path | None:
    """A folder in memory for the rings of ``records``; None where the system has none. Those whose records folder was
    removed go, with their rings that nobody writes to.
    """
    if not os.access(_MEMORY, os.W_OK):
        return None
    stem = f"modelyard-{os.geteuid()}-"
    for left in _MEMORY.glob(f"{stem}*"):
        if not (left / "records").exists() and not any(map(is_written, left.glob("*.ring"))):
            shutil.rmtree(left, ignore_errors=True)
    folder = _MEMORY / f"{stem}{secrets.token_hex(8)}"
    try:
        folder.mkdir(mode=0o700)
        (folder / "records").symlink_to(records.resolve())
    except OSError:
        return None
    return folder
