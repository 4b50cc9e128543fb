"""Tables of rows that can be sorted, paged, and taken along as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from nicegui import ui

from modelyard.console.widgets import TONES, Rebuild, download


class Column(NamedTuple):
    """One column of a table. ``kind``: text, number, moment, mark, link (the row's ``<name>_href``), title (a link of
    many words), cell (a text that is not broken), act: a button that is called what the row says, and sends the row as
    the event ``act``; or drawn: then whoever makes the table adds the slot that draws it.
    """

    name: str
    label: str
    kind: str = "text"


_CELLS = {
    "number": '<q-td :props="props">{{ typeof props.value === "number" ? props.value.toLocaleString() : props.value }}'
    "</q-td>",
    "moment": '<q-td :props="props"><time :data-utc="props.value"></time></q-td>',
    "mark": '<q-td :props="props"><span v-if="props.value" '
    ":class=\"'y-mark ' + (props.row[props.col.name + '_tone'] || '')\">{{ props.value }}</span></q-td>",
    "act": '<q-td :props="props"><q-btn flat dense round icon="more_vert" :aria-label="props.value" '
    "@click=\"() => $parent.$emit('act', props.row)\" /></q-td>",
    "link": '<q-td :props="props"><a v-if="props.row[props.col.name + \'_href\']" '
    ":href=\"props.row[props.col.name + '_href']\">{{ props.value }}</a><span v-else>{{ props.value }}</span></q-td>",
}
_CELLS["title"] = _CELLS["link"]


def table(columns: Sequence[Column], rows: list[dict[str, Any]], *, key: str, name: str, page: int = 25) -> ui.table:
    """Rows that can be sorted, paged, and taken along as CSV. ``key``: the column that tells rows apart; ``name``: of
    the file. Links are relative to the console's root.
    """
    columns = _dressed(columns, rows)
    heads = [
        {
            "name": each.name, "label": each.label, "field": each.name, "sortable": each.kind != "act",
            "align": "right" if each.kind == "number" else "left",
            "classes": {"text": "y-text", "title": "y-text y-title"}.get(each.kind, "y-cell"),
            "headerClasses": "y-head",
        }
        for each in columns
    ]  # fmt: skip
    made = ui.table(columns=heads, rows=rows, row_key=key, pagination=page if len(rows) > page else None)
    made.props("flat dense wrap-cells").classes("w-full")
    for column in columns:
        if column.kind in _CELLS:
            made.add_slot(f"body-cell-{column.name}", _CELLS[column.kind])
    with ui.element("div").classes("y-row").style("justify-content: flex-end"):
        told = [c for c in columns if c.kind not in ("act", "drawn")]
        download(name, [c.label for c in told], lambda: [[row.get(c.name) for c in told] for row in made.rows])
    return made


def refresh(table: ui.table, columns: Sequence[Column], rows: list[dict[str, Any]]) -> None:
    """Show newer rows in a table, where it is sorted and paged as somebody left it. Raises Rebuild where they have
    something in other columns than the table shows.
    """
    if [each.name for each in _dressed(columns, rows)] != [each["name"] for each in table.columns]:
        raise Rebuild
    table.rows = rows


def _dressed(columns: Sequence[Column], rows: list[dict[str, Any]]) -> list[Column]:
    """The columns in which these rows have something. Adds to the rows what their cells want: whole addresses, colours
    of marks.
    """
    root = ui.context.client.request.scope.get("root_path", "")
    for row in rows:
        for column in columns:
            if column.kind in ("link", "title") and (href := row.get(f"{column.name}_href")):
                row[f"{column.name}_href"] = root + href
            if column.kind == "mark":
                row.setdefault(f"{column.name}_tone", TONES.get(str(row.get(column.name)), ""))
    return [each for each in columns if not rows or any(row.get(each.name) not in (None, "") for row in rows)]
