"""What loaded versions take of memory, and the bound of it."""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelyard.errors import NoRoom
from modelyard.serving.metrics import resident_bytes

if TYPE_CHECKING:
    from modelyard.serving.loading import Loaded
    from modelyard.serving.sources import LoadableBundle

#: Less than this is not worth handing back: trimming takes about a millisecond, and an allocation may wait for it.
_WORTH = 1 << 20


class Memory:
    """Measures versions as they are loaded, and refuses those that would pass ``budget`` bytes; 0 sets no bound.

    A version takes what the process grew by as it was loaded and warmed, but at least the size of its model's files:
    memory that an earlier version has left behind is taken first, which shows no growth. The first version of a
    runtime also pays for the libraries that it brings.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        #: Versions on their way out count for as long as requests hold them.
        self._alive: weakref.WeakSet[Loaded] = weakref.WeakSet()

    @property
    def in_use(self) -> int:
        """Bytes that all versions take together."""
        return sum(loaded.memory or 0 for loaded in list(self._alive))

    def admit(self, what: str, bundle: LoadableBundle, load: Callable[[], Loaded]) -> Loaded:
        """``load()``, measured. Raises NoRoom before it where the files tell enough, else after it."""
        least = size_of(bundle)
        self._check(what, least)
        before = resident_bytes()
        loaded = load()
        if loaded.memory is None:  # else it lives elsewhere, and somebody asked there
            after = resident_bytes()
            loaded.memory = max(least, (after or 0) - (before or 0))
        self._check(what, loaded.memory or 0)
        self._alive.add(loaded)
        return loaded

    def _check(self, what: str, needs: int) -> None:
        in_use = self.in_use
        if self._budget and in_use + needs > self._budget:
            raise NoRoom(
                f"{what} needs about {told(needs)}, and {told(in_use)} of {told(self._budget)} are in use",
                hint=f"unload a model, or set MODELYARD_MEMORY to {told(in_use + needs)} or more",
                needs=needs,
                in_use=in_use,
                budget=self._budget,
            )


def size_of(bundle: LoadableBundle) -> int:
    """Bytes of a bundle's model files."""
    files: dict[str, Any] = getattr(bundle.manifest, "files", {})
    return sum(entry.size for name, entry in files.items() if name.startswith("model/"))


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
