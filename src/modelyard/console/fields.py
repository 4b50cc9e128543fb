"""Inputs of a form, one for each field of a signature, and the row that they say."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from nicegui import ui
from nicegui.elements.mixins.value_element import ValueElement

from modelyard.charts import number
from modelyard.errors import InvalidInput
from modelyard.schema import Field

_PLACE = re.compile(r"(\[\d+\]\.)?(?P<name>.*?)(\[\d+\])*")


class Inputs:
    """See the module. What is typed is sent as it is where it is no value of the field, so that the check of a server
    says what is wrong with it.
    """

    def __init__(self, fields: tuple[Field, ...], example: Mapping[str, Any]) -> None:
        self._fields = fields
        self._example = example
        self._made: dict[str, ValueElement[Any]] = {}

    def build(self) -> None:
        with ui.element("div").classes("y-fields"):
            for field in self._fields:
                self._made[field.name] = _input(field)
        self.fill()

    def fill(self) -> None:
        """Show the example."""
        for field in self._fields:
            self._made[field.name].value = _shown(self._example.get(field.name), field)
        self.clear_faults()

    def empty(self) -> None:
        """Show nothing."""
        for each in self._made.values():
            each.value = None if isinstance(each, ui.select) else ""
        self.clear_faults()

    def on_enter(self, act: Callable[[], Awaitable[None]]) -> None:
        """Act where somebody presses Enter in a line."""
        for each in self._made.values():
            if isinstance(each, ui.input):
                each.on("keydown.enter", act)

    def row(self) -> dict[str, Any]:
        """What the inputs say, by field."""
        return {field.name: _read(self._made[field.name].value, field) for field in self._fields}

    def clear_faults(self) -> None:
        for each in self._made.values():
            each.props(remove="error error-message")

    def show_faults(self, error: InvalidInput) -> bool:
        """Show each fault at its field; whether all of them have one."""
        is_all = bool(error.problems)
        for problem in error.problems:
            found = _PLACE.fullmatch(problem.path)
            made = self._made.get(problem.path) or self._made.get(found["name"] if found else "")
            if made is None:
                is_all = False
                continue
            made.props["error"] = True
            made.props["error-message"] = f"expected {problem.expected}, got {problem.got}"
        return is_all


def _input(field: Field) -> ValueElement[Any]:
    hint = _hint(field)
    made: ValueElement[Any]
    if field.shape:
        made = ui.textarea(field.name).props("outlined dense autogrow")
    elif field.dtype == "bool":
        made = ui.select({True: "true", False: "false"}, label=field.name, clearable=field.nullable)
        made.props("outlined dense")
    elif field.categories:
        made = ui.select(
            list(field.categories), label=field.name, with_input=True, new_value_mode="add-unique",
            clearable=field.nullable,
        ).props("outlined dense")  # fmt: skip
    else:
        made = ui.input(field.name).props("outlined dense")
        if field.dtype == "datetime":
            made.props('type="datetime-local" step="1" stack-label')
        elif field.is_numeric:
            made.props('inputmode="decimal"')
    made.props["hint"] = hint
    made.props("hide-bottom-space")  # what is said below a field takes the room that it needs
    return made


def _hint(field: Field) -> str:
    told = {"string": "a text", "bool": "", "datetime": "UTC"}.get(field.dtype)
    if told is None:
        told = "a number" if field.dtype.startswith("float") else "a whole number"
    if field.shape:
        told = field.describe()
    elif field.minimum is not None and field.maximum is not None:
        ends = _shown(field.minimum, field), _shown(field.maximum, field)
        told += f", {ends[0]} to {ends[1]} in the reference"
    elif field.categories:
        told = f"one of {len(field.categories)}, or another text"
    return ", ".join(part for part in (told, "may be empty" if field.nullable else "") if part)


def _shown(value: Any, field: Field) -> Any:
    """A value as the field's input shows it."""
    if value is None:
        return None if field.dtype == "bool" or field.categories else ""
    if field.shape:
        return json.dumps(value)
    if field.dtype == "datetime":
        return value[:19] if isinstance(value, str) else _moment(value)
    if field.dtype == "bool" or field.dtype == "string":
        return value
    return number(value).replace(",", "") if isinstance(value, float) and len(repr(value)) > 12 else _number(value)


def _number(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else repr(value)


def _moment(value: float) -> str:
    import datetime as dt

    return dt.datetime.fromtimestamp(value, dt.UTC).strftime("%Y-%m-%d")


def _read(value: Any, field: Field) -> Any:
    """What was typed as JSON has it: null for nothing, and as a text what is no value of the field."""
    if value is None or value == "":
        return None
    if field.shape or (field.is_numeric and field.dtype != "bool"):
        try:
            read = msgspec.json.decode(value)  # which knows no NaN, as JSON does not
        except msgspec.DecodeError:
            return value
        return read if field.shape or isinstance(read, (int, float)) else value
    return value
