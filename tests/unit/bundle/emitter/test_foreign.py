"""Estimators that go through skl2onnx behind our double preprocessing."""

import pytest
from sklearn.ensemble import AdaBoostRegressor, VotingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeRegressor

from .tables import frame, mixed, numeric, prepare, proved, target


def through_skl2onnx(model, arrays):
    conversion, _ = proved(model, arrays)
    assert conversion.accepted, f"{conversion.step}: {conversion.reason}"
    assert conversion.method == "emitter+skl2onnx"
    assert conversion.tolerance == 1e-5
    assert conversion.worst_relative <= 1e-5
    assert "skl2onnx" in conversion.versions


def test_neighbours_by_another_distance():
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(metric="manhattan"))
    through_skl2onnx(model.fit(frame(numeric()), target(numeric(), 3, ["a", "b", "c"])), numeric(1, 60))


def test_a_gaussian_process_behind_a_mixed_pipeline():
    model = make_pipeline(prepare(), GaussianProcessRegressor(alpha=1.0, normalize_y=True))
    through_skl2onnx(model.fit(frame(mixed()), target(mixed(), 0)), mixed(1, 60, unseen=True))


@pytest.mark.filterwarnings("ignore:.*probability.*:FutureWarning")
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_of_support_vector_machines(classes):
    model = make_pipeline(StandardScaler(), SVC(probability=True, random_state=0))
    through_skl2onnx(model.fit(frame(numeric()), target(numeric(), classes, ["a", "b", "c"])), numeric(1, 60))


def test_what_nobody_converts_is_refused_by_name():
    model = make_pipeline(StandardScaler(), RadiusNeighborsRegressor(5.0, metric="canberra"))
    model.fit(frame(numeric()), target(numeric(), 0))
    conversion, spec = proved(model, numeric(1, 60))
    assert spec is None
    assert conversion.step == "radiusneighborsregressor"
    assert "RadiusNeighborsRegressor has no ONNX form" in conversion.reason


def test_trees_of_two_converters_do_not_fit_in_one_graph():
    boosted = AdaBoostRegressor(DecisionTreeRegressor(max_depth=2), n_estimators=5, random_state=0)
    y = target(numeric(), 0)
    through_skl2onnx(boosted.fit(frame(numeric()), y), numeric(1, 60))
    both = VotingRegressor([("a", boosted), ("b", DecisionTreeRegressor(max_depth=2))]).fit(frame(numeric()), y)
    conversion, spec = proved(both, numeric(1, 60))
    assert spec is None
    assert conversion.step == "VotingRegressor"
    assert "do not fit in one graph" in conversion.reason
