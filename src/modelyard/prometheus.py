"""Pages of metrics, as Prometheus' text or as OpenMetrics, in which Prometheus asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

#: Content types of both forms.
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

#: The labels of a sample; a number is a bucket's bound, which both forms write differently.
Labels = Mapping[str, str | float]


class Spread(Protocol):
    """A histogram (``telemetry.Histogram``)."""

    bounds: tuple[float, ...]

    def read(self) -> tuple[list[int], int, float]: ...


def form(accept: str) -> str:
    """The content type for a caller who accepts ``accept``."""
    return OPEN_METRICS if "application/openmetrics-text" in accept else PROMETHEUS


class Page:
    """Families of samples. ``head`` begins one, to which ``add`` adds; each is there once."""

    def __init__(self) -> None:
        self._families: list[tuple[str, str, str, list[tuple[str, Labels, float]]]] = []

    def head(self, name: str, kind: Literal["gauge", "counter", "histogram"], about: str) -> None:
        self._families.append((name, kind, about, []))

    def add(self, labels: Labels, value: float, suffix: str = "") -> None:
        self._families[-1][3].append((suffix, labels, value))

    def single(self, name: str, kind: Literal["gauge", "counter"], about: str, value: float) -> None:
        """A family of one sample without labels."""
        self.head(name, kind, about)
        self.add({}, value)

    def spread(self, labels: Labels, histogram: Spread) -> None:
        """The samples of one histogram."""
        cumulative, count, total = histogram.read()
        for bound, below in zip(histogram.bounds, cumulative, strict=True):
            self.add({**labels, "le": bound}, below, "_bucket")
        self.add({**labels, "le": "+Inf"}, count, "_bucket")
        self.add(labels, total, "_sum")
        self.add(labels, count, "_count")

    def extend(self, other: Page) -> None:
        """Have the families of another page as well."""
        self._families += other._families

    def text(self, kind: str = PROMETHEUS) -> str:
        """The page in one of the two forms."""
        is_open = kind == OPEN_METRICS
        lines: list[str] = []
        for name, sort, about, samples in self._families:
            family = name.removesuffix("_total") if is_open else name
            lines += [f"# HELP {family} {about}", f"# TYPE {family} {sort}"]
            lines += [f"{name}{suffix}{_braces(labels, is_open)} {value!r}" for suffix, labels, value in samples]
        return "\n".join([*lines, *(["# EOF"] if is_open else []), ""])


def _braces(labels: Labels, is_open: bool) -> str:
    inside = ",".join(f'{key}="{_label(value, is_open)}"' for key, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _label(value: str | float, is_open: bool) -> str:
    if not isinstance(value, str):
        return str(value) if is_open else f"{value:g}"
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
