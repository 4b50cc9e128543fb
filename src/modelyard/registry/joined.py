"""Labels that have found their predictions, as they are told to whoever counts them beside the cohorts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from modelyard.registry.database import Work


class Joined(NamedTuple):
    """A prediction that came by a route, and whose label was counted for the first time."""

    prediction: str
    request: str
    version: str
    arm: str
    #: Of the route that parted the requests, and whether a pin chose the arm.
    alias: str
    revision: int
    is_pinned: bool
    #: What stands for the client that sticks to the arm; "" where none does.
    client: str
    #: The predicted class, or the number, as text; what turned out to be true.
    predicted: str
    label: str


#: Called with a model inside the transaction that counts labels of it for the first time.
Tell = Callable[[Work, str, Sequence[Joined]], None]
