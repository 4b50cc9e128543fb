"""Several versions share the requests of an alias: by chance, by what sticks, by pins; and shadows get copies."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from modelyard.errors import ModelFailed, NotReady
from modelyard.registry.routes import Arm, Pin, Route
from modelyard.schema import Field, Signature
from modelyard.serving.arms import Routed, fits_of, point_of
from modelyard.serving.server import Server
from modelyard.testing.memory import MemoryBundle
from receivers import waited

from .conftest import INPUTS, MemorySource, linear

ROW = {"x1": 1.0, "x2": 2.0}


class RoutedSource(MemorySource):
    """Its aliases may have routes."""

    def __init__(self) -> None:
        super().__init__()
        self.routes: dict[tuple[str, str], Route] = {}

    def route(self, model: str, alias: str) -> Route | None:
        return self.routes.get((model, alias))

    def set(self, *arms: Arm, **options: Any) -> Route:
        route = Route(model="m", arms=arms, revision=self.changes + 1, salt="s", **options)
        self.routes["m", "production"] = route
        self.changes += 1
        return route


def custom(predict: Callable[[Any], Any]) -> MemoryBundle:
    signature = Signature(inputs=INPUTS, outputs=(Field(name="prediction", dtype="float64"),))
    return MemoryBundle(signature, predict, {"x1": [3.0], "x2": [4.0]})


def stable(weight: float) -> Arm:
    return Arm(name="stable", version=1, weight=weight)


def canary(weight: float) -> Arm:
    return Arm(name="canary", version=2, weight=weight)


@pytest.fixture
def source() -> RoutedSource:
    found = RoutedSource()
    found.add("m", linear(1.0))
    found.add("m", linear(10.0))
    found.aliases["m", "production"] = 1
    return found


def answers(server: Server, count: int = 1, **headers: str) -> Counter[float]:
    """What so many requests were answered, by prediction: 6 from the first version, 60 from the second."""
    found: Counter[float] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for _ in range(count):
        connection.request("POST", "/predict", json.dumps(ROW), headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        found[told["prediction"] if answer.status == 200 else answer.status] += 1
    connection.close()
    return found


def wait_for(server: Server, expected: set[float]) -> None:
    """Until a change of the route is in force."""
    assert waited(lambda: set(answers(server, 60)) == expected), f"never saw exactly {expected}"


def test_an_alias_without_a_route_has_one_version(source: RoutedSource, serve: Callable[..., Server]) -> None:
    assert answers(serve("m"), 50) == {6.0: 50}


def test_requests_are_shared_by_weight(source: RoutedSource, serve: Callable[..., Server]) -> None:
    source.set(stable(0.7), canary(0.3))
    found = answers(serve("m@production"), 2000)
    assert set(found) == {6.0, 60.0}
    assert 480 < found[60.0] < 720  # 600, and six standard deviations to each side


def test_a_new_route_is_followed(source: RoutedSource, serve: Callable[..., Server]) -> None:
    server = serve("m")
    assert set(answers(server, 20)) == {6.0}
    source.set(stable(0.5), canary(0.5))
    wait_for(server, {6.0, 60.0})
    source.set(stable(0.0), canary(1.0))
    wait_for(server, {60.0})
    source.set(stable(1.0), canary(0.0))
    wait_for(server, {6.0})
    del source.routes["m", "production"]
    source.promote("m", 2)
    wait_for(server, {60.0})


def test_a_version_that_is_named_is_not_parted(source: RoutedSource, serve: Callable[..., Server]) -> None:
    source.set(stable(0.0), canary(1.0))
    server = serve("m")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for version, expected in ((1, 6.0), (2, 60.0)):
        connection.request("POST", f"/models/m/versions/{version}/predict", json.dumps(ROW))
        assert json.loads(connection.getresponse().read())["prediction"] == expected
    connection.close()


def test_clients_stick_by_a_header(source: RoutedSource, serve: Callable[..., Server]) -> None:
    source.set(stable(0.5), canary(0.5), key="header:X-User")
    server = serve("m")
    first = {user: answers(server, 3, **{"x-user": user}) for user in map(str, range(60))}
    assert all(len(found) == 1 for found in first.values())
    sides = Counter(next(iter(found)) for found in first.values())
    assert min(sides[6.0], sides[60.0]) > 10
    assert all(next(iter(first[u])) == (6.0 if point_of(u, "s") < 0.5 else 60.0) for u in first)
    assert len(answers(server, 60)) == 2  # who has no such header is given by chance


def test_clients_stick_by_a_column(source: RoutedSource, serve: Callable[..., Server]) -> None:
    source.set(stable(0.5), canary(0.5), key="column:x1")
    server = serve("m")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    scales = Counter[float]()
    for x1 in range(40):
        found = set()
        for _ in range(3):
            connection.request("POST", "/predict", json.dumps({"x1": x1, "x2": 2}))
            found.add(json.loads(connection.getresponse().read())["prediction"] / (x1 + 5))
        assert len(found) == 1
        scales[round(found.pop())] += 1
    assert min(scales[1], scales[10]) > 5
    connection.request("POST", "/predict", json.dumps({"x2": 2}))
    answer = connection.getresponse()
    assert answer.status == 400
    assert "x1" in answer.read().decode()
    connection.close()


def test_pins_win(source: RoutedSource, serve: Callable[..., Server]) -> None:
    source.set(stable(1.0), canary(0.0), pins=(Pin(key="header:x-group", value="beta", arm="canary"),))
    server = serve("m")
    assert answers(server, 20, **{"x-group": "beta"}) == {60.0: 20}
    assert answers(server, 20, **{"x-group": "alpha"}) == {6.0: 20}


def test_a_column_pins_where_no_header_does(source: RoutedSource, serve: Callable[..., Server]) -> None:
    pins = (
        Pin(key="column:x1", value="10..20", arm="canary"), Pin(key="column:x1", value="7", arm="canary"),
        Pin(key="header:x-group", value="alpha", arm="stable"),
    )  # fmt: skip
    source.set(stable(1.0), canary(0.0), pins=pins)
    server = serve("m")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def scale(x1: Any, headers: dict[str, str] | None = None) -> float:
        connection.request("POST", "/predict", json.dumps({"x1": x1, "x2": 2}), headers or {})
        return round(json.loads(connection.getresponse().read())["prediction"] / (x1 + 5))

    assert [scale(x1) for x1 in (6.9, 7, 9.99, 10, 15, 20.0, 20.01)] == [1, 10, 1, 10, 10, 10, 1]
    assert scale(15, {"x-group": "alpha"}) == 1
    connection.request("POST", "/predict", json.dumps({"x1": "much", "x2": 2}))
    answer = connection.getresponse()
    assert answer.status == 400 and "x1" in answer.read().decode()
    connection.close()


@pytest.mark.parametrize(
    ("field", "value", "fitting", "others"),
    [
        (Field(name="c", dtype="string"), "NO", ["NO"], ["no", "SE", ""]),
        (Field(name="c", dtype="int64"), "1000..", ["1000", "1e9"], ["999", ""]),
        (Field(name="c", dtype="float64", nullable=True), "..0", ["-0.5", "0.0"], ["0.1", ""]),
        (Field(name="c", dtype="bool"), "true", ["True"], ["False", ""]),
        (Field(name="c", dtype="bool", nullable=True), "False", ["0.0"], ["1.0", ""]),
    ],
)
def test_what_a_pin_means_of_a_column(field: Field, value: str, fitting: list[str], others: list[str]) -> None:
    fits = fits_of(Pin(key="column:c", value=value, arm="stable"), field)
    assert all(map(fits, fitting)) and not any(map(fits, others))


def test_a_shadow_gets_copies_and_changes_nothing(source: RoutedSource, serve: Callable[..., Server]) -> None:
    asked = threading.Semaphore(0)

    def fails(columns: Any) -> Any:
        if columns["x1"][0] == ROW["x1"] and columns["x2"][0] == ROW["x2"]:
            asked.release(columns.rows)
            raise ModelFailed("the shadow fails")
        return {"prediction": columns["x1"]}

    source.bundles["m"][1] = custom(fails)
    source.set(stable(1.0), Arm(name="shadow", version=2, weight=1.0, mode="shadow"))
    server = serve("m")
    assert answers(server, 50) == {6.0: 50}
    for _ in range(50):
        assert asked.acquire(timeout=60)


def test_a_slow_shadow_slows_nobody_and_is_bounded(source: RoutedSource, serve: Callable[..., Server]) -> None:
    gate, calls = threading.Event(), Counter[str]()

    def waits(columns: Any) -> Any:
        if columns["x1"][0] == ROW["x1"] and columns["x2"][0] == ROW["x2"]:
            calls["begun"] += 1
            gate.wait(60)
        return {"prediction": columns["x1"]}

    source.bundles["m"][1] = custom(waits)
    source.set(stable(1.0), Arm(name="shadow", version=2, weight=1.0, mode="shadow"))
    server = serve("m")
    try:
        assert answers(server, 1000) == {6.0: 1000}  # more than may wait for the shadow
        waiting = sum(lane.in_flight for lane in server.application._shadows.values())
        assert 1 <= waiting <= 300
    finally:
        gate.set()


def test_an_arm_that_cannot_be_loaded_leaves_its_share_to_the_first(
    source: RoutedSource, serve: Callable[..., Server]
) -> None:
    source.bundles["m"][1] = ModelFailed("broken bundle")
    source.set(stable(0.5), canary(0.5))
    server = serve("m")
    assert answers(server, 100) == {6.0: 100}
    assert any("broken bundle" in why for why in server.catalog.faults().values())


def test_while_the_registry_is_away_the_route_stays(source: RoutedSource, serve: Callable[..., Server]) -> None:
    source.set(stable(0.5), canary(0.5))
    server = serve("m")
    source.gone = NotReady("the registry is away")
    time.sleep(0.2)
    assert set(answers(server, 60)) == {6.0, 60.0}
    source.gone = None
    source.changes += 1
    wait_for(server, {6.0, 60.0})


def test_points() -> None:
    points = [point_of(str(i), "salt") for i in range(20_000)]
    assert all(0 <= point < 1 for point in points)
    assert abs(sum(points) / len(points) - 0.5) < 0.01
    assert point_of("a", "salt") == point_of("a", "salt") != point_of("a", "other")


@pytest.mark.parametrize("weights", [(1.0,), (0.9, 0.1), (0.2, 0.3, 0.5), (0.0, 1.0)])
def test_arms_divide_the_line(weights: tuple[float, ...]) -> None:
    arms = tuple(Arm(name=f"a{i}", version=i, weight=w) for i, w in enumerate(weights))
    routed = Routed(Route(model="m", arms=arms), dict.fromkeys(range(len(weights)), object()))  # type: ignore[arg-type]
    points = [point for _, _, point in routed.live]
    assert points[-1] == 1.0
    shares = [b - a for a, b in pairwise([0.0, *points])]
    assert shares == pytest.approx(weights)


def test_who_left_the_first_arm_comes_back_only_as_another_shrinks() -> None:
    def side(weight: float) -> set[int]:
        arms = (stable(1 - weight), canary(weight))
        live = Routed(Route(model="m", arms=arms), {1: object(), 2: object()}).live  # type: ignore[dict-item]
        return {user for user in range(2000) if point_of(str(user), "s") >= live[0][2]}

    ramp = [side(weight) for weight in (0.01, 0.05, 0.25, 0.5, 1.0)]
    assert all(before <= after for before, after in pairwise(ramp))
    assert len(ramp[-1]) == 2000
