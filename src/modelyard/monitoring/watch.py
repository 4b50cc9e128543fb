"""One turn of the loop: windows that are new become findings, alerts and deliveries.

For each version the position in the windows, the detectors' states and what follows from them are one transaction,
fenced by the lease: whoever is killed in the middle of it has done nothing, whoever takes over goes on where the other
was, and nothing is counted twice. What has to be computed is computed before, and thrown away where another was first.
"""

from __future__ import annotations

import datetime as dt
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from modelyard.errors import Conflict, ModelyardError, NotFound, RemoteFailed
from modelyard.monitoring import alerting, budget, rules, turn
from modelyard.monitoring.outcomes import apply
from modelyard.monitoring.postman import Postman
from modelyard.monitoring.rules import Rules
from modelyard.monitoring.turn import Hour, Outcome
from modelyard.profile import Profile
from modelyard.registry import findings, states
from modelyard.registry.database import Work
from modelyard.registry.findings import Finding
from modelyard.registry.packing import pack
from modelyard.registry.records import now, stamp
from modelyard.registry.windows import Window
from modelyard.telemetry import Log

if TYPE_CHECKING:
    from modelyard.registry import Registry
    from modelyard.registry.leases import Lease

#: How long to wait before the next turn, where there was nothing to do and where there is more.
IDLE_SECONDS, BUSY_SECONDS = 1.0, 0.05
#: Windows of a version that one transaction takes in, and the seconds that one turn works.
_WINDOWS, _SECONDS = 50, 1.0
#: How often the loop says that it is alive, and looks for what is over by itself.
_TELL_SECONDS, _TIDY_SECONDS = 5.0, 60.0
#: A version without traffic for so long, while another of its model has some, has no open findings any more.
_GONE = dt.timedelta(hours=24)
#: How long to wait before what could not be done is tried again.
_AGAIN_SECONDS = 60.0


class Alive(msgspec.Struct, kw_only=True):
    """What the loop says of itself, in a row that servers read."""

    holder: str
    term: int
    moment: str
    started: str
    turns: int = 0
    windows: int = 0
    behind: int = 0
    failures: int = 0


