"""The postman: brings what is to be sent to its sinks, without ever waiting for one.

Each attempt has a thread and a time limit; a sink has one attempt at a time, so that one that hangs holds up nobody
else. What failed is tried again after twice the time, and is dead after ten attempts: it stays in the registry, and the
metrics count it.
"""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from modelyard.errors import ModelyardError, NotFound
from modelyard.monitoring import sinks
from modelyard.monitoring.rules import Rules
from modelyard.registry import alerts
from modelyard.registry.alerts import Delivery
from modelyard.registry.records import now, stamp
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.registry import Registry
    from modelyard.registry.leases import Lease

#: Attempts, and the seconds before the second one and at most before any.
ATTEMPTS, FIRST_SECONDS, MOST_SECONDS = 10, 5.0, 3_600.0
#: Attempts at once.
AT_ONCE = 8


@dataclass
class _Attempt:
    delivery: Delivery
    started: float = field(default_factory=monotonic)
    #: None while it lasts, then what went wrong, "" for nothing.
    error: str | None = None


class Postman:
    """Sends the deliveries of a registry, as long as it holds the lease."""

    def __init__(self, registry: Registry, lease: Lease, log: Log, limit: float = sinks.LIMIT_SECONDS) -> None:
        self._database = registry.database
        self._alerts = registry.alerts
        self._lease = lease
        self._log = log
        self._limit = limit
        self._going: dict[int, _Attempt] = {}

    @property
    def is_busy(self) -> bool:
        """Whether an attempt is under way."""
        return bool(self._going)

    def step(self, rules: Rules) -> None:
        """Write down what ended, and begin what is due. Raises Conflict where another has the lease."""
        ended = [attempt for attempt in self._going.values() if self._has_ended(attempt)]
        if ended:
            with self._database.write() as work:
                self._lease.fence(work)
                for attempt in ended:
                    alerts.settle(work, settled(attempt.delivery, attempt.error or ""))
            for attempt in ended:
                del self._going[attempt.delivery.id]
                self._tell(attempt)
        # However much waits for a sink that hangs, what is for others is looked at.
        for delivery in self._alerts.waiting(without={going.delivery.sink for going in self._going.values()}):
            is_free = all(going.delivery.sink != delivery.sink for going in self._going.values())
            if is_free and len(self._going) < AT_ONCE and is_due(delivery, now()):
                self._begin(delivery, rules)

    def _begin(self, delivery: Delivery, rules: Rules) -> None:
        attempt = self._going[delivery.id] = _Attempt(delivery)
        sink = rules.sinks.get(delivery.sink)
        try:
            if sink is None:
                raise NotFound(f"there is no sink {delivery.sink} any more")
            alert = self._alerts.get(delivery.alert)
        except ModelyardError as error:
            attempt.error = error.message
            return

        def send() -> None:
            try:
                sinks.deliver(sink, alert, delivery, self._log, self._limit)
                attempt.error = ""
            except ModelyardError as error:
                attempt.error = error.message
            except Exception as error:  # a bug of ours must not leave the delivery under way for ever
                attempt.error = f"{type(error).__name__} while sending"

        threading.Thread(target=send, name=f"deliver-{delivery.id}", daemon=True).start()

    def _has_ended(self, attempt: _Attempt) -> bool:
        if attempt.error is None and monotonic() - attempt.started > self._limit + 2.0:
            attempt.error = f"no answer within {self._limit:g} s"
        return attempt.error is not None

    def _tell(self, attempt: _Attempt) -> None:
        delivery = settled(attempt.delivery, attempt.error or "")
        if attempt.error:
            level = "error" if delivery.state == "dead" else "warning"
            self._log.write(
                level, "alert not delivered", delivery=delivery.id, alert=delivery.alert, sink=delivery.sink,
                attempts=delivery.attempts, state=delivery.state, reason=attempt.error,
            )  # fmt: skip


def settled(delivery: Delivery, error: str) -> Delivery:
    """A delivery after an attempt."""
    attempts = delivery.attempts + 1
    if not error:
        return msgspec.structs.replace(delivery, state="sent", attempts=attempts, due=now(), error="")
    if attempts >= ATTEMPTS:
        return msgspec.structs.replace(delivery, state="dead", attempts=attempts, due=now(), error=error)
    wait = min(FIRST_SECONDS * 2 ** (attempts - 1), MOST_SECONDS)
    due = stamp(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=wait))
    return msgspec.structs.replace(delivery, attempts=attempts, due=due, error=error)


def is_due(delivery: Delivery, moment: str) -> bool:
    """Whether it is to be tried; also where the clock was turned back since it was put off."""
    latest = stamp(dt.datetime.fromisoformat(moment) + dt.timedelta(seconds=MOST_SECONDS + 60))
    return delivery.due <= moment or delivery.due > latest
