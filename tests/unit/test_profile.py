"""Profiles: what is frozen, what is counted, and that nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.errors import BadBundle, Conflict
from modelyard.profile import BINS, Counts, Profile
from modelyard.schema import Field, Layout, infer_fields


def profile_of(**arrays):
    fields = infer_fields(arrays)
    return Profile.of(Layout.of(fields).from_arrays(arrays), fields)


def only(profile: Profile) -> Counts:
    (part,) = profile.inputs
    return part


def test_numbers_fall_into_bins_of_equal_share():
    part = only(profile_of(x=np.random.default_rng(0).normal(size=10_000)))
    assert len(part.counts) == BINS
    assert sum(part.counts) == 10_000
    assert min(part.counts) > 490 and max(part.counts) < 510
    assert part.below == part.above == part.missing == 0


def test_edges_are_values_that_occur():
    values = np.random.default_rng(1).gamma(2, size=500)
    part = only(profile_of(x=values))
    assert set(part.edges) <= set(values.tolist())
    assert part.edges[0] == values.min()
    assert part.maximum == values.max()


def test_live_rows_outside_the_reference_are_counted_apart():
    live = profile_of(x=np.arange(100.0)).empty()
    live.add({"x": np.array([-1.0, 0.0, 99.0, 99.5, np.inf, -np.inf, np.nan])})
    part = only(live)
    assert (part.below, part.above, part.missing, sum(part.counts)) == (2, 2, 1, 2)
    assert live.rows == 7


def test_few_distinct_values_have_a_bin_each():
    part = only(profile_of(x=np.array([1.0, 2.0, 2.0, 5.0])))
    assert part.edges == [1.0, 2.0, 5.0]
    assert part.counts == [1, 2, 1]


def test_a_value_that_fills_many_bins_gets_its_own():
    part = only(profile_of(x=np.concatenate([np.zeros(800), np.linspace(1, 2, 200)])))
    assert part.edges[:2] == [0.0, 1.0]
    assert part.counts[0] == 800


def test_constant_column():
    profile = profile_of(x=np.full(50, 7.0))
    assert only(profile).counts == [50]
    live = profile.empty()
    live.add({"x": np.array([6.0, 7.0, 8.0])})
    part = only(live)
    assert (part.below, part.counts, part.above) == (1, [1], 1)


def test_all_missing_column():
    profile = profile_of(x=np.full(5, np.nan))
    assert (only(profile).missing, only(profile).counts) == (5, [])
    live = profile.empty()
    live.add({"x": np.array([3.0, np.nan])})
    assert (only(live).unseen, only(live).missing) == (1, 1)


def test_infinities_in_the_reference_move_no_edge():
    part = only(profile_of(x=np.array([-np.inf, 1.0, 2.0, np.inf])))
    assert (part.edges, part.maximum, part.below, part.above) == ([1.0, 2.0], 2.0, 1, 1)


def test_integers_and_booleans():
    profile = profile_of(n=np.arange(1000), b=np.array([True, False] * 500))
    n, b = profile.inputs
    assert sum(n.counts) == 1000 and len(n.counts) == BINS
    assert (b.edges, b.counts) == ([0.0, 1.0], [500, 500])


def test_nullable_booleans():
    part = only(profile_of(b=np.array([True, None, False], dtype=object)))
    assert (part.missing, part.counts) == (1, [1, 1])


def test_datetimes_count_as_seconds():
    part = only(profile_of(t=np.array(["2024-01-01", "2024-01-02", "NaT"], dtype="datetime64[s]")))
    assert (part.edges, part.missing) == ([1704067200.0, 1704153600.0], 1)


def test_texts_are_ranked_and_unseen_is_known():
    profile = profile_of(c=np.array(["b"] * 3 + ["a"] * 5 + [None], dtype=object))
    part = only(profile)
    assert (part.values, part.counts, part.missing) == (["a", "b"], [5, 3], 1)
    live = profile.empty()
    live.add({"c": np.array(["a", "z", None, float("nan"), 4], dtype=object)})
    part = only(live)
    assert (part.counts, part.unseen, part.missing, part.wrong) == ([1, 0], 1, 2, 1)


def test_rare_texts_are_other_and_not_unseen():
    profile = profile_of(c=np.array([f"v{i:03}" for i in range(100)], dtype=object))
    live = profile.empty()
    live.add({"c": np.array(["v000", "v099", "new"], dtype=object)})
    part = only(live)
    assert (sum(part.counts), part.other, part.unseen) == (1, 1, 1)


def test_too_many_texts_leave_unseen_untold_and_names_unwritten():
    people = [f"person {i}" for i in range(3000)]
    profile = profile_of(c=np.array([*people, "twice", "twice"], dtype=object))
    part = only(profile)
    assert part.open
    assert (part.values, part.counts, part.other) == (["twice"], [2], 3000)
    assert b"person" not in profile.to_json()


def test_long_texts_are_counted_without_being_kept():
    long = "x" * 5000
    profile = profile_of(c=np.array([long, long, "short"], dtype=object))
    part = only(profile)
    assert (part.values, part.other) == (["short"], 2)
    assert len(profile.to_json()) < 500


def test_probabilities_have_one_histogram_per_label():
    field = Field(name="probabilities", dtype="float64", shape=(2,), categories=("no", "yes"))
    p = np.random.default_rng(0).uniform(size=300)
    values = {"probabilities": np.stack([1 - p, p], axis=1)}
    profile = Profile.of({}, (), values, (field,))
    assert [part.name for part in profile.outputs] == ["probabilities[no]", "probabilities[yes]"]
    assert all(sum(part.counts) == 300 for part in profile.outputs)


def test_large_tensors_are_summarised():
    field = Field(name="image", dtype="float32", shape=(8, 8))
    images = np.random.default_rng(0).normal(size=(50, 8, 8)).astype("float32")
    images[0, 0, 0] = np.nan
    images[1] = np.nan
    profile = Profile.of({"image": images}, (field,))
    assert [part.part for part in profile.inputs] == ["minimum", "mean", "maximum"]
    assert [part.missing for part in profile.inputs] == [1, 1, 1]
    low, mean, high = (part.maximum for part in profile.inputs)
    assert low < mean < high


def test_texts_with_a_shape_are_skipped_with_the_reason():
    field = Field(name="tags", dtype="string", shape=(2,))
    profile = Profile.of({"tags": np.array([["a", "b"]], dtype=object)}, (field,))
    assert only(profile).kind == "skipped"
    assert "shape" in only(profile).reason
    live = profile.empty()
    live.add({"tags": np.array([["a", "c"]], dtype=object)})
    assert live.rows == 1


def test_texts_where_numbers_should_be_are_wrong_and_not_fatal():
    live = profile_of(x=np.arange(10.0)).empty()
    live.add({"x": np.array([1.0, "two", None], dtype=object)}, wrong={"x": 4})
    part = only(live)
    assert (sum(part.counts), part.wrong, part.missing) == (1, 5, 1)


def test_merge_adds():
    profile = profile_of(x=np.arange(10.0), c=np.array(["a", "b"] * 5, dtype=object))
    assert profile.merge(profile.empty()) == profile
    double = profile.merge(profile)
    assert double.rows == 20
    assert [c * 2 for c in profile.inputs[0].counts] == double.inputs[0].counts


def test_merging_profiles_on_different_bins_is_refused():
    with pytest.raises(Conflict, match="different bins"):
        profile_of(x=np.arange(10.0)).merge(profile_of(x=np.arange(11.0)))


def test_json_is_the_same_bytes_and_comes_back_equal():
    def make():
        rng = np.random.default_rng(3)
        texts = rng.choice(["a", "b", "c"], 200).astype(object)
        return profile_of(x=rng.normal(size=200), c=texts)

    data = make().to_json()
    assert data == make().to_json()
    assert Profile.from_json(data) == make()
    assert Profile.from_json(data).to_json() == data


def test_no_profile_is_explained():
    with pytest.raises(BadBundle, match="not a profile"):
        Profile.from_json(b'{"inputs": 3}')


def test_a_hundred_features_stay_small():
    rng = np.random.default_rng(0)
    assert len(profile_of(**{f"feature_{i}": rng.normal(size=2000) for i in range(100)}).to_json()) < 64_000


def test_no_rows():
    profile = profile_of(x=np.empty(0), c=np.empty(0, dtype=object))
    assert profile.rows == 0


def test_no_rows_of_a_field_with_a_shape():
    fields = (Field(name="v", dtype="float64", shape=(3,)), Field(name="i", dtype="float64", shape=(8, 8)))
    profile = Profile.of({"v": np.empty((0, 3)), "i": np.empty((0, 8, 8))}, fields)
    assert [part.name for part in profile.inputs] == ["v[0]", "v[1]", "v[2]", "i[minimum]", "i[mean]", "i[maximum]"]
    assert all(part.total == 0 for part in profile.inputs)
