"""The admin API about models, endpoints, rollouts and trials: its answers are what its description says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from asgi import ask
from modelyard import api as my
from modelyard.admin.api import AdminApi
from modelyard.admin.openapi import describe
from modelyard.admin.table import OPERATIONS
from modelyard.errors import Refused
from modelyard.registry import Registry
from modelyard.registry.leases import CONTROL
from modelyard.registry.records import now
from modelyard.registry.stages import STAGE_BOUNDS
from modelyard.registry.windows import Counted, Window
from modelyard.rollouts.controller import Controller
from recorders import Recorder
from registries import Make

Ask = Callable[..., tuple[int, Any]]

DOCUMENT = describe(OPERATIONS, "", wants_keys=True)


def schema_of(method: str, path: str, status: int) -> dict[str, Any]:
    """What the description says that the answer is."""
    for template, operations in DOCUMENT["paths"].items():
        pattern = re.sub(r"{\w+}", "[^/]+", template)
        if re.fullmatch(pattern, path.partition("?")[0]) and method.lower() in operations:
            answers = operations[method.lower()]["responses"]
            told = answers["200" if status == 200 else "default"]
            return {**told["content"]["application/json"]["schema"], "components": DOCUMENT["components"]}
    raise AssertionError(f"{method} {path} is not described")


@pytest.fixture
def api(registry: Registry) -> Ask:
    """Asks as ``ada``, who may do everything or only look, and holds every answer to the description."""

    def made(method: str, path: str, body: Any = None, *, scope: str = "admin") -> tuple[int, Any]:
        def caller(_scope: Any, wanted: str) -> str:
            if wanted == "admin" and scope != "admin":
                raise Refused("this key allows to look only")
            return "ada"

        status, told = ask(AdminApi(registry, caller), method, path, body)
        Draft202012Validator(schema_of(method, path, status)).validate(told)
        return status, told

    return made


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two versions that take x and y, and one that takes x alone."""
    from sklearn.linear_model import LinearRegression

    folder = tmp_path_factory.mktemp("bundles")
    dice = np.random.default_rng(0)
    made = []
    for place, names in enumerate((["x", "y"], ["x", "y"], ["x"])):
        rows = dice.normal(size=(60, len(names)))
        model = LinearRegression().fit(rows, rows.sum(axis=1) * (place + 1))
        sample = {name: rows[:, i] for i, name in enumerate(names)}
        made.append(folder / str(place))
        my.package(model, sample=sample, out=made[-1], provenance={"data": "rows.csv", "seed": place})
    return made


@pytest.fixture
def line(registry: Registry, bundles: list[Path]) -> str:
    """``line`` with three versions, of which 1 is in production."""
    for bundle in bundles:
        my.register(bundle, "line", registry=registry)
    return "line"


def test_a_model_is_told_with_its_versions(api: Ask, registry: Registry, make: Make) -> None:
    for text, accuracy in (("one", 0.8), ("two", 0.9)):
        metrics = {"metric": "roc_auc", "held_out": {
            "accuracy": {"value": accuracy, "low": accuracy - 0.02, "high": accuracy + 0.02, "baseline": 0.5},
            "roc_auc": {"value": 0.7, "low": 0.6, "high": 0.8, "baseline": 0.5},
        }}  # fmt: skip
        registry.register(make(text, metrics=metrics), "churn")
    times = [0] * (len(STAGE_BOUNDS) + 1)
    times[20] = 40
    counted = Counted(requests=40, codes={"internal": 2}, rows=40, stages={"total": times})
    registry.windows.add([Window(model="churn", version="1", opened=now(), closed=now(), counted=counted)])
    status, told = api("GET", "/models/churn", scope="view")
    newest, oldest = told["versions"]
    assert (status, told["aliases"], newest["number"], oldest["aliases"]) == (200, {"production": 1}, 2, ["production"])
    assert list(newest["metrics"]) == ["roc_auc", "accuracy"], "what it was chosen by comes first"
    assert (oldest["traffic"]["requests"], oldest["traffic"]["failed"], newest["traffic"]["requests"]) == (40, 2, 0)
    assert oldest["traffic"]["p50"] == pytest.approx(STAGE_BOUNDS[20], rel=0.3)
    traffic = api("GET", "/models/churn/traffic?points=4")[1]
    assert traffic["failures"] == {"internal": [0, 0, 0, 2]} and traffic["codes"] == {"internal": 2}


def test_two_versions_are_compared(api: Ask, line: str) -> None:
    told = api("GET", "/models/line/compare?before=1&after=3", scope="view")[1]
    assert told["signature"] == ["input y is gone"]
    facts = {fact["name"]: (fact["before"], fact["after"]) for fact in told["lineage"]}
    assert facts["data"] == ("rows.csv", "rows.csv") and facts["seed"] == ("0", "2")
    assert told["packages"] == [] and told["same_packages"] > 0
    assert {"name": "reference", "before": "60", "after": "60"} in told["rows"]
    assert told["has_report"] == [False, False]
    assert api("GET", "/models/line/compare?before=1&after=2")[1]["signature"] == []


