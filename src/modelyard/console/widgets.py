"""What pages are made of: cards, figures, marks, moments, dialogs."""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

from nicegui import ui

from modelyard.charts import number
from modelyard.errors import ModelyardError
from modelyard.training.metrics import TITLES

#: Classes of severities and states.
TONES = {
    "ok": "y-good", "promoted": "y-good", "running": "y-info", "watching": "y-info", "done": "y-good",
    "info": "y-info", "warning": "y-warn", "paused": "y-warn", "silenced": "y-warn", "error": "y-bad",
    "critical": "y-bad", "rolled back": "y-bad", "aborted": "y-bad", "failed": "y-bad", "open": "y-bad",
    "lost": "y-warn",
}  # fmt: skip


class Rebuild(Exception):
    """What is shown cannot be changed in place to show newer data."""


def heading(text: str, level: int = 1) -> ui.element:
    """A heading; of a page (1) or a card (2)."""
    with ui.element(f"h{level}") as made:
        ui.html(escaped(text), sanitize=False).props("tag=span")
    return made


#: The pages about one model: below its own address, and what they are called.
SECTIONS = (("", "Versions"), ("/endpoint", "Endpoint"), ("/monitoring", "Monitoring"), ("/try", "Try it"))


def sections(model: str, here: str) -> None:
    """The heading of a page about a model, and the way to the others. ``here``: which of ``SECTIONS`` it is."""
    heading(model)
    with ui.element("nav").classes("y-tabs").props(f'aria-label="About {escaped(model)}"'):
        for path, name in SECTIONS:
            ui.link(name, f"/models/{model}{path}").props('aria-current="page"' if path == here else "")


@contextmanager
def card(title: str = "", about: str = "") -> Any:
    """A card with a heading and a line about what it shows."""
    with ui.element("section").classes("y-card") as made:
        if title:
            with ui.element("div"):
                heading(title, 2)
                if about:
                    ui.label(about).classes("y-soft y-small")
        yield made


class Tile(NamedTuple):
    """One figure as it is shown, so that a newer one can take its place."""

    value: ui.label
    about: ui.label

    def tell(self, value: str, about: str = "") -> None:
        """Show another figure."""
        self.value.text = value
        self.about.text = about


def tile(name: str, value: str, about: str = "", tone: str = "") -> Tile:
    """One figure, large, with its name."""
    with ui.element("div").classes("y-card y-tile").style("gap: 2px"):
        ui.label(name).classes("y-soft y-small")
        with ui.element("b").classes(tone):
            figure = ui.label(value)
        return Tile(figure, ui.label(about).classes("y-soft y-small"))


def mark(text: str, tone: str = "") -> None:
    """A word in a frame: a state, a severity."""
    ui.label(text).classes(f"y-mark {tone or TONES.get(text, '')}")


def moment(text: str | None) -> None:
    """A moment of the registry (ISO 8601, UTC), shown in the viewer's zone."""
    ui.element("time").props(f'data-utc="{text or ""}"')


class Moment(str):
    """A moment among ``pairs``."""


def pairs(rows: Sequence[tuple[str, Any]]) -> None:
    """Names and what they have; rows that have nothing are left out. A function builds its own."""
    with ui.element("dl").classes("y-pairs"):
        for name, value in rows:
            if value:
                with ui.element("dt").classes("y-soft"):
                    ui.label(name)
                with ui.element("dd"):
                    if callable(value):
                        value()
                    elif isinstance(value, Moment):
                        moment(value)
                    else:
                        ui.label(str(value))


def loading() -> None:
    """While something is asked for."""
    with ui.element("div").classes("y-card").props('aria-busy="true"'):
        ui.skeleton("text", width="30%")
        ui.skeleton("rect", height="80px")


def empty(text: str, hint: str = "") -> None:
    """Where there is nothing yet: what it would be, and the command that makes some."""
    with ui.element("div").classes("y-card y-empty"):
        ui.icon("inbox", size="32px")
        ui.label(text)
        if hint:
            command(hint)


def command(text: str) -> None:
    """A command that can be copied."""
    with ui.element("div").classes("y-row").style("width: auto; justify-content: center"):
        with ui.element("pre"):
            ui.label(text)
        ui.button(icon="content_copy", on_click=lambda: ui.clipboard.write(text)).props(
            'flat round dense size="sm" aria-label="Copy the command"'
        )


