"""A page as one person sees it: its frame, what it loads, what it does, and what is shown when that fails.

Whatever reads or writes the registry does so in a thread, under the name of whoever looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from importlib.resources import files
from typing import Any, ParamSpec, TypeVar

from nicegui import ui

from modelyard.console import widgets
from modelyard.console.door import Door, session_in
from modelyard.console.pieces import Build, key_of, show_in
from modelyard.errors import ModelyardError, NotFound, Refused, Unauthenticated
from modelyard.registry import Registry
from modelyard.registry.records import acting
from modelyard.telemetry import Log

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Seconds between two looks of a page at what may have changed, and at how many alerts are open.
LOOK_SECONDS, BADGE_SECONDS = 3.0, 15.0

#: What the navigation shows: address, name, symbol.
PAGES = (
    ("/", "Overview", "dashboard"),
    ("/predictions", "Predictions", "manage_search"),
    ("/alerts", "Alerts", "notifications"),
    ("/jobs", "Batch jobs", "table_rows"),
    ("/settings", "Settings and keys", "settings"),
)


class House:
    """What all pages share: one registry, one door."""

    def __init__(self, registry: Registry, door: Door, log: Log) -> None:
        self.registry = registry
        self.door = door
        self.log = log


_houses: list[House] = []


def settle(house: House) -> None:
    """Let the pages show this registry from now on: there is one console in a process."""
    _houses[:] = [house]


def registry() -> Registry:
    """The registry of the console."""
    return _houses[0].registry


class View:
    """One visit of a page."""

    def __init__(self) -> None:
        self.house = _houses[0]
        request = ui.context.client.request
        self._session = session_in(request.headers)
        self.visitor = self.house.door.of(self._session)
        self.root: str = request.scope.get("root_path", "")
        #: Looks at once at what ``live`` shows: a page sets it to what its actions change.
        self.look: Callable[[], Awaitable[None]] = _nothing

    async def shown(self) -> None:
        """Let the page be seen as far as it is, before what takes its time."""
        with contextlib.suppress(TimeoutError):  # it was asked for by something that shows nothing
            await ui.context.client.connected(timeout=10.0)

    async def load(self, function: Callable[..., _T], **arguments: Any) -> _T:
        """What a function says of the registry. Raises what it raises, Unauthenticated where the session is over."""
        return await asyncio.to_thread(self._call, function, arguments)

    def _call(self, function: Callable[..., _T], arguments: dict[str, Any]) -> _T:
        self.visitor = self.house.door.of(self._session)
        with acting(self.visitor.name):
            return function(self.house.registry, **arguments)

    async def act(self, function: Callable[..., Any], *, done: str, **arguments: Any) -> bool:
        """Do something, and say that it is done or why not; whether it was done."""
        try:
            if not self.visitor.may_act:
                raise Refused("this key allows to look only", hint="log in with a key whose scope is admin")
            await self.load(function, **arguments)
        except ModelyardError as error:
            widgets.tell(error)
            return False
        except Exception as error:
            self.house.log.write("error", "an action failed", error=error)
            ui.notify("An error of Modelyard: its log tells more.", type="negative")
            return False
        ui.notify(done, type="positive")
        return True

    async def try_(self, function: Callable[..., _T], fault: ui.label, **arguments: Any) -> _T | None:
        """Do what a dialog asks for; where that cannot be done ``fault`` says why, and the dialog stays."""
        try:
            if not self.visitor.may_act:
                raise Refused("this key allows to look only", hint="log in with a key whose scope is admin")
            return await self.load(function, **arguments)
        except ModelyardError as error:
            fault.text = f"{error.message} – {error.hint}" if error.hint else error.message
            return None

    async def live(
        self, function: Callable[..., _T], build: Build, *, every: float = LOOK_SECONDS, **arguments: Any
    ) -> Callable[[], Awaitable[None]]:
        """Show what ``function`` says, and show it anew whenever it says something else. Returns what looks at once.

        ``build`` is given what it says, in an empty container. What it returns, if anything, is given newer data
        instead, so that a chart moves rather than blinks; it may raise widgets.Rebuild where that is not enough.
        """
        container = ui.element("div").classes("y-stack").style("display: contents")
        with container:
            widgets.loading()
        shown: bytes = b""
        update: Callable[[Any], None] | None = None
        is_busy = False

        async def look() -> None:
            nonlocal shown, update, is_busy
            if is_busy or container.is_deleted:
                return
            is_busy = True
            try:
                said: Any = await self.load(function, **arguments)
                key = key_of(said)
                if key != shown and not container.is_deleted:
                    update = show_in(container, build, update, said)
                    shown = key
            except Unauthenticated:
                ui.navigate.to(f"{self.root}/login")
            except Exception as error:
                told = _told(error)
                if told != shown and not container.is_deleted:
                    if not isinstance(error, ModelyardError):
                        self.house.log.write("error", "a page failed", error=error)
                        self.house.log.flush()
                    container.clear()
                    with container:
                        widgets.failure(error)
                    shown, update = told, None
            finally:
                is_busy = False

        await look()
        ui.timer(every, look)
        return look


async def _nothing() -> None:
    """A page that shows nothing that changes."""


def _told(error: Exception) -> bytes:
    return f"{type(error).__name__} {error}".encode()


def page(path: str, title: str) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Awaitable[None]]]:
    """A page at ``path`` within the frame. The function is given the view, and what stands in braces in the path."""

    def decorate(build: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        @wraps(build)
        async def framed(*arguments: Any, **given: Any) -> None:
            view = View()
            name = title.format_map(given)
            ui.page_title(f"{name} – Modelyard")
            with frame(view, path):
                try:
                    if "{model}" in path:
                        await view.load(_check_model, model=given["model"])
                except NotFound as error:
                    widgets.heading(name)
                    widgets.failure(error, again=False)
                    return
                except ModelyardError:  # whatever the page shows tells what is wrong, and tries again
                    pass
                try:
                    await build(view, **given)
                except ModelyardError as error:
                    widgets.failure(error, again=False)

        # The framework reads the signature for what stands in the path: all but the view.
        signature = inspect.signature(build)
        framed.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[each for each in signature.parameters.values() if each.name != "view"]
        )
        return ui.page(path, response_timeout=30)(framed)

    return decorate


def _check_model(registry: Registry, model: str) -> None:
    """Raises NotFound for a model of which there is neither a version nor traffic."""
    known = set(registry.models())
    if model not in known:
        known |= {name for name, _ in registry.windows.models()}
        if model not in known:
            raise NotFound.among("model", model, known)


def frame(view: View, path: str) -> ui.element:
    """Header, navigation, and the place for the page itself."""
    root = files("modelyard.console")
    ui.add_css(root.joinpath("style.css").read_text(encoding="utf-8"))
    ui.add_head_html(f"<script>{root.joinpath('times.js').read_text(encoding='utf-8')}</script>")
    ui.colors(primary="#2563c9", positive="#15803d", negative="#b42318", warning="#92590a")
    dark = ui.dark_mode(None)
    with ui.header().props("height-hint=52").classes("items-center no-wrap").style("padding: 6px 12px; gap: 8px"):
        menu = ui.button(icon="menu").props('flat round dense aria-label="Navigation"').style("color: inherit")
        ui.link("Modelyard", "/").style("font-weight: 700; font-size: 17px; color: inherit; text-decoration: none")
        ui.element("div").classes("y-grow")
        if view.visitor.name:
            role = "" if view.visitor.may_act else ", looks only"
            ui.label(f"{view.visitor.name}{role}").classes("y-soft y-small")
            ui.link("Log out", "/logout").classes("y-link y-small")
        ui.button(icon="contrast", on_click=lambda: _turn(dark)).props(
            'flat round dense aria-label="Light or dark"'
        ).style("color: inherit")
    with ui.left_drawer(bordered=True).props("width=220 breakpoint=900").style("padding: 12px 0") as drawer:
        menu.on_click(drawer.toggle)
        with ui.element("nav").classes("y-nav").props('aria-label="Pages"'):
            for address, name, symbol in PAGES:
                here = path == address
                with ui.link(target=address).props('aria-current="page"' if here else ""):
                    ui.icon(symbol, size="20px")
                    ui.label(name)
                    if address == "/alerts":
                        _badge(view)
    main = ui.element("main").classes("y-page")
    ui.skip_link("Skip to the page", target=main)
    return main


def _badge(view: View) -> None:
    """How many alerts are open."""
    told = ui.label().classes("y-badge").props('title="alerts that are open"')
    told.visible = False

    async def look() -> None:
        with contextlib.suppress(ModelyardError):  # the page itself tells what is wrong
            count = await view.load(lambda registry: registry.alerts.are_open())
            told.text, told.visible = str(count), count > 0

    ui.timer(BADGE_SECONDS, look)


def _turn(dark: ui.dark_mode) -> None:
    """From what the system says to dark, light, and back."""
    dark.value = {None: True, True: False, False: None}[dark.value]
