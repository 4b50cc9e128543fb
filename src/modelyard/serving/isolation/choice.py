"""Which models run in processes of their own, and the processes of those that do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelyard import plugins
from modelyard.bundle import Bundle, Trust, environments
from modelyard.errors import Refused
from modelyard.settings import Chosen
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.serving.isolation.keeper import Address, Keeping
    from modelyard.serving.isolation.remote import Remote


class Isolation:
    """Decides by the settings, and asks a keeper: its own, or the one that ``keeper`` was set to before."""

    def __init__(self, settings: Chosen, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._lock = threading.Lock()
        #: Who starts and ends processes. None until the first is needed, or until somebody else's is set.
        self.keeper: Keeping | None = None
        self._own: Callable[[], None] | None = None

    def remote(self, bundle: Any, trust: Trust | None) -> Remote | None:
        """The processes for a bundle, ready to answer; None where it is to run here.

        Raises what stands in the way of a start; Refused where the model needs an environment that was not made yet.
        """
        if self._settings.isolation == "off" or not isinstance(bundle, Bundle):
            return None
        runtime = bundle.manifest.model.runtime
        environment = bundle.manifest.environment
        fits = environments.satisfies(environment)
        if fits and self._settings.isolation == "auto" and not _needs_python(runtime):
            return None
        python = environments.interpreter(environment, self._settings.home)
        if python is None:
            raise _missing(bundle)
        from modelyard.serving.isolation.keeper import Order
        from modelyard.serving.isolation.remote import Remote

        order = Order(
            path=str(bundle.path.absolute()),
            digest=bundle.digest,
            trust=_named(bundle, trust or Trust()),
            processes=self._settings.model_processes,
            interpreter=str(python),
            memory=self._settings.memory,
        )
        address = self._keeping().start(order)
        return Remote(address, bundle.signature, self._settings.model_seconds)

    def release(self, remote: Remote) -> None:
        """The server needs these processes no longer. Returns at once."""
        remote.close()
        keeper = self.keeper
        if keeper is not None:
            threading.Thread(target=_stop, args=(keeper, remote.address), name="modelyard-release", daemon=True).start()

    def close(self) -> None:
        """End every process, where they are ours."""
        if self._own is not None:
            self._own()

    def _keeping(self) -> Keeping:
        with self._lock:
            if self.keeper is None:
                from modelyard.serving.isolation.keeper import Keeper

                own = self.keeper = Keeper(self._log)
                self._own = own.close
            return self.keeper


def _stop(keeper: Keeping, address: Address) -> None:
    keeper.stop(address)


def _needs_python(runtime: str) -> bool:
    """Whether a runtime runs Python for each call. One that says nothing of itself is taken to."""
    known = runtime in plugins.names("runtimes")
    return known and not getattr(plugins.find("runtimes", runtime), "is_native", False)


def _named(bundle: Bundle, trust: Trust) -> tuple[str, ...]:
    """What is trusted, with the bundle's digest where a key vouches for it: its signature may lie beside the bundle,
    where only we see it.
    """
    vouched = trust.allows(bundle.digest, bundle.path) or trust.allows(bundle.digest, bundle.folder)
    return tuple(dict.fromkeys((*trust.names, *((bundle.digest,) if vouched else ()))))


def _missing(bundle: Bundle) -> Refused:
    grave = [difference for difference in bundle.differences() if difference.severity == "refuse"]
    first = grave[0]
    return Refused(
        f"the model needs {first.name} {first.locked}, {first.found or 'none'} is installed, and no environment was "
        "made for it yet",
        hint=f"modelyard environment build {bundle.path}",
        differences=[str(difference) for difference in grave],
    )
