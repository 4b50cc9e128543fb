"""``DateParts`` against the calendar, and as a scikit-learn citizen."""

import datetime as dt
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline

from modelyard.errors import InvalidInput, NotFound
from modelyard.preprocessing import PARTS, DateParts


def parts(seconds):
    rows = np.array([[seconds]])
    return dict(zip(PARTS, DateParts().fit(rows).transform(rows)[0], strict=True))


@given(st.integers(-62135596800, 253402300799))
def test_parts_agree_with_the_calendar(seconds):
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    got = parts(float(seconds))
    assert got["weekday"] == moment.weekday()
    assert got["weekend"] == (moment.weekday() >= 5)
    assert got["hour"] == pytest.approx(moment.hour + moment.minute / 60 + moment.second / 3600, abs=1e-12)
    assert got["days"] == pytest.approx(seconds / 86400)
    for cycle in ("day", "week", "year"):
        assert got[f"{cycle}_sin"] ** 2 + got[f"{cycle}_cos"] ** 2 == pytest.approx(1.0)


def test_seasons_come_back():
    summers = [dt.datetime(year, 7, 1, tzinfo=dt.UTC).timestamp() for year in (1995, 2010, 2024)]
    values = [parts(seconds)["year_cos"] for seconds in summers]
    assert max(values) - min(values) < 0.02
    assert max(values) < -0.95


def test_a_missing_moment_has_missing_parts():
    rows = np.array([[np.nan], [0.0]])
    got = DateParts().fit(rows).transform(rows)
    assert np.isnan(got[0]).all()
    assert np.isfinite(got[1]).all()


def test_every_form_of_a_moment_gives_the_same():
    stamps = pd.to_datetime(["2024-02-29T12:30:00", None, "1969-12-31T23:59:59"])
    seconds = np.array([1709209800.0, np.nan, -1.0])
    expected = DateParts().fit_transform(seconds[:, None])
    frames = [
        pd.DataFrame({"when": stamps}),
        pd.DataFrame({"when": stamps.tz_localize("UTC")}),
        pd.DataFrame({"when": seconds}),
    ]
    for table in frames:
        np.testing.assert_array_equal(DateParts().fit_transform(table), expected)
    np.testing.assert_array_equal(DateParts().fit_transform(stamps.to_numpy()[:, None]), expected)


def test_it_lives_in_pipelines():
    rows = pd.DataFrame({"a": [0.0, 1e9], "b": [1.0, 2.0]})
    step = DateParts(parts=("hour", "weekday"))
    copy = clone(step)
    assert copy is not step
    assert copy.get_params() == {"parts": ("hour", "weekday")}
    chain = make_pipeline(make_column_transformer((copy, ["a", "b"])))
    assert chain.fit_transform(rows).shape == (2, 4)
    assert list(chain.get_feature_names_out()) == [
        "dateparts__a_hour",
        "dateparts__a_weekday",
        "dateparts__b_hour",
        "dateparts__b_weekday",
    ]
    again = pickle.loads(pickle.dumps(chain))
    np.testing.assert_array_equal(again.transform(rows), chain.transform(rows))
    assert repr(DateParts()) == "DateParts()"
    assert repr(step) == "DateParts(parts=('hour', 'weekday'))"


def test_what_it_refuses():
    rows = np.zeros((2, 1))
    with pytest.raises(NotFound, match="part of a date"):
        DateParts(parts=("hours",)).fit(rows)
    with pytest.raises(NotFound, match="parameter of DateParts"):
        DateParts().set_params(part=("hour",))
    assert DateParts().set_params(parts=("hour",)).parts == ("hour",)
    with pytest.raises(InvalidInput, match="1 columns"):
        DateParts().fit(rows).transform(np.zeros((2, 2)))
