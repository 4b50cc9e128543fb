"""Rows on which a converted model must agree with the original: the sample, and rows where conversions go wrong.

From every sample row, variants are made in which one column is missing, unseen, empty, huge or negative; and for
models that decide at thresholds, the threshold itself and its neighbours in float32 and float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from modelyard.schema import INTEGER_RANGES, Array, Columns, Field

#: Most rows of the sample, and most thresholds, that are looked at.
SAMPLE_ROWS, THRESHOLDS = 1000, 600
#: How many sample rows carry each kind of strange value.
CARRIERS = 3

UNSEEN = "never seen before \N{SNOWMAN}"


def sample_rows(sample: Columns) -> Columns:
    """At most ``SAMPLE_ROWS`` rows, evenly spread."""
    if sample.rows <= SAMPLE_ROWS:
        return sample
    return sample.take(np.linspace(0, sample.rows - 1, SAMPLE_ROWS).astype("int64"))


def strange_rows(
    sample: Columns, thresholds: Mapping[tuple[str, int | None], Iterable[float]]
) -> Iterable[tuple[str, Columns]]:
    """Groups of probe rows, each with the words that tell what is strange about it."""
    if not sample.rows:
        return
    for field in sample.layout.fields:
        for kind, strange in _strange_values(field):
            yield f"{field.name}: {kind}", _with(sample, field, None, np.repeat(strange, CARRIERS))
    fields = {field.name: field for field in sample.layout.fields}
    total = sum(1 for values in thresholds.values() for _ in values)
    every = max(1, -(-total // THRESHOLDS))
    for (name, element), values in thresholds.items():
        field = fields[name]
        if near := _neighbours(list(values)[::every], field):
            yield f"{name}: thresholds and their neighbours", _with(sample, field, element, np.array(near))


def _strange_values(field: Field) -> Iterable[tuple[str, Array]]:
    if field.storage == "object":
        yield "an unseen text", _texts([UNSEEN])
        yield "an empty text", _texts([None if field.nullable else ""])
        return
    if field.nullable:
        yield "a missing value", np.array([np.nan])
    if field.dtype == "bool":
        yield "both values", np.array([0.0, 1.0]).astype(field.storage)
        return
    low, high = _range(field)
    span = max(high - low, 1.0)
    far = np.array([low - span, high + span, 0.0, -1.0, -abs(high)])
    huge = np.array([-1e6 * span, 1e6 * span])
    yield "values outside the sample's range", _fit(far, field)
    yield "huge values", _fit(huge, field)


def _range(field: Field) -> tuple[float, float]:
    if field.minimum is None or field.maximum is None:
        return -1.0, 1.0
    return field.minimum, field.maximum


def _fit(values: Array, field: Field) -> Array:
    """``values`` as the field can hold them: whole and within the range of an integer type."""
    if field.dtype == "datetime":
        # The years 1 to 9999, which is what a date can be.
        return np.clip(values, -62135596800.0, 253402300799.0)
    bounds = INTEGER_RANGES.get(field.dtype)
    if bounds is not None:
        values = np.clip(np.round(values), max(bounds[0], -(2.0**53)), min(bounds[1], 2.0**53))
    if field.dtype in ("float16", "float32"):
        values = np.clip(values, np.finfo(field.dtype).min, np.finfo(field.dtype).max)
    return values.astype(field.storage)


def _neighbours(values: list[float], field: Field) -> list[float]:
    """Each value with the next doubles and the next float32 numbers on both sides."""
    near: dict[float, None] = {}
    for value in values:
        if field.storage != field.dtype or not field.dtype.startswith("float"):
            candidates = [np.floor(value), np.ceil(value)]
        else:
            with np.errstate(over="ignore"):
                single = np.float32(value)
            candidates = [
                value,
                np.nextafter(value, -np.inf),
                np.nextafter(value, np.inf),
                float(single),
                float(np.nextafter(single, np.float32(-np.inf))),
                float(np.nextafter(single, np.float32(np.inf))),
            ]
        kept = _fit(np.array(candidates, dtype="float64"), field)
        near.update(dict.fromkeys(v for v in kept.tolist() if np.isfinite(v)))
    return list(near)


def _texts(values: list[str | None]) -> Array:
    return np.array([*values, "-"], dtype=object)[:-1]


def _with(sample: Columns, field: Field, element: int | None, values: Array) -> Columns:
    """Sample rows, each with one of ``values`` in the field (or in all or one of its elements)."""
    rows = sample.take(np.arange(len(values)) % sample.rows)
    number, place = sample.layout.places[field.name]
    block = rows.blocks[number]
    if not field.shape:
        block[:, place] = values
    elif element is not None:
        block[:, element] = values
    else:
        block[...] = values.reshape(-1, *[1] * len(field.shape))
    return rows


def join(groups: Iterable[Columns], like: Columns) -> Columns:
    """All groups' rows one after another."""
    many = list(groups)
    return like.layout.concatenate(many) if many else like.slice(0, 0)
