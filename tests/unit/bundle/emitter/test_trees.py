"""The arithmetic that keeps a tree's decisions: thresholds before rounding, scaling and imputation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.bundle.emitter import trees

finite = st.floats(allow_nan=False, allow_infinity=False, width=64, min_value=-1e30, max_value=1e30)


def around(value):
    """A double and its neighbours, and the doubles around those that round to the nearest float32 numbers."""
    near = [value, np.nextafter(value, -np.inf), np.nextafter(value, np.inf)]
    with np.errstate(over="ignore"):
        single = np.float32(value)
    for step in (np.float32(-np.inf), np.float32(np.inf)):
        other = np.nextafter(single, step)
        middle = (float(single) + float(other)) / 2
        near += [float(single), float(other), middle, np.nextafter(middle, -np.inf), np.nextafter(middle, np.inf)]
    return np.array(near)


@given(finite)
def test_rounding_to_float32_is_one_threshold_in_double(threshold):
    limit = trees.float32_limits(np.array([threshold]))[0]
    for values in (around(threshold), around(limit)):
        np.testing.assert_array_equal(values <= limit, values.astype("float32").astype("float64") <= threshold)


@given(
    threshold=st.floats(-1e6, 1e6),
    shift=st.floats(-1e6, 1e6),
    factor=st.floats(1e-6, 1e6),
    op=st.sampled_from(["Mul", "Div"]),
)
def test_scaling_is_one_threshold_before_it(threshold, shift, factor, op):
    steps = [("Sub", shift), (op, factor)]
    limits, missing = trees.before(np.array([threshold]), steps)
    values = around(limits[0])
    after = (values - shift) * factor if op == "Mul" else (values - shift) / factor
    np.testing.assert_array_equal(values <= limits[0], after <= threshold)
    assert missing is None


@pytest.mark.parametrize(("fill", "goes_left"), [(1.0, True), (3.0, False), (2.0, True)])
def test_imputation_is_the_way_of_the_missing(fill, goes_left):
    limits, missing = trees.before(np.array([0.0]), [("Fill", fill), ("Sub", 2.0)])
    assert limits[0] == 2.0
    assert missing.tolist() == [goes_left]


def test_infinite_thresholds_stay():
    assert trees.float32_limits(np.array([np.inf, -np.inf])).tolist() == [np.inf, -np.inf]
    assert trees.before(np.array([np.inf]), [("Sub", 2.0)])[0].tolist() == [np.inf]
