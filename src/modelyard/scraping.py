"""What is watched, for those who scrape: drift, quality, alerts and rollouts, as rows of the registry tell of them.

Rows are read in a thread, at most every few seconds and only when somebody asks. Asking waits for that, but not for a
registry that is away: then the page says so, and has the rest no longer once it is old.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from modelyard import settings
from modelyard.prometheus import Page
from modelyard.registry import Registry
from modelyard.telemetry import Log

#: Seconds for which a page is told again, that asking waits for a new one, after which who reads counts as stuck, and
#: after which a page is too old to be told.
FRESH_SECONDS, WAIT_SECONDS, STUCK_SECONDS, OLD_SECONDS = 5.0, 0.5, 10.0, 60.0


def tell(registry: Registry) -> Page:
    """The page, as of now. Raises RemoteFailed."""
    # Imported when somebody scrapes: four megabytes in each worker, of which those who do not would know nothing.
    from modelyard.monitoring import metrics as monitoring
    from modelyard.rollouts import metrics as rollouts

    page = monitoring.tell(registry)
    page.extend(rollouts.tell(registry))
    return page


class Watched:
    """Makes pages of the registry ``where`` (a registry, or as for ``Registry.open``). Safe for threads."""

    def __init__(self, where: Any = None, *, make: Callable[[Registry], Page] = tell) -> None:
        self._where = where
        self._make = make
        self._log = Log(settings.get("log_level"))
        self._begin()

    def _begin(self) -> None:
        """Know nothing: at first, and in a process that was forked, where no thread goes on."""
        self._process = os.getpid()
        self._registry: Registry | None = None
        self._lock = threading.Lock()
        #: Set while nobody is reading rows.
        self._idle = threading.Event()
        self._idle.set()
        self._page = Page()
        #: When the newest page was made and when the last attempt began, by the steady clock.
        self._made = self._begun = float("-inf")
        #: Whether the last attempt that ended had failed, and whether somebody has waited for the present one in vain.
        self._failed = self._is_late = False

    def __reduce__(self) -> Any:
        """As it is handed to another process, which reads for itself."""
        return (type(self), (self._where,))

    def __call__(self) -> Page:
        """The newest page, and whether the registry answers."""
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            if self._idle.is_set() and monotonic() - self._begun > FRESH_SECONDS:
                self._begun = monotonic()
                self._idle.clear()
                threading.Thread(target=self._read, name="modelyard-watched", daemon=True).start()
        if not self._failed and not self._is_late:
            self._is_late = not self._idle.wait(WAIT_SECONDS)
        page = Page()
        is_stuck = not self._idle.is_set() and monotonic() - self._begun > STUCK_SECONDS
        is_up = int(not self._failed and not is_stuck)
        page.single("modelyard_watched_up", "gauge", "1 while the rows of what is watched can be read.", is_up)
        if monotonic() - self._made < OLD_SECONDS:
            page.extend(self._page)
        return page

    def _read(self) -> None:
        try:
            registry = self._opened()
            if registry is not None:
                self._page = self._make(registry)
        except Exception as error:
            if not self._failed:  # what fails again is not logged again
                self._log.write("error", "what is watched cannot be told", error=error)
                self._log.flush()
            self._failed = True
        else:
            self._made, self._failed = monotonic(), False
        finally:
            self._is_late = False
            self._idle.set()

    def _opened(self) -> Registry | None:
        """The registry; None where nobody has made it yet, as asking is no reason to."""
        if self._registry is None:
            if isinstance(self._where, Registry):
                self._registry = self._where
            elif Registry.is_there(self._where):
                self._registry = Registry.open(self._where)
        return self._registry
