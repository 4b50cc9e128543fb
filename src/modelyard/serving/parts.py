"""A request that holds more rows than one call of its model may: it runs in parts, one call after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.schema import Columns

if TYPE_CHECKING:
    from modelyard.serving.calls import Exchange


class Parts:
    """What there is so far of the answer.

    The exchange does not know of it: exchanges are kept from the collector of garbage, which could not free the two.
    """

    __slots__ = ("alone", "columns", "done", "exchange", "outputs", "seconds", "started")

    def __init__(self, exchange: Exchange, columns: Columns, started: float) -> None:
        self.exchange = exchange
        #: The request, as a call's list of them.
        self.alone = [exchange]
        self.columns = columns
        self.outputs: list[Columns] = []
        #: Rows that are predicted, when the first part began, and the seconds that the parts took.
        self.done = 0
        self.started = started
        self.seconds = 0.0

    def next(self, most: int) -> Columns:
        """The rows of the next part."""
        return self.columns.slice(self.done, self.done + most)

    def add(self, outputs: Columns, seconds: float) -> None:
        """Keep what a model made of the next part."""
        self.outputs.append(outputs)
        self.done += outputs.rows
        self.seconds += seconds

    @property
    def are_all_there(self) -> bool:
        return self.done >= self.columns.rows
