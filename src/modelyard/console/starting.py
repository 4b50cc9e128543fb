"""Starting a rollout: what is to be said of it, and what it will do."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from modelyard.admin import routes as told
from modelyard.admin.rollouts import start_rollout
from modelyard.console import widgets
from modelyard.console.acts import WHY, Again
from modelyard.console.reading import percent, percents, pins_of, span
from modelyard.console.view import View
from modelyard.errors import ModelyardError
from modelyard.registry.plans import GUARDS
from modelyard.rollouts.plan import TOLERANCES, WATCH_SECONDS

_KINDS = {
    "canary": "Canary: one share, then everything",
    "ramp": "Ramp: one share after the other",
    "shadow": "Shadow: copies, whose answers are dropped",
    "ab": "Experiment: until its outcomes are shown to be better",
    "bandit": "Bandit: an experiment whose shares follow the outcomes",
}
#: Those that are judged by outcomes, each client on one side.
_EXPERIMENTS = ("ab", "bandit")


def card(view: View, said: told.Answering, look: Again) -> None:
    """Where no rollout is under way: how to begin one."""
    others = [number for number in said.versions if number != said.version]
    with widgets.card("Rollout", "Let another version take over by and by, watched by a guard that takes it back"):
        if said.version is None:
            ui.label(f"Promote a version to {said.alias} first: it is what another one is compared with.")
        elif not others:
            ui.label("There is no other version yet.")
            widgets.command(f"modelyard train data.csv --target COLUMN --name {said.model}")
        elif said.route is not None:
            ui.label("The route that somebody made has to be cleared first.")
        else:
            ui.label("None is under way.").classes("y-soft")
            with ui.element("div").classes("y-row"):
                widgets.action("Start a rollout", lambda: _ask(view, said, others, look), icon="rocket_launch")


async def _ask(view: View, said: told.Answering, others: list[int], look: Again) -> None:
    started = await widgets.answered(_Form(view, said, others).asking)
    if started is not None:
        ui.notify(f"rollout {started.rollout.id} has begun", type="positive")
        for note in started.notes:
            ui.notify(note, multi_line=True, timeout=10_000)
        await look()


class _Form:
    """The dialog. It stays open until the rollout has begun, or nobody wants it any more."""

    def __init__(self, view: View, said: told.Answering, others: list[int]) -> None:
        self._view, self._said = view, said
        with widgets.dialog(f"Start a rollout of {said.model}@{said.alias}") as self.asking:
            self.to = ui.select(others, value=others[0], label="Version").classes("w-full")
            self.kind = ui.select(_KINDS, value="canary", label="How").classes("w-full")
            self.share = _input("Share, %", "10").bind_visibility_from(self.kind, "value", lambda k: k != "ramp")
            self.ramp = _input("Shares, %", "1, 5, 25, 50, 100").bind_visibility_from(self.kind, "value", value="ramp")
            self.copies = _input("Copies first, %", "").bind_visibility_from(self.kind, "value", value="ramp")
            self.outcome = _input("The label that is a success (a right prediction, if empty)", "")
            self.outcome.bind_visibility_from(self.kind, "value", lambda kind: kind in _EXPERIMENTS)
            ui.label().classes("y-soft").bind_text_from(self.to, "value", self._consequence)
            self.guards = ui.select(list(GUARDS), value=[], multiple=True, label="Guards (all that can be, if none)")
            self.guards.classes("w-full").props("use-chips")
            self.key = _input("What sticks", "request").props('hint="request, header:NAME or column:NAME"')
            with ui.expansion("More").classes("w-full"):
                self.alpha = _input("Chance of a false rollback, %", "1")
                self.stage = _input("Least time of a stage", "60s").props('hint="like 90s, 10m, 24h or 7d"')
                self.watch = _input("How long labels may roll it back later", "")
                self.watch.props(f'stack-label placeholder="{WATCH_SECONDS / 3600:g}h"')
                self.by = ui.select(
                    {"evidence": "when it is shown to be safe", "schedule": "when the time is over"},
                    value="evidence", label="The next stage begins",
                ).classes("w-full")  # fmt: skip
                ui.label("How much more may be bad, % of the requests, answers or labels").classes("y-soft y-small")
                with ui.element("div").classes("y-form"):
                    self.tolerances = {
                        guard: _input(f"Tolerated, {guard}", "").props(f'stack-label placeholder="{usual * 100:g}"')
                        for guard, usual in TOLERANCES.items()
                    }
                self.pins = ui.textarea("Always there, one a line: header:x-group:testers=canary").classes("w-full")
                self.hold = ui.checkbox("End with a verdict instead of taking over")
            self.force = ui.checkbox("Even if callers may break, because its signature differs")
            self.why = ui.input(WHY).classes("w-full")
            self.wrong = ui.label().classes("y-bad").props('role="alert"')
            with ui.row().classes("w-full justify-end"):
                ui.button("Cancel", on_click=lambda: self.asking.submit(None)).props("flat no-caps")
                ui.button("Start", on_click=self._start).props("unelevated no-caps")

    def _consequence(self, to: Any) -> str:
        return (
            f"Version {self._said.version} answers the rest. The guard takes version {to} back as soon as it is "
            "shown to do harm, and lets it go on once the harm is shown to be tolerable."
        )

    async def _start(self) -> None:
        try:
            given = self._given()
        except ModelyardError as error:
            self.wrong.text = error.message
            return
        made = await self._view.try_(start_rollout, self.wrong, model=self._said.model, alias=self._said.alias, **given)
        if made is not None:
            self.asking.submit(made)

    def _given(self) -> dict[str, Any]:
        """What was said, as the operation takes it. Raises InvalidInput."""
        kind = self.kind.value
        shares: dict[str, Any] = {}
        if kind == "ramp":
            shares["ramp"] = percents("shares", self.ramp.value)
            if self.copies.value.strip():
                shares["shadow"] = percent("copies", self.copies.value)
        elif kind == "bandit":
            shares |= {"canary": percent("share", self.share.value), "bandit": True}
        else:
            shares[kind] = percent("share", self.share.value)
        if self.watch.value.strip():
            shares["watch_seconds"] = span("how long labels may roll it back", self.watch.value)
        tolerances = {
            guard: percent(f"tolerance of {guard}", each.value)
            for guard, each in self.tolerances.items() if each.value.strip()
        }  # fmt: skip
        return {
            **shares, "to": self.to.value, "guards": self.guards.value or None, "by": self.by.value,
            "alpha": percent("chance", self.alpha.value), "tolerances": tolerances or None,
            "stage_seconds": span("least time of a stage", self.stage.value), "key": self.key.value.strip(),
            "pins": pins_of(self.pins.value or ""), "hold": self.hold.value, "force_signature": self.force.value,
            "outcome": self.outcome.value.strip() if kind in _EXPERIMENTS else "", "why": self.why.value,
        }  # fmt: skip


def _input(label: str, value: str) -> ui.input:
    return ui.input(label, value=value).classes("w-full")
