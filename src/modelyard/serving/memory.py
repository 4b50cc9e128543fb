"""What loaded versions take of memory, and the bound of it."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.errors import NoRoom

if TYPE_CHECKING:
    from modelyard.serving.loading import Loaded
    from modelyard.serving.sources import LoadableBundle

#: Less than this is not worth handing back: trimming takes about a millisecond, and an allocation may wait for it.
_WORTH = 1 << 20


class Memory:
    """Measures versions as they are loaded, and refuses those that would pass ``budget`` bytes; 0 sets no bound.

    A version takes what the process grew by as it was loaded and warmed, but at least the size of its model's files:
    memory that an earlier version has left behind is taken first, which shows no growth. The first version of a
    runtime also pays for the libraries that it brings. The budget is that of all ``workers``: what they do not share,
    each of them takes.
    """

    def __init__(self, budget: int, workers: int = 1) -> None:
        self._budget = budget
        self._workers = workers
        #: Bytes of each version that only this process holds. Versions on their way out are here for as long as
        #: requests hold them.
        self._private: weakref.WeakKeyDictionary[Loaded, int] = weakref.WeakKeyDictionary()

    def admit(self, what: str, bundle: LoadableBundle, load: Callable[[], Loaded]) -> Loaded:
        """``load()``, measured. Raises NoRoom before it where the files tell enough, else after it."""
        least = size_of(bundle)
        self._check(what, least)
        before = _resident()
        loaded = load()
        private = 0
        if loaded.memory is None:  # else it lives elsewhere, and somebody asked there
            growth, private = (now - then for now, then in zip(_resident(), before, strict=True))
            loaded.memory = max(least, growth)
        self._check(what, self._count(loaded, private))
        self._private[loaded] = private
        return loaded

    def _count(self, loaded: Loaded, private: int) -> int:
        """Bytes that a version takes in all workers."""
        return (loaded.memory or 0) + (self._workers - 1) * max(private, 0)

    def _check(self, what: str, needs: int) -> None:
        if not self._budget:
            return
        in_use = sum(self._count(loaded, private) for loaded, private in list(self._private.items()))
        if in_use + needs > self._budget:
            raise NoRoom(
                f"{what} needs about {told(needs)}, and {told(in_use)} of {told(self._budget)} are in use",
                # How much it takes is known only once it is loaded: a figure here would be wrong as often as not.
                hint="unload a model, or give the models more with --memory or MODELYARD_MEMORY",
                needs=needs,
                in_use=in_use,
                budget=self._budget,
            )


def size_of(bundle: LoadableBundle) -> int:
    """Bytes of a bundle's model files."""
    files: dict[str, Any] = getattr(bundle.manifest, "files", {})
    return sum(entry.size for name, entry in files.items() if name.startswith("model/"))


def _resident() -> tuple[int, int]:
    """Bytes that this process holds in memory, and those of them that it shares with nobody; 0 where it is not told."""
    try:
        resident, shared = map(int, Path("/proc/self/statm").read_bytes().split()[1:3])
    except (OSError, ValueError):
        return 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    return resident * page, (resident - shared) * page


def told(size: int) -> str:
    """A size for people, as the settings take it: ``120MB``."""
    return f"{-(-size // (1 << 20))}MB" if size >= 1 << 20 else f"{-(-size // 1024)}kB"


def hand_back(size: int) -> None:
    """Give what was freed, about ``size`` bytes, back to the system, where the allocator would keep it (glibc's)."""
    if size < _WORTH or sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
