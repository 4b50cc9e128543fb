"""Parts of a page, each of which is touched only where what it shows has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from nicegui import ui

from modelyard.admin.api import encode
from modelyard.console import widgets

#: What is shown of data: builds it into the present container; may return what shows newer data in place.
Build = Callable[[Any], "Callable[[Any], None] | None"]


class Piece:
    """A part of a page, which is touched only where what it shows has changed. ``build`` is as that of ``live``."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._container = ui.element("div").style("display: contents")
        self._update: Callable[[Any], None] | None = None
        self._shown = b""

    def show(self, said: Any) -> None:
        """Show this from now on."""
        key = key_of(said)
        if key != self._shown:
            self._update = show_in(self._container, self._build, self._update, said)
            self._shown = key


def together(*parts: tuple[Build, Callable[[Any], Any]]) -> Build:
    """One build of several, each with what it shows of the data."""

    def build(said: Any) -> Callable[[Any], None]:
        pieces = [(Piece(each), pick) for each, pick in parts]

        def update(said: Any) -> None:
            for piece, pick in pieces:
                piece.show(pick(said))

        update(said)
        return update

    return build


def show_in(
    container: ui.element, build: Build, update: Callable[[Any], None] | None, said: Any
) -> Callable[[Any], None] | None:
    """Show newer data in a container, in place where that can be done; returns what shows still newer data so."""
    if update is not None:
        try:
            with container:
                update(said)
            return update
        except widgets.Rebuild:
            pass
    container.clear()
    with container:
        return build(said)


def key_of(said: Any) -> bytes:
    """What tells data apart: all but the moment at which they were asked for."""
    plain = msgspec.to_builtins(said, str_keys=True, enc_hook=str)
    if isinstance(plain, dict):
        plain = {name: value for name, value in plain.items() if name not in ("made", "until")}
    return encode(plain)