@pytest.mark.parametrize(
    ("name", "before", "after", "better", "is_clear"),
    [
        ("roc_auc", (0.70, 0.66, 0.74), (0.80, 0.76, 0.84), "after", True),
        ("roc_auc", (0.70, 0.60, 0.80), (0.75, 0.65, 0.85), "after", False),
        ("rmse", (1.0, 0.9, 1.1), (2.0, 1.8, 2.2), "before", True),
        ("roc_auc", (0.7, 0.6, 0.8), (0.7, 0.6, 0.8), "", False),
        ("profit", (1.0, 0.9, 1.1), (2.0, 1.8, 2.2), "", False),
    ],
)
def test_what_is_better_is_said_where_it_is_known(
    registry: Registry, make: Make, name: str, before: Any, after: Any, better: str, is_clear: bool
) -> None:  # fmt: skip
    from modelyard.admin.comparison import _metrics

    versions = []
    for text, (value, low, high) in (("one", before), ("two", after)):
        metrics = {"held_out": {name: {"value": value, "low": low, "high": high, "baseline": 0.0}}}
        versions.append(registry.register(make(text, metrics=metrics), "churn"))
    (found,) = _metrics(*versions)
    assert (found.better, found.is_clear) == (better, is_clear)


def test_aliases_move_and_history_says_why(api: Ask, line: str, registry: Registry) -> None:
    status, change = api("POST", "/models/line/promote", {"version": 2, "why": "kinder", "expect": 1})
    assert (status, change["from"], change["to"], change["who"]) == (200, 1, 2, "ada")
    status, error = api("POST", "/models/line/promote", {"version": 1, "expect": 1})
    assert (status, error["error"]["message"]) == (409, "line@production is line:2, not the expected 1")
    assert api("POST", "/models/line/rollback", {"why": "not kinder"})[1]["to"] == 1
    told = api("GET", "/models/line/history?most=2")[1]
    assert [(each["action"], each["why"]) for each in told] == [("rollback", "not kinder"), ("promote", "kinder")]
    assert api("POST", "/models/line/versions/2/tags", {"tags": {"owner": "ada"}})[1] == {"owner": "ada"}
    assert api("POST", "/models/line/versions/2/tags", {"tags": {"owner": None}})[1] == {}
    assert api("DELETE", "/models/line/versions/1")[1]["error"]["code"] == "refused"
    assert api("DELETE", f"/models/line/versions/3?why={quote('too few inputs')}") == (200, None)
    assert [each.number for each in registry.versions("line")] == [1, 2]
    assert registry.history("line")[-1].why == "too few inputs"


def test_a_report_is_told_as_it_is(api: Ask, registry: Registry, make: Make) -> None:
    registry.register(make("one", report="<h1>held out</h1>"), "churn")
    registry.register(make("two"), "churn")
    assert api("GET", "/models/churn/versions/1/report")[1]["html"] == "<h1>held out</h1>"
    status, told = api("GET", "/models/churn/versions/2/report")
    assert (status, told["error"]["message"]) == (404, "churn:2 has no report")


def test_routes_are_set_and_cleared(api: Ask, line: str) -> None:
    body = {
        "shares": {"1": 0.9, "2": 0.1}, "shadows": {"3": 0.5}, "key": "header:x-user-id",
        "pins": [{"key": "header:x-group", "value": "testers", "arm": "v2"}], "why": "by hand",
    }  # fmt: skip
    assert api("POST", "/models/line/route", body)[1]["revision"] == 1
    told = api("GET", "/models/line/answering", scope="view")[1]
    assert [(arm["name"], arm["weight"]) for arm in told["route"]["arms"]] == [
        ("v1", 0.9), ("v2", 0.1), ("v3-shadow", 0.5),
    ]  # fmt: skip
    status, error = api("POST", "/models/line/route", {"shares": {"1": 0.9}})
    assert (status, error["error"]["problems"][0]["path"]) == (400, "weights of the live arms")
    assert api("POST", "/models/line/route", {"shares": {"9": 1.0}})[0] == 404
    assert api("DELETE", "/models/line/route")[1] == {"cleared": True}
    assert api("DELETE", "/models/line/route")[1] == {"cleared": False}
    assert api("GET", "/models/line/answering")[1]["route"] is None
    assert api("GET", "/models/line/answering?alias=staging")[1]["version"] is None


@pytest.fixture
def loop(registry: Registry) -> Iterator[Controller]:
    lease = registry.lease(CONTROL, "test")
    assert lease.beat()
    yield Controller(registry, lease)


