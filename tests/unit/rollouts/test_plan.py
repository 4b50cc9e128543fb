"""Plans: what is refused and how it is told, and what is frozen."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest

from modelyard.errors import Conflict, InvalidInput, NotFound, Refused
from modelyard.profile import Counts, Profile
from modelyard.registry import Registry
from modelyard.registry.plans import Rollout, Scores, Stage
from modelyard.registry.records import stamp
from modelyard.registry.routes import Pin
from modelyard.registry.stages import STAGE_BOUNDS
from modelyard.registry.windows import Counted, Window, parts_of
from modelyard.rollouts import freezing
from modelyard.rollouts.plan import WATCH_SECONDS, differences, draft
from modelyard.schema import Field, Signature
from registries import SIGNATURE, Make


def profiled(rows: int = 1000) -> bytes:
    """A reference profile of so many rows, whose predictions are even between 0 and 1."""
    numbers = np.linspace(0, 1, rows)
    columns = {"x": numbers}
    return Profile.of(columns, SIGNATURE.inputs, {"prediction": numbers}, SIGNATURE.outputs).to_json()


@pytest.fixture
def two(registry: Registry, make: Make) -> Registry:
    """churn:1, which is live, and churn:2."""
    for text in ("one", "two"):
        registry.register(make(text, profile=profiled()), "churn")
    return registry


def total(seconds: float, requests: int = 1000) -> list[int]:
    """A histogram: half of the requests took so long, 45 % ten times, 4 % thirty times and 1 % a hundred times."""
    counts = [0] * (len(STAGE_BOUNDS) + 1)
    for share, times in ((0.5, 1), (0.45, 10), (0.04, 30), (0.01, 100)):
        counts[int(np.searchsorted(STAGE_BOUNDS, seconds * times * 0.999))] += int(requests * share)
    return counts


def window(registry: Registry, requests: int = 1000, *, ago: float = 60.0, parts: Any = ((), ())) -> Window:
    moment = stamp(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ago))
    counted = Counted(requests, {}, requests, 0, *map(list, parts), {"total": total(1e-3, requests)})
    made = Window(model="churn", version="1", arm="", opened=moment, closed=moment, counted=counted)
    registry.windows.add([made])
    return made


def drafted(registry: Registry, to: int = 2, **options: Any) -> Rollout:
    made, _ = draft(registry, "churn", to, **options)
    return made


def test_a_canary_of_a_tenth_is_what_one_gets(two: Registry) -> None:
    window(two)
    made, notes = draft(two, "churn", 2)
    assert notes == ["not guarded: labels: the bundle does not say how far its predictions usually are from the truth"]
    assert (made.stable, made.candidate, made.share) == (1, 2, 0.1)
    plan = made.plan
    assert (plan.stages, plan.goal, plan.alpha) == ((Stage(0.1),), "promote", 0.01)
    assert plan.guards == ("errors", "invalid", "latency", "scores")
    assert plan.watch_seconds == 0


@pytest.mark.parametrize(
    ("options", "stages", "goal"),
    [
        ({"canary": 0.25}, [(0.25, "live")], "promote"),
        ({"ramp": (0.01, 0.25, 0.5, 1.0)}, [(0.01, "live"), (0.25, "live"), (0.5, "live")], "promote"),
        ({"shadow": 1.0}, [(1.0, "shadow")], "pass"),
        ({"shadow": 0.2, "ramp": (0.05, 1.0)}, [(0.2, "shadow"), (0.05, "live")], "promote"),
        ({"canary": 0.1, "hold": True}, [(0.1, "live")], "pass"),
    ],
)  # fmt: skip
def test_stages(two: Registry, options: dict[str, Any], stages: list[tuple[float, str]], goal: str) -> None:
    plan = drafted(two, **options).plan
    assert [(stage.share, stage.mode) for stage in plan.stages] == stages
    assert plan.goal == goal
    assert ("disagreement" in plan.guards) is ("shadow" in options)


def test_experiments_need_clients_that_stay_and_labels(two: Registry, make: Make) -> None:
    two.register(make("three", profile=profiled(), metrics={"rmse": 0.5}), "churn", alias="production")
    for options in ({"ab": 0.5}, {"canary": 0.5, "bandit": True}):
        with pytest.raises(InvalidInput, match="key: expected a header or a column") as caught:
            drafted(two, **options)
        assert "--key header:x-user-id" in caught.value.hint
        with pytest.raises(InvalidInput, match="guards: expected labels, which an experiment is judged by"):
            drafted(two, guards=["errors"], key="header:x", **options)
        plan = drafted(two, key="header:x", **options).plan
        assert plan.judge == ("bandit" if "bandit" in options else "outcome")
        assert (plan.miss, plan.watch_seconds) == (0.5, WATCH_SECONDS)
    two.promote("churn", 1)
    with pytest.raises(InvalidInput, match="labels, which an experiment is judged by"):
        drafted(two, ab=0.5, key="header:x")  # this one does not say how far it usually is from the truth
    assert "labels" in drafted(two, ab=0.5, key="header:x", outcome="1").plan.guards


def test_an_outcome_is_a_label_as_labels_are_kept(two: Registry, make: Make) -> None:
    assert drafted(two, ab=0.5, key="header:x", outcome="1").plan.outcome == "1.0"
    with pytest.raises(InvalidInput, match="outcome: expected a finite number, got 'bought'"):
        drafted(two, ab=0.5, key="header:x", outcome="bought")


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"canary": 0.1, "ramp": (0.1, 1.0)},
        "shares: expected one of a canary's share, a ramp, and an experiment's share",
    ),
    ({"ramp": (0.25, 0.05)}, "ramp: expected shares that grow, like 1%, 5%, 25%, 50%, 100%, got 25%, 5%"),
    ({"ramp": (1.0,)}, "ramp: expected a share below 100%"),
    ({"canary": 0.0}, "canary: expected a fraction above 0 and below 1, got 0.0"),
    ({"canary": 10}, "canary: expected a fraction above 0 and below 1, got 10"),
    ({"canary": float("nan")}, "canary: expected a fraction above 0"),
    ({"alpha": 0.0}, "alpha: expected a fraction above 0 and below 0.5"),
    ({"alpha": "1%"}, "alpha: expected a fraction above 0 and below 0.5, got 1%"),
    ({"guards": []}, "guards: expected at least one of errors, invalid"),
    (
        {"guards": ["disagreement"]},
        "guard disagreement: expected what it needs, got answers are compared with those of",
    ),
    ({"tolerances": {"errors": 2.0}}, "tolerance of errors: expected a fraction above 0 and below 1, got 2.0"),
    ({"stage_seconds": -1}, "the time of a stage: expected seconds, from 0, got -1"),
    ({"stage_seconds": float("inf")}, "the time of a stage: expected seconds"),
    ({"key": "cookie"}, "key: expected request, header:NAME or column:NAME, got 'cookie'"),
    ({"pins": [Pin(key="header:x", value="y", arm="v9")]}, "pin of header:x:y: expected one of stable, canary"),
    ({"ramp": (0.1, 0.5), "bandit": True}, "shares: expected one share for a bandit to begin with"),
    ({"alias": "1"}, "alias: expected"),
    ({"why": "\0"}, "why: expected text without NUL"),
    ({"to": "2"}, "version: expected a whole number, got '2'"),
]


@pytest.mark.parametrize(("options", "told"), WRONG, ids=[told for _, told in WRONG])
def test_what_does_not_fit_is_told(two: Registry, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        drafted(two, **options)
    assert told in caught.value.message


def test_unknown_guards_have_their_nearest(two: Registry) -> None:
    with pytest.raises(NotFound) as caught:
        drafted(two, guards=["error"])
    assert caught.value.hint == "did you mean errors?"
    with pytest.raises(NotFound, match="no such guard of this rollout: scores"):
        drafted(two, guards=["errors"], tolerances={"scores": 0.1})


def test_there_must_be_something_to_compare_with(two: Registry) -> None:
    with pytest.raises(NotFound, match="no such version of churn: 7"):
        drafted(two, 7)
    with pytest.raises(Conflict, match="churn@production is version 1 already"):
        drafted(two, 1)
    with pytest.raises(
        Conflict, match="churn@staging is not set: there is nothing to compare version 2 with"
    ) as caught:
        drafted(two, alias="staging")
    assert caught.value.hint == "modelyard promote churn 2 --alias staging"
    with pytest.raises(NotFound, match="no such model: chrn"):
        draft(two, "chrn", 2)


def test_another_signature_is_refused_with_the_difference(two: Registry, make: Make) -> None:
    other = Signature(
        inputs=(Field(name="x", dtype="string"), Field(name="y", dtype="float64", nullable=True)),
        outputs=(Field(name="score", dtype="float64"),),
    )
    two.register(make("three", signature=other), "churn")
    with pytest.raises(Refused, match="churn:3 has another signature than churn:1") as caught:
        drafted(two, 3)
    assert caught.value.details["differences"] == [
        "input y is new: a number (float64) or null",
        "input x: a number (float64) became a text",
        "output prediction is gone",
        "output score is new: a number (float64)",
    ]
    assert "--force-signature" in caught.value.hint
    assert drafted(two, 3, force_signature=True).candidate == 3


def test_what_only_describes_is_no_difference() -> None:
    described = Signature(
        inputs=(Field(name="x", dtype="float64", minimum=0.0, maximum=9.0),), outputs=SIGNATURE.outputs
    )
    assert differences(SIGNATURE, described) == []


# -- what is frozen -----------------------------------------------------------------------------------------------


def test_what_is_slow_comes_from_the_last_day(two: Registry) -> None:
    window(two, 600)
    window(two, 600, ago=7200.0)
    window(two, 10_000, ago=90_000.0)  # the day before
    thresholds = drafted(two).plan.thresholds
    assert thresholds == pytest.approx((1e-3, 1e-2, 3.16e-2), rel=0.01)  # the upper ends of bins


def test_a_shadow_alone_is_not_compared_by_its_time(two: Registry) -> None:
    window(two)
    made, notes = draft(two, "churn", 2, shadow=1.0)
    assert "latency" not in made.plan.guards and "disagreement" in made.plan.guards
    assert any(note.startswith("not guarded: latency: copies wait until there is room") for note in notes)
    assert "latency" in drafted(two, shadow=1.0, ramp=(0.1,)).plan.guards


def test_without_enough_requests_latency_is_not_guarded(two: Registry) -> None:
    window(two, 100)
    made, notes = draft(two, "churn", 2)
    assert "latency" not in made.plan.guards
    assert "not guarded: latency: 100 requests recorded in the last day, and it takes 500" in notes
    with pytest.raises(InvalidInput, match="guard latency: expected what it needs, got 100 requests recorded"):
        drafted(two, guards=["latency"])


def test_bins_of_scores_come_from_the_reference_or_better_from_windows(two: Registry) -> None:
    scores = drafted(two).plan.scores
    assert scores is not None and scores.field == "prediction"
    assert scores.edges[0] == 0.0 and scores.edges[-1] > 1.0
    assert scores.edges[1:-1] == pytest.approx(np.linspace(0.1, 0.9, 9), abs=0.06)
    reference = two.fetch(two.resolve("churn:1")).profile()
    live = reference.empty()
    live.add({"x": np.zeros(2000)}, {"prediction": np.full(2000, 0.97)})
    window(two, 2000, parts=(parts_of(live.inputs), parts_of(live.outputs)))
    narrow = drafted(two).plan.scores
    assert narrow is not None and len(narrow.edges) < len(scores.edges), "what is never predicted needs no bins"


def test_a_small_reference_says_what_cannot_be_claimed(registry: Registry, make: Make) -> None:
    for text in ("one", "two"):
        registry.register(make(text, profile=profiled(20)), "churn")
    made, notes = draft(registry, "churn", 2)
    assert made.plan.guards == ("errors", "invalid")
    assert "not guarded: scores: 20 rows known of prediction, and how it is distributed takes 200" in notes


def bundle_like(outputs: list[Counts]) -> Any:
    class Like:
        def profile(self) -> Profile:
            return Profile(outputs=outputs)

    return Like()


def test_the_output_that_tells_most_is_watched() -> None:
    classes = Counts(field="prediction", kind="category", values=["no", "yes"], counts=[900, 100])
    likely = [
        Counts(field="probabilities", part=name, at=at, edges=[0.0, 0.5], maximum=1.0, counts=[500, 500])
        for at, name in enumerate(("no", "yes", "maybe"))
    ]
    binary, _ = freezing._scores(bundle_like([classes, *likely[:2]]), [])
    assert binary is not None and (binary.field, binary.at) == ("probabilities", 1)
    several, _ = freezing._scores(bundle_like([classes, *likely]), [])
    assert several == Scores(field="prediction", values=("no", "yes"))
    nothing, why = freezing._scores(bundle_like([Counts(field="text", kind="skipped")]), [])
    assert nothing is None and why == "no output is a number or a class whose distribution is known"


def counted(scores: Scores, values: Any) -> list[int]:
    places = scores.places(values)
    found: list[int] = np.bincount(places[places >= 0], minlength=scores.bins).tolist()
    return found


def test_scores_are_counted_on_their_bins() -> None:
    numbers = Scores(field="p", edges=(0.0, 0.5, 1.0))
    values = np.array([-1.0, 0.0, 0.49, 0.5, 1.0, 7.0, np.nan, np.inf])
    assert counted(numbers, values) == [1, 2, 1, 3]
    assert counted(Scores(field="p", at=1, edges=(0.5,)), np.array([[0.9, 0.1], [0.2, 0.8]])) == [1, 1]
    texts = Scores(field="c", values=("no", "yes"))
    assert counted(texts, np.array(["yes", "no", "yes", "new", None], dtype=object)) == [1, 2, 1]
    assert texts.names == ("no", "yes", "others")


def test_sets_of_bins_are_what_their_names_say() -> None:
    scores = Scores(field="p", edges=(0.0, 0.5, 1.0))
    named = dict(zip(scores.names, scores.sets([1, 2, 4, 8]), strict=True))
    assert named == {
        "below 0": 1, "0 to 0.5": 2, "0.5 to 1": 4, "from 1": 8,
        "below 0.5": 3, "below 1": 7, "from 0": 14, "from 0.5": 12,
    }  # fmt: skip
    assert sum(scores.sets([])) == 0
