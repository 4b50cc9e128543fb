"""Two versions of a model beside each other: how good, how large, how fast, made of what, from what."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modelyard.admin.models import VersionRow, measured, row_of
from modelyard.admin.traffic import Sums, ago, by_version
from modelyard.bundle import Bundle
from modelyard.monitoring.scorecard import LOSSES
from modelyard.registry import Registry
from modelyard.registry.records import Version
from modelyard.rollouts.plan import differences

#: What of a version's provenance is told first, and what the rest is too long or too plain for.
_LINEAGE = (
    "data", "data_digest", "data_rows", "source", "source_digest", "target", "seed", "folds", "time", "user", "machine",
    "command", "commit", "python", "modelyard",
)  # fmt: skip
#: Metrics of which more is better; of the others it is not known.
_GAINS = ("roc_auc", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "f1_macro", "r2")

Side = Literal["before", "after", ""]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of both, with its 95 % intervals where they are known. ``better`` is "" where that is not known, and
    where they are equal; ``is_clear`` says that the intervals do not overlap.
    """

    name: str
    before: float | None = None
    after: float | None = None
    before_range: tuple[float, float] | None = None
    after_range: tuple[float, float] | None = None
    better: Side = ""
    is_clear: bool = False


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Something that both say of themselves; "" where one says nothing."""

    name: str
    before: str
    after: str

    @property
    def differs(self) -> bool:
        return self.before != self.after


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions. Packages are those whose version differs, ``same_packages`` the count of the others."""

    model: str
    before: VersionRow
    after: VersionRow
    metrics: list[Metric]
    packages: list[Fact]
    same_packages: int
    #: What callers of one would notice of the other, in sentences; none where they can be exchanged.
    signature: list[str]
    #: How they are served: runtime, conversion, Python, platform.
    making: list[Fact]
    #: Where they come from: data, digest, seed, time, user. Nothing but a signature vouches for it.
    lineage: list[Fact]
    #: Rows that they learnt from, were measured by, and are compared with in monitoring.
    rows: list[Fact]
    #: Whether the training left a report beside them.
    has_report: tuple[bool, bool]


def compare(registry: Registry, model: str, before: int, after: int, *, hours: float = 24.0) -> Comparison:
    """Two versions of a model: metrics, size, latency, packages, signature, lineage and reference rows."""
    versions = registry.resolve(f"{model}:{before}"), registry.resolve(f"{model}:{after}")
    bundles = registry.fetch(versions[0]), registry.fetch(versions[1])
    traffic = by_version(registry, model, ago(hours))
    rows = [row_of(each, traffic.get(str(each.number), Sums())) for each in versions]
    packages = _facts(*({d.name: d.version for d in each.manifest.environment.distributions} for each in bundles))
    return Comparison(
        model=model, before=rows[0], after=rows[1], metrics=_metrics(*versions),
        packages=[each for each in packages if each.differs],
        same_packages=sum(not each.differs for each in packages),
        signature=differences(bundles[0].signature, bundles[1].signature),
        making=_facts(*map(_making, bundles)), lineage=_facts(*map(_lineage, versions)),
        rows=_facts(*(_rows(*each) for each in zip(versions, bundles, strict=True))),
        has_report=(bundles[0].report is not None, bundles[1].report is not None),
    )  # fmt: skip


def _metrics(before: Version, after: Version) -> list[Metric]:
    ours, theirs = measured(before.metrics), measured(after.metrics)
    return [
        _metric(name, ours, theirs, _range(before, name), _range(after, name))
        for name in dict.fromkeys([*ours, *theirs])
    ]


def _metric(
    name: str, ours: dict[str, float], theirs: dict[str, float], mine: tuple[float, float] | None,
    other: tuple[float, float] | None,
) -> Metric:  # fmt: skip
    a, b = ours.get(name), theirs.get(name)
    better: Side = ""
    if a is not None and b is not None and a != b and name in (*LOSSES, *_GAINS):
        better = "after" if (b < a) == (name in LOSSES) else "before"
    is_clear = bool(better and mine and other and (mine[1] < other[0] or other[1] < mine[0]))
    return Metric(name=name, before=a, after=b, before_range=mine, after_range=other, better=better, is_clear=is_clear)


def _range(version: Version, name: str) -> tuple[float, float] | None:
    held_out = version.metrics.get("held_out")
    found = held_out.get(name) if isinstance(held_out, dict) else None
    if not isinstance(found, dict) or not all(isinstance(found.get(end), (int, float)) for end in ("low", "high")):
        return None
    return float(found["low"]), float(found["high"])


def _making(bundle: Bundle) -> dict[str, Any]:
    manifest, conversion = bundle.manifest, bundle.manifest.conversion
    made: dict[str, Any] = {"runtime": manifest.model.runtime}
    if conversion is not None:
        made["converted"] = (
            f"from {conversion.source}, {conversion.rows:,} rows compared, worst difference "
            f"{max(conversion.worst_absolute, conversion.worst_relative):.3g}"
            if conversion.accepted else f"kept as {conversion.target}: {conversion.step} {conversion.reason}".strip()
        )  # fmt: skip
    environment = manifest.environment
    return {
        **made, "python": f"{environment.implementation} {environment.python}",
        "platform": f"{environment.platform} {environment.machine}",
    }  # fmt: skip


def _lineage(version: Version) -> dict[str, Any]:
    found = version.provenance
    return {name: found[name] for name in _LINEAGE if found.get(name) not in (None, "", [])}


def _rows(version: Version, bundle: Bundle) -> dict[str, Any]:
    told = version.metrics.get("rows")
    made = {name.replace("_", " "): count for name, count in told.items()} if isinstance(told, dict) else {}
    return {**made, "reference": bundle.profile().rows}


def _facts(before: dict[str, Any], after: dict[str, Any]) -> list[Fact]:
    names = dict.fromkeys([*before, *after])
    return [Fact(name=name, before=_told(before.get(name)), after=_told(after.get(name))) for name in names]


def _told(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