def test_a_rollout_is_started_followed_and_ended(api: Ask, line: str, registry: Registry, loop: Controller) -> None:
    status, error = api("POST", "/models/line/rollout", {"to": 3})
    assert (status, error["error"]["code"]) == (403, "refused")
    assert "line:3 has another signature than line:1: input y is gone" in error["error"]["message"]
    body = {"to": 2, "ramp": [0.05, 0.5], "guards": ["errors"], "stage_seconds": 1, "why": "newer"}
    status, started = api("POST", "/models/line/rollout", body)
    assert (status, started["rollout"]["state"], started["rollout"]["who"]) == (200, "running", "ada")
    assert api("POST", "/models/line/rollout", body)[0] == 409
    number = started["rollout"]["id"]
    assert api("POST", "/models/line/rollout/pause", {"why": "lunch"})[1]["action"] == "pause"
    assert api("POST", "/models/line/rollout/resume", {})[1]["state"] == "running"
    assert api("POST", "/models/line/rollout/end", {})[0] == 409
    recorder = Recorder()
    while registry.rollouts.find(number).stage == 0:
        recorder.write(registry, registry.rollouts.find(number), 1_000)
        loop.step()
    told = api("GET", "/models/line/answering")[1]["rollout"]
    assert (told["rollout"]["share"], told["decider"], told["findings"][0]["guard"]) == (0.5, "test", "errors")
    assert told["curve"] and told["verdict"] and told["decisions"][-1]["exposure"]["requests"] > 0
    assert api("POST", "/models/line/rollout/abort", {"why": "enough"})[1]["state"] == "aborted"
    told = api("GET", f"/rollouts/{number}", scope="view")[1]
    assert [each["action"] for each in told["decisions"]] == ["start", "pause", "resume", "advance", "abort"]
    assert (told["verdict"], told["rollout"]["ended"] is not None) == ("", True)
    assert [each["id"] for each in api("GET", "/models/line/answering")[1]["rollouts"]] == [number]


def test_a_row_is_tried_as_a_server_would_read_it(api: Ask, line: str) -> None:
    form = api("GET", "/models/line/versions/1/form", scope="view")[1]
    assert [field["name"] for field in form["inputs"]] == ["x", "y"] and set(form["example"]) == {"x", "y"}
    told = api("POST", "/models/line/versions/2/try", {"row": {"x": 1, "y": 2.5}})[1]
    assert told["outputs"]["prediction"] == pytest.approx(7.0) and told["seconds"] > 0
    status, error = api("POST", "/models/line/versions/2/try", {"row": {"x": "one", "z": 1}})
    assert (status, {each["path"] for each in error["error"]["problems"]}) == (400, {"x", "y", "z"})
    status, error = api("POST", "/models/line/versions/2/try", {"row": {}})
    assert status == 400


def test_who_looks_only_moves_nothing(api: Ask, line: str, registry: Registry) -> None:
    before = registry.marker()
    for method, path, body in (
        ("POST", "/models/line/promote", {"version": 2}), ("POST", "/models/line/rollback", {}),
        ("DELETE", "/models/line/versions/3", None), ("POST", "/models/line/versions/2/tags", {"tags": {"a": "b"}}),
        ("POST", "/models/line/route", {"shares": {"1": 1.0}}), ("DELETE", "/models/line/route", None),
        ("POST", "/models/line/rollout", {"to": 2}), ("POST", "/models/line/rollout/abort", {}),
        ("POST", "/models/line/versions/1/try", {"row": {"x": 1, "y": 1}}),
    ):  # fmt: skip
        assert api(method, path, body, scope="view")[0] == 403, path
    assert registry.marker() == before


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("GET", "/models/lin", None, 404, "no such model: lin"),
        ("GET", "/models/line/compare?before=1", None, 400, "missing required field `after`"),
        ("GET", "/models/line/compare?before=1&after=9", None, 404, "no such version of line: 9"),
        ("POST", "/models/line/promote", {"version": "two"}, 400, "version: expected int, got str"),
        ("POST", "/models/line/promote", {"version": 2, "alias": "a b"}, 400, "alias: expected"),
        ("POST", "/models/line/rollback", {}, 409, "nothing to roll back to"),
        ("POST", "/models/line/rollout", {"to": 1}, 409, "line@production is version 1 already"),
        ("POST", "/models/line/rollout", {"to": 2, "canary": 2.0}, 400, "canary: expected a fraction"),
        ("POST", "/models/line/rollout/abort", {}, 404, "no rollout of line@production is under way"),
        ("GET", "/rollouts/9", None, 404, "no such rollout: 9"),
    ],
)
def test_refusals_teach(api: Ask, line: str, method: str, path: str, body: Any, status: int, told: str) -> None:
    answered, error = api(method, path, body)
    assert answered == status
    assert told in error["error"]["message"]