def copied(text: str, label: str) -> None:
    """A text of several lines that can be copied."""
    with ui.element("div").classes("y-row").style("align-items: flex-start; flex-wrap: nowrap"):
        with ui.element("pre").classes("y-grow"):
            ui.label(text)
        ui.button(icon="content_copy", on_click=lambda: ui.clipboard.write(text)).props(
            f'flat round dense size="sm" aria-label="{escaped(label)}"'
        )


def failure(error: Exception, *, again: bool = True) -> None:
    """What went wrong, and what to do. ``again``: whether the page tries again by itself."""
    message, hint = "An error of Modelyard: its log tells more.", ""
    if isinstance(error, ModelyardError):
        message, hint = error.message, error.hint
    with ui.element("div").classes("y-card").props('role="alert"'):
        with ui.element("div").classes("y-row y-bad"):
            ui.icon("error_outline", size="24px")
            ui.label(message)
        if hint:
            with ui.element("pre"):
                ui.label(hint)
        if again:
            ui.label("This page tries again by itself.").classes("y-soft y-small")


def tell(error: ModelyardError) -> None:
    """Say why something was not done."""
    text = f"{error.message} – {error.hint}" if error.hint else error.message
    ui.notify(text, type="negative", multi_line=True, timeout=10_000)


@contextmanager
def dialog(title: str) -> Any:
    """A dialog; ``answered`` opens it and waits."""
    with ui.dialog().props(f'aria-label="{escaped(title)}"') as made, ui.card().classes("y-dialog"):
        ui.label(title).props('role="heading" aria-level="2"').style("font-size: 18px; font-weight: 650")
        yield made


async def confirm(question: str, consequence: str, verb: str, *, asks_why: bool = True) -> str | None:
    """Ask before something is done: the reason that was given ("" for none), or None where it is not to be done."""
    with dialog(question) as asking:
        ui.label(consequence)
        why = ui.input("Why (kept in the history)").classes("w-full").props("autofocus") if asks_why else None
        with ui.row().classes("w-full justify-end"):
            ui.button("Cancel", on_click=lambda: asking.submit(None)).props("flat no-caps")
            ui.button(verb, on_click=lambda: asking.submit(why.value if why is not None else "")).props(
                "unelevated no-caps"
            )
    answer: str | None = await answered(asking)
    return answer


async def answered(asking: ui.dialog) -> Any:
    """What is submitted in a dialog, which is gone then; None where it is left, or where whoever looked has left."""
    answer = await asking
    if not asking.is_deleted:
        asking.delete()
    return answer


def action(label: str, on_click: Callable[[], Awaitable[Any]], *, icon: str = "", is_grave: bool = False) -> ui.button:
    """A button that does something."""
    colour = "negative" if is_grave else "primary"
    return ui.button(label, icon=icon or None, on_click=apart(on_click)).props(f'outline no-caps color="{colour}"')


def apart(handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[None]]:
    """A handler whose dialogs stay while what it was called from is shown anew."""

    @wraps(handler)  # the framework gives the event to handlers whose signature wants one
    async def handle(*given: Any) -> None:
        with ui.context.client.content:
            await handler(*given)

    return handle


def download(name: str, header: Sequence[str], rows: Callable[[], list[Sequence[Any]]]) -> None:
    def save() -> None:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(header)
        writer.writerows([["" if cell is None else cell for cell in row] for row in rows()])
        ui.download.content(text.getvalue().encode(), f"{name}.csv", "text/csv")

    ui.button("CSV", icon="download", on_click=save).props(
        f'flat dense no-caps size="sm" aria-label="Download {escaped(name)} as CSV"'
    ).style("color: var(--soft)")


def seconds(value: float | None) -> str:
    """A duration as a person would write it: ``1.2 ms``, in three digits; a dash where there is none."""
    if value is None:
        return "–"
    told, unit = (value * 1e3, "ms") if value < 1 else (value, "s")
    return f"{number(float(f'{told:.3g}') if told < 1e3 else told)} {unit}"


def metric(name: str) -> str:
    """What a metric is called: ``ROC AUC`` for ``roc_auc``."""
    return TITLES.get(name, name.replace("_", " "))


def share(part: int, whole: int) -> str:
    """A part of a whole in per cent; a dash of nothing."""
    return f"{part / whole:.3%}".replace(".000%", "%") if whole else "–"


def escaped(text: str) -> str:
    import html

    return html.escape(text, quote=True)
