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


def cell(inside: str) -> str:
    """How a cell is drawn. It is told its column's name, which stands before it where rows are shown as cards."""
    return f'<q-td :props="props" :data-label="props.col.label">{inside}</q-td>'


_LINK = (
    "<a v-if=\"props.row[props.col.name + '_href']\" :href=\"props.row[props.col.name + '_href']\">"
    "{{ props.value }}</a>"
    "<template v-else>{{ props.value }}</template>"
)
#: A text, or a whole moment among texts.
_TEXT = (
    '<time v-if="/^\\d{4}-\\d\\d-\\d\\dT[\\d:.]+Z$/.test(props.value)" :data-utc="props.value"></time>'
    "<template v-else>{{ props.value }}</template>"
)
_CELLS = {
    "number": cell('{{ typeof props.value === "number" ? props.value.toLocaleString() : props.value }}'),
    "moment": cell('<time v-if="props.value" :data-utc="props.value"></time>'),
    "mark": cell(
        '<span v-if="props.value" '
        ":class=\"'y-mark ' + (props.row[props.col.name + '_tone'] || '')\">{{ props.value }}</span>"
    ),
    "act": cell(
        '<q-btn flat dense round icon="more_vert" :aria-label="props.value" '
        "@click=\"() => $parent.$emit('act', props.row)\" />"
    ),
    "link": cell(_LINK), "title": cell(_LINK), "text": cell(_TEXT), "cell": cell("{{ props.value }}"),
}  # fmt: skip

#: In order of what numbers mean, also where a unit stands behind them; what is none comes first.
SORT = (
    "(a, b) => { const n = x => typeof x === 'number' ? x : parseFloat(String(x ?? '').replaceAll(',', ''))"
    " * (/\\d s$/.test(x) ? 1e3 : 1); const [p, q] = [n(a), n(b)];"
    " return isNaN(p) || isNaN(q) ? isNaN(q) - isNaN(p) : p - q; }"
)

#: With so many columns or more, each row is a card where there is no room for them beside each other.
_MANY = 5


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
            "headerClasses": "y-head", **({":sort": SORT} if each.kind == "number" else {}),
        }
        for each in columns
    ]  # fmt: skip
    made = ui.table(columns=heads, rows=rows, row_key=key, pagination=page if len(rows) > page else None)
    made.props("flat dense wrap-cells").classes("w-full")
    if len(columns) >= _MANY:
        made.classes("y-cards")
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
