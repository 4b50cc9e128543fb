"""Options of commands that are settings: their names, their help and how they parse come from the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from modelyard import settings
from modelyard.errors import InvalidInput


class _Value(click.ParamType[Any]):
    """A text that a setting's own row parses."""

    def __init__(self, setting: settings.Setting) -> None:
        self.name = "value"
        self._setting = setting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._setting.parse(value)
        except (ValueError, OverflowError):
            raise InvalidInput.at(
                f"--{self._setting.name.replace('_', '-')}", self._setting.expects, repr(value)
            ) from None


def of_settings(*names: str, **named: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options for settings, in this order; those ``named`` have another name than their settings.

    One that is not given is None, so that the environment may speak.
    """
    rows = {setting.name: setting for setting in settings.TABLE}
    wanted = [*((name, name) for name in names), *((setting, name) for name, setting in named.items())]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for setting, name in reversed(wanted):
            function = _option(rows[setting], name)(function)
        return function

    return decorate


def _option(setting: settings.Setting, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    flag = f"--{name.replace('_', '-')}"
    purpose = setting.purpose[0].upper() + setting.purpose[1:] + "."
    note = f"[{setting.variable}{f', else {setting.default}' if setting.default else ''}]"
    if setting.is_switch:
        return click.option(f"{flag}/--no-{flag[2:]}", default=None, help=f"{purpose}  {note}")
    return click.option(flag, type=_Value(setting), default=None, metavar="VALUE", help=f"{purpose}  {note}")