class Monitor:
    """Watches all models of a registry, as long as it holds the lease."""

    def __init__(self, registry: Registry, lease: Lease, log: Log | None = None) -> None:
        self._registry = registry
        self._database = registry.database
        self._lease = lease
        self._log = log or Log()
        self.postman = Postman(registry, lease, self._log)
        #: The newest window that was looked for, and versions of which there is more to take in.
        self._seen = 0
        self._behind: dict[tuple[str, str], None] = {}
        self._references: dict[tuple[str, str], Profile | None] = {}
        #: Versions whose reference could not be had, or whose windows could not be taken in, and when.
        self._refused: dict[tuple[str, str], float] = {}
        self._broken: dict[tuple[str, str], float] = {}
        self._alive = Alive(holder=lease.holder, term=0, moment="", started=now())
        self._told = self._tidied = float("-inf")
        #: How long to wait before the next step.
        self.pause = IDLE_SECONDS

    def step(self) -> int:
        """Take in what is new; returns how many windows that were. Raises Conflict where another has the lease,
        RemoteFailed where the registry does not answer: then nothing was decided.
        """
        general, own = rules.load_all(self._database)
        newest = self._registry.windows.newest()
        if newest > self._seen:
            self._behind |= dict.fromkeys(self._registry.windows.following(self._seen))
            self._seen = newest
        begun, taken = monotonic(), 0
        for model, version in list(self._behind):
            count = self._try(model, version, own.get(model, general))
            taken += count or 0
            if count is not None and count < _WINDOWS:
                self._behind.pop((model, version), None)
            if monotonic() - begun > _SECONDS:
                break
        self._alive.turns += 1
        self._alive.windows += taken
        self._alive.behind = len(self._behind)
        if monotonic() - self._told >= _TELL_SECONDS:
            self._tell(general)
        self.postman.step(general)
        is_behind = self._behind.keys() - self._broken.keys()
        self.pause = BUSY_SECONDS if is_behind or self.postman.is_busy else IDLE_SECONDS
        return taken

    def _try(self, model: str, version: str, ruled: Rules) -> int | None:
        """Take in windows of a version; None where that fails for a reason that nobody foresaw, which holds up no other
        version.
        """
        key = (model, version)
        if monotonic() - self._broken.get(key, float("-inf")) < _AGAIN_SECONDS:
            return None
        try:
            count = self._take(model, version, ruled)
            self._broken.pop(key, None)
            return count
        except (Conflict, RemoteFailed):
            raise
        except Exception as error:
            self._broken[key] = monotonic()
            self._alive.failures += 1
            self._log.write("error", "windows could not be taken in", model=model, version=version, error=error)
            return None

    def _take(self, model: str, version: str, ruled: Rules) -> int:
        text = states.get(self._database, "monitor", model, version)
        state = turn.unpack_state(text)
        windows = self._registry.windows.after(model, version, state.position, _WINDOWS)
        if not windows:
            return 0
        reference = self._reference(model, version)

        def read_hour(number: int) -> Hour:
            return turn.unpack_hour(states.get(self._database, _hour(number), model, version))

        outcomes, hours = turn.take(state, windows, reference, ruled, read_hour)
        with self._database.write() as work:
            self._lease.fence(work)
            if states.read(work, "monitor", model, version) != text:
                raise Conflict(f"the windows of {model}:{version} were taken in by another")
            states.put(work, "monitor", pack(state), model, version)
            for number, hour in hours.items():
                states.put(work, _hour(number), pack(hour), model, version)
            opened, closed = apply(work, model, version, outcomes)
            more, over = self._spend(work, model, version, windows, ruled)
            self._follow_up(work, model, [*opened, *more], bool(closed or over), ruled)
        return len(windows)

    def _spend(
        self, work: Work, model: str, version: str, windows: list[Window], ruled: Rules
    ) -> tuple[list[Finding], list[Finding]]:
        """Count requests on the budgets of the model."""
        text = states.read(work, "budget", model)
        spent = msgspec.json.decode(text, type=budget.Spent) if text else budget.Spent()
        budget.add(spent, windows, ruled.budget, now())
        changes = budget.judge(spent, ruled.budget)
        states.put(work, "budget", msgspec.json.encode(spent).decode(), model)
        return apply(work, model, "", [Outcome("", change, change.false_alarms) for change in changes])

    def _follow_up(self, work: Work, model: str, opened: list[Finding], is_over: bool, ruled: Rules) -> None:
        for alert in alerting.raise_alerts(work, opened, ruled):
            self._log.write("info", "alert made", alert=alert.id, rule=alert.rule, title=alert.title)
        if is_over:
            alerting.close_alerts(work, model, ruled)

    def _reference(self, model: str, version: str) -> Profile | None:
        """The reference profile of a version; None where there is none, or it cannot be had now."""
        key = (model, version)
        if key in self._references:
            return self._references[key]
        if monotonic() - self._refused.get(key, float("-inf")) < _AGAIN_SECONDS:
            return None
        try:
            found = self._registry.resolve(f"{model}:{version}") if version else None
            profile = self._registry.fetch(found).profile() if found is not None else None
        except NotFound:
            profile = None
        except (ModelyardError, OSError) as error:
            self._refused[key] = monotonic()
            self._log.write("warning", "no reference profile", model=model, version=version, error=error)
            return None
        if len(self._references) >= 64:
            self._references.clear()
        self._references[key] = profile if profile is not None and profile.inputs else None
        return self._references[key]

    # -- now and then -------------------------------------------------------------------------------------------

    def _tell(self, general: Rules) -> None:
        """Say that the loop is alive; tell of what was silenced and is not any more; close what nobody will."""
        self._told = monotonic()
        self._alive.term, self._alive.moment = self._lease.term, now()
        is_time = monotonic() - self._tidied >= _TIDY_SECONDS
        with self._database.write() as work:
            self._lease.fence(work)
            alerting.wake_alerts(work, general)
            states.put(work, "loop", msgspec.json.encode(self._alive).decode())
            if is_time:
                self._tidy(work, general)
        if is_time:
            self._tidied = monotonic()

    def _tidy(self, work: Work, general: Rules) -> None:
        rows = work.rows("SELECT model, version, max(closed) AS closed FROM windows GROUP BY model, version")
        known = {(row["model"], row["version"]) for row in rows}
        for row in work.rows("SELECT name, model, version FROM states"):
            is_ours = row["name"] == "monitor" or row["name"].startswith("hour-")
            if is_ours and (row["model"], row["version"]) not in known:
                states.drop(work, row["name"], row["model"], row["version"])
        newest: dict[str, str] = {}
        for row in rows:
            # A clock that was ahead once must not make everything after it look old.
            newest[row["model"]] = max(newest.get(row["model"], ""), min(row["closed"], now()))
        for row in rows:
            model, version = row["model"], row["version"]
            if row["closed"] >= stamp(dt.datetime.fromisoformat(newest[model]) - _GONE):
                continue
            over = findings.opened(work, model, version)
            for finding in over:
                why = "this version has had no traffic for a day, and another one has"
                findings.save(work, msgspec.structs.replace(finding, closed=now(), why=why))
            if over:
                alerting.close_alerts(work, model, general)


def _hour(number: int) -> str:
    return f"hour-{number:02}"
