"""What a server predicts reaches the recorder: every call, every refusal, by arm, in one process and in threads."""

from __future__ import annotations

import http.client
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import ModelFailed
from modelyard.recording import frames
from modelyard.recording.places import Places
from modelyard.recording.recorder import Recorder
from modelyard.recording.ring import RingReader
from modelyard.registry.routes import Arm, Pin
from modelyard.serving.server import Server
from modelyard.telemetry import Log
from receivers import until

from .conftest import linear
from .test_arms import RoutedSource, custom

pytest.importorskip("pyarrow")


@pytest.fixture
def source() -> RoutedSource:
    found = RoutedSource()
    found.add("m", linear(1.0))
    found.add("m", linear(10.0))
    found.aliases["m", "production"] = 1
    return found


def post(server: Server, body: Any, count: int = 1, path: str = "/predict", **headers: str) -> list[str]:
    """The ids of so many requests."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    ids = []
    for _ in range(count):
        connection.request("POST", path, body if isinstance(body, (str, bytes)) else json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
        ids.append(answer.headers["x-request-id"])
    connection.close()
    return ids


def wait_for_copies(server: Server, count: int) -> None:
    """Until shadows have answered so many requests."""
    lanes = server.application._shadows
    until(lambda: sum(call["requests"] for lane in lanes.values() for call in lane.history.recent()) >= count)


def recorded(folder: Path) -> list[dict[str, Any]]:
    """Everything that was noted below a folder, once its recorder has kept it."""
    from modelyard.recording.query import Query

    places = Places(folder)
    stopped = threading.Event()
    stopped.set()
    Recorder(places, None, Log("error", io.StringIO())).run(stopped)
    found = Query(places).run('select * from predictions order by "time", prediction_id')
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


ROW = {"x1": 1.0, "x2": 2.0}


def test_every_prediction_is_noted(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve("m", record=True, records=str(tmp_path))
    single = post(server, ROW, 20)
    (several,) = post(server, [ROW, {"x1": 2.0, "x2": 2.0}])
    (refused,) = post(server, {"x1": "no"})
    server.stop()
    rows = recorded(tmp_path)
    assert [row["prediction_id"] for row in rows if row["rows"] == 1 and row["code"] == "ok"] == single
    assert [row["prediction_id"] for row in rows if row["rows"] == 2] == [f"{several}.0", f"{several}.1"]
    assert [row["out.prediction"] for row in rows if row["rows"] == 2] == [6.0, 7.0]
    assert refused in {row["request_id"] for row in rows if row["code"] == "invalid_input"}
    assert {row["model"] for row in rows} == {"m"}
    assert all(row["total_s"] > 0 for row in rows if row["code"] == "ok")


def test_arms_and_shadows_are_told_apart(source: RoutedSource, serve: Callable[..., Server], tmp_path: Path) -> None:
    route = source.set(
        Arm(name="stable", version=1, weight=0.5), Arm(name="canary", version=2, weight=0.5),
        Arm(name="shadow", version=2, weight=1.0, mode="shadow"),
    )  # fmt: skip
    server = serve("m", record=True, records=str(tmp_path))
    ids = post(server, ROW, 40)
    wait_for_copies(server, 40)
    server.stop()
    rows = recorded(tmp_path)
    by_arm: dict[str, set[str]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], set()).add(row["request_id"])
        assert (row["alias"], int(row["revision"])) == ("production", route.revision)
        assert row["out.prediction"] == (6.0 if row["arm"] == "stable" else 60.0)
    assert set(by_arm) == {"stable", "canary", "shadow"}
    assert by_arm["stable"] | by_arm["canary"] == set(ids)
    assert not by_arm["stable"] & by_arm["canary"]
    assert by_arm["shadow"] == set(ids)


def test_who_was_sent_by_a_pin_is_told_apart_and_so_are_copies(
    source: RoutedSource, serve: Callable[..., Server], tmp_path: Path
) -> None:
    source.set(
        Arm(name="stable", version=1, weight=1.0), Arm(name="canary", version=2, weight=0.0),
        Arm(name="shadow", version=2, weight=1.0, mode="shadow"),
        pins=(Pin(key="header:x-group", value="beta", arm="canary"),),
    )  # fmt: skip
    server = serve("m", record=True, records=str(tmp_path))
    pinned, others = post(server, ROW, 5, **{"x-group": "beta"}), post(server, ROW, 5)
    wait_for_copies(server, 10)
    server.stop()
    found: dict[tuple[str, bool], set[str]] = {}
    for row in recorded(tmp_path):
        found.setdefault((row["arm"], row["pinned"]), set()).add(row["request_id"])
    assert found == {
        ("canary", True): set(pinned), ("shadow", True): set(pinned),
        ("stable", False): set(others), ("shadow", False): set(others),
    }  # fmt: skip


def test_a_version_that_cannot_be_loaded_is_told_where_a_rollout_wants_it(
    source: RoutedSource, serve: Callable[..., Server], tmp_path: Path
) -> None:
    def breaks(columns: Any) -> Any:
        raise ModelFailed("not this one")

    source.bundles["m"][1] = custom(breaks)
    arms = (Arm(name="stable", version=1, weight=0.5), Arm(name="canary", version=2, weight=0.5))
    source.set(*arms)
    server = serve("m", record=True, records=str(tmp_path))
    assert len(post(server, ROW, 10)) == 10
    by_hand = server.application.catalog.table.routes["m", "production"]
    assert by_hand.unserved == [], "somebody's own route is no rollout"
    route = source.set(*arms, rollout=7)
    until(lambda: server.application.catalog.table.routes["m", "production"].route == route)
    server.stop()
    (ring,) = Places(tmp_path).rings.glob("*.ring")
    found = [frames.read_unserved(head) for kind, head, _, _ in RingReader(ring).frames() if kind == frames.UNSERVED]
    assert {(each.model, each.arm) for each in found} == {("m", f"production/{route.revision}/canary")}
    assert "not this one" in found[0].reason


def test_nothing_is_noted_unless_told(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve("m", records=str(tmp_path))
    post(server, ROW)
    assert server.application.notes is None
    assert not list(tmp_path.iterdir())


def test_without_room_the_service_goes_on(serve: Callable[..., Server], tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file, where the folder should be")
    server = serve("m", record=True, records=str(taken))
    assert post(server, ROW, 3)
    assert any(line["event"] == "predictions are not recorded" for line in server.lines())  # type: ignore[attr-defined]


def test_threads_share_one_book(source: RoutedSource, tmp_path: Path) -> None:
    from modelyard.serving.wsgi import WsgiApp

    app = WsgiApp(["m"], source=lambda: source, record=True, records=str(tmp_path), log_stream=io.StringIO())

    def ask() -> None:
        for _ in range(50):
            status, _, _ = app.answer("POST", "/predict", "", {}, lambda most: json.dumps(ROW).encode())
            assert status == 200

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    app.stop()
    rows = recorded(tmp_path)
    assert len(rows) == 200 == len({row["prediction_id"] for row in rows})
