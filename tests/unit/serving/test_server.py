"""A whole server: what it serves, how it follows the registry, how it starts and stops."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelyard.errors import Conflict, InvalidInput, ModelFailed, NotFound, RemoteFailed
from modelyard.schema import Field, Signature
from modelyard.serving.server import Server
from modelyard.testing.memory import MemoryBundle
from receivers import until

from .conftest import MemorySource, classifier, linear

Serve = Callable[..., Server]
ROW = {"x1": 1.5, "x2": 2}


def ask(server: Server, path: str, body: Any = None, method: str = "") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method or ("GET" if body is None else "POST"), path, data)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if "json" in answer.headers["content-type"] else text.decode()
    finally:
        connection.close()


class TestWhatIsServed:
    def test_one_model_needs_no_name(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        status, answer = ask(serve("lin"), "/predict", ROW)
        assert status == 200
        assert (answer["prediction"], answer["model"], answer["version"]) == (6.5, "lin", 1)

    def test_several_models_do(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        source.add("cls", classifier())
        server = serve("lin", "cls")
        status, answer = ask(server, "/predict", ROW)
        assert status == 404
        assert "cls, lin" in answer["error"]["message"]
        assert "/models/cls/predict" in answer["error"]["hint"]
        assert ask(server, "/models/lin/predict", ROW)[1]["prediction"] == 6.5
        assert ask(server, "/models/cls/predict", {"x1": 0.75, "x2": 0})[1]["probabilities"] == {
            "no": 0.25,
            "yes": 0.75,
        }

    def test_versions_and_aliases(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear(1), "production")
        source.add("lin", linear(10), "staging")
        server = serve("lin@staging", "lin@production")
        assert ask(server, "/models/lin/predict", ROW)[1]["version"] == 1
        assert ask(server, "/models/lin/versions/2/predict", ROW)[1]["prediction"] == 65
        assert ask(server, "/models/lin/aliases/staging/predict", ROW)[1]["version"] == 2
        status, answer = ask(server, "/models/lin/versions/3/predict", ROW)
        assert (status, answer["error"]["message"]) == (404, "no such version of lin on this server: 3 (known: 1, 2)")
        assert ask(server, "/models/lin/aliases/stagin/predict", ROW)[1]["error"]["hint"] == "did you mean staging?"
        assert ask(server, "/models/line/predict", ROW)[0] == 404

    def test_the_index_and_the_models(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear(metrics={"rmse": 0.5}), "production")
        server = serve("lin@production")
        assert ask(server, "/")[1]["models"] == {"lin": "/models/lin"}
        (model,) = ask(server, "/models")[1]["models"]
        (version,) = model["versions"]
        assert version["version"] == 1 and version["aliases"] == ["production"]
        assert version["signature"]["inputs"][0] == {"name": "x1", "dtype": "float64"}
        assert version["metrics"] == {"rmse": 0.5}
        assert ask(server, "/models/lin")[1] == model
        assert ask(server, "/models/lina")[0] == 404

    def test_a_bad_request_is_told_what_is_wrong(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        status, answer = ask(serve("lin"), "/predict", {"x1": "a"})
        assert status == 400
        assert answer["error"]["code"] == "invalid_input"
        assert {"path": "x1", "expected": "a number (float64)", "got": 'the text "a"'} in answer["error"]["problems"]
        assert answer["request_id"]


class TestFollowing:
    def test_a_promotion_comes_into_force(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear(1), "production")
        server = serve("lin@production")
        assert ask(server, "/predict", ROW)[1]["version"] == 1
        source.add("lin", linear(10))
        source.promote("lin", 2)
        until(lambda: ask(server, "/predict", ROW)[1]["version"] == 2)
        assert ask(server, "/predict", ROW)[1]["prediction"] == 65
        source.promote("lin", 1)
        until(lambda: ask(server, "/predict", ROW)[1]["version"] == 1)

    def test_the_old_version_is_let_go(self, source: MemorySource, serve: Serve) -> None:
        import gc
        import weakref

        source.add("lin", linear(1), "production")
        server = serve("lin@production")
        ask(server, "/predict", ROW)
        old = weakref.ref(server.catalog.table.versions[0])
        source.add("lin", linear(10), "production")
        until(lambda: ask(server, "/predict", ROW)[1]["version"] == 2)

        def gone() -> bool:
            gc.collect()
            return old() is None

        until(gone)

    def test_a_reference_without_alias_follows_the_newest(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear(1))
        server = serve("lin")
        source.add("lin", linear(10))
        until(lambda: ask(server, "/predict", ROW)[1]["version"] == 2)

    @pytest.mark.parametrize("bad", ["raises", "breaks its golden rows"])
    def test_a_version_that_does_not_load_leaves_the_old_one(
        self, source: MemorySource, serve: Serve, bad: str
    ) -> None:
        source.add("lin", linear(1), "production")
        server = serve("lin@production")
        if bad == "raises":
            source.add("lin", ModelFailed("the file is broken"), "production")
        else:
            wrong = linear(10)
            wrong.golden()
            wrong._function = lambda c: {"prediction": c["x1"]}
            source.add("lin", wrong, "production")
        until(lambda: bool(server.catalog.faults()))
        status, told = ask(server, "/health/ready")
        assert status == 200  # it serves, as declared before
        assert "version 2 of lin cannot be served" in told["faults"]["lin@production"]
        assert "version 1 goes on serving" in told["faults"]["lin@production"]
        assert ask(server, "/predict", ROW)[1]["version"] == 1
        assert 'modelyard_failed_loads_total{model="lin"} 1' in ask(server, "/metrics")[1]
        (line,) = [line for line in server.lines() if line["event"] == "load failed"]  # type: ignore[attr-defined]
        assert line["kept"] == "1"
        source.promote("lin", 1)
        until(lambda: not server.catalog.faults())

    def test_a_registry_that_is_gone_stops_nothing(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear(1), "production")
        server = serve("lin@production")
        source.gone = RemoteFailed("the database does not answer")
        until(lambda: bool(server.catalog.registry_fault))
        assert ask(server, "/predict", ROW)[0] == 200
        status, told = ask(server, "/health/ready")
        assert (status, told["registry"]) == (200, "the database does not answer")
        assert "modelyard_registry_up 0" in ask(server, "/metrics")[1]
        source.gone = None
        source.add("lin", linear(10), "production")
        until(lambda: ask(server, "/predict", ROW)[1]["version"] == 2)
        until(lambda: "registry" not in ask(server, "/health/ready")[1])

    def test_no_request_is_lost_or_mixed_up_while_versions_flip(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear(1), "production")
        source.add("lin", linear(10))
        server = serve("lin@production")
        stop, faults, seen = threading.Event(), [], Counter[int]()

        def call() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            while not stop.is_set():
                connection.request("POST", "/predict", json.dumps(ROW))
                response = connection.getresponse()
                answer = json.loads(response.read())
                if response.status != 200 or answer["prediction"] != {1: 6.5, 2: 65.0}[answer["version"]]:
                    faults.append(answer)
                seen[answer.get("version")] += 1
            connection.close()

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in (2, 1, 2, 1, 2):
            source.promote("lin", number)
            until(lambda number=number: server.catalog.table.versions[0].version == str(number))  # type: ignore[misc]
            before = seen[number]
            until(lambda number=number, before=before: seen[number] > before)  # type: ignore[misc]
        stop.set()
        for thread in threads:
            thread.join()
        assert not faults
        assert set(seen) == {1, 2}


class TestHealth:
    def test_live_and_ready(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        server = serve("lin")
        assert ask(server, "/health/live") == (200, {"live": True})
        status, told = ask(server, "/health/ready")
        assert status == 200 and told["ready"] is True
        assert told["models"][0]["name"] == "lin"

    def test_not_ready_while_a_model_loads(self, source: MemorySource) -> None:
        gate = threading.Event()
        slow = linear()
        load = slow.load
        slow.load = lambda **o: gate.wait(60) and load(**o)  # type: ignore[assignment, method-assign]
        source.add("lin", slow)
        server = Server(["lin"], source=lambda: source, port=0)
        thread = threading.Thread(target=server.start)
        thread.start()
        try:
            until(lambda: server.port != 0)
            assert ask(server, "/health/live")[0] == 200
            status, told = ask(server, "/health/ready")
            assert (status, told["ready"], told["faults"]) == (503, False, {"lin": "not loaded yet"})
            status, told = ask(server, "/predict", ROW)
            assert (status, told["error"]["code"]) == (503, "not_ready")
            assert ask(server, "/v2/health/ready")[0] == 503
            gate.set()
            thread.join(60)
            assert ask(server, "/health/ready")[0] == 200
            assert ask(server, "/predict", ROW)[0] == 200
        finally:
            gate.set()
            server.stop()


class TestMetrics:
    def test_every_family_parses_and_counts(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear(), "production")
        server = serve("lin@production")
        for _ in range(10):
            ask(server, "/predict", ROW)
        ask(server, "/predict", [ROW, ROW])
        ask(server, "/predict", {"x1": 1})
        ask(server, "/nothing")
        families = {f.name: f for f in text_string_to_metric_families(ask(server, "/metrics")[1])}
        counts = {s.labels["code"]: s.value for s in families["modelyard_requests"].samples}
        assert counts == {"ok": 11, "invalid_input": 1}
        assert families["modelyard_rows"].samples[0].value == 12
        assert families["modelyard_refused"].samples[0].labels == {"code": "not_found"}
        latency = {s.labels.get("le", s.name): s.value for s in families["modelyard_request_seconds"].samples}
        assert latency["+Inf"] == latency["modelyard_request_seconds_count"] == 11
        stages = {(s.labels["stage"], s.name[24:]): s.value for s in families["modelyard_stage_seconds"].samples}
        for stage in ("decode", "queue", "predict", "encode"):
            assert 0 < stages[stage, "sum"] < 60 and stages[stage, "count"] == stages[stage, "bucket"] == 11
        info = families["modelyard_model_info"].samples[0].labels
        assert (info["model"], info["version"], info["platform"]) == ("lin", "1", "memory")
        assert families["modelyard_ready"].samples[0].value == 1
        assert families["process_resident_memory_bytes"].samples[0].value > 1e6


class TestLogs:
    def test_errors_are_logged_with_their_request_id_and_successes_are_not(
        self, source: MemorySource, serve: Serve
    ) -> None:
        source.add("lin", linear())
        server = serve("lin")
        ask(server, "/predict", ROW)
        answer = ask(server, "/predict", {"x1": 1})[1]
        lines = [line for line in server.lines() if line["event"] == "request"]  # type: ignore[attr-defined]
        assert [line["request_id"] for line in lines] == [answer["request_id"]]
        assert (lines[0]["status"], lines[0]["code"], lines[0]["target"]) == (400, "invalid_input", "/predict")

    def test_all_or_none_may_be(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        for access_log, count in (("all", 2), ("off", 0)):
            server = serve("lin", access_log=access_log)
            ask(server, "/predict", ROW)
            ask(server, "/predict", {"x1": 1})
            assert len([x for x in server.lines() if x["event"] == "request"]) == count  # type: ignore[attr-defined]
        with pytest.raises(InvalidInput):
            serve("lin", access_log="some")

    def test_a_failing_model_is_logged_with_its_trace(self, source: MemorySource, serve: Serve) -> None:
        bundle = linear()
        source.add("lin", bundle)
        server = serve("lin")

        def fail(columns: Any) -> Any:
            raise ZeroDivisionError("in the user's code")

        server.catalog.table.versions[0].predict = fail
        status, answer = ask(server, "/predict", ROW)
        assert (status, answer["error"]["code"]) == (500, "model_failed")
        assert "ZeroDivisionError" in answer["error"]["message"]
        (line,) = [line for line in server.lines() if line["event"] == "model failed"]  # type: ignore[attr-defined]
        assert line["request_id"] == answer["request_id"]
        assert "in the user's code" in line["trace"]

    def test_a_bug_is_answered_without_its_insides(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        server = serve("lin")

        def break_down() -> Any:
            raise RuntimeError("secret")

        server.metrics.tell = break_down  # type: ignore[assignment, method-assign]
        status, answer = ask(server, "/metrics")
        assert (status, answer["error"]["code"]) == (500, "internal")
        assert "secret" not in json.dumps(answer)
        assert any("secret" in line.get("trace", "") or line["event"] == "internal error" for line in server.lines())  # type: ignore[attr-defined]


class TestStartAndStop:
    def test_two_servers_on_one_port(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        server = serve("lin")
        with pytest.raises(Conflict) as caught:
            serve("lin", port=server.port)
        assert str(server.port) in caught.value.message
        assert "--port" in caught.value.hint
        assert ask(server, "/predict", ROW)[0] == 200

    def test_an_unknown_model(self, source: MemorySource, serve: Serve) -> None:
        source.add("churn", linear())
        with pytest.raises(NotFound) as caught:
            serve("chur")
        assert caught.value.hint == "did you mean churn?"

    def test_a_model_that_fails_to_load_stops_the_start(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", ModelFailed("no"))
        with pytest.raises(ModelFailed):
            serve("lin")

    def test_nothing_to_serve(self, serve: Serve) -> None:
        with pytest.raises(InvalidInput):
            serve()

    def test_an_address_that_is_not_ours(self, source: MemorySource, serve: Serve) -> None:
        with pytest.raises(InvalidInput):
            serve("lin", host="192.0.2.1")
        with pytest.raises(InvalidInput):
            serve("lin", port=70_000)

    def test_requests_in_flight_are_finished(self, source: MemorySource, serve: Serve) -> None:
        started, gate = threading.Event(), threading.Event()
        source.add("lin", linear())
        server = serve("lin")
        loaded = server.catalog.table.versions[0]
        predict = loaded.predict
        for _ in range(400):
            loaded.cost.learn(1, 1.0)

        def slow(columns: Any) -> Any:
            started.set()
            gate.wait(60)
            return predict(columns)

        loaded.predict = slow
        got: list[tuple[int, Any]] = []
        asking = threading.Thread(target=lambda: got.append(ask(server, "/predict", ROW)))
        asking.start()
        started.wait(60)
        idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        idle.connect()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        until(lambda: server.catalog.draining)
        with pytest.raises(OSError):
            until(lambda: bool(ask(server, "/health/live")) and False)
        assert not got
        gate.set()
        asking.join(60)
        stopping.join(60)
        assert got[0][0] == 200
        idle.close()
        assert server.lines()[-1]["event"] == "stopped"  # type: ignore[attr-defined]

    def test_a_request_that_never_ends_does_not_hold_the_stop_for_ever(
        self, source: MemorySource, serve: Serve
    ) -> None:
        started, gate = threading.Event(), threading.Event()
        source.add("lin", linear())
        server = serve("lin", drain_seconds=0.3)
        loaded = server.catalog.table.versions[0]
        for _ in range(400):
            loaded.cost.learn(1, 1.0)

        def hang(columns: Any) -> Any:
            started.set()
            gate.wait(120)

        loaded.predict = hang

        def give_up() -> None:
            with pytest.raises((http.client.HTTPException, OSError)):
                ask(server, "/predict", ROW)

        asking = threading.Thread(target=give_up)
        asking.start()
        started.wait(60)
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 60
        gate.set()
        asking.join(60)
        assert any("unanswered" in line["event"] for line in server.lines())  # type: ignore[attr-defined]

    def test_on_ready_is_told_when_it_is(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        ready: list[bool] = []
        serve("lin", on_ready=lambda server: ready.append(server.catalog.ready and bool(server.url)))
        assert ready == [True]

    def test_stopping_twice_is_fine(self, source: MemorySource, serve: Serve) -> None:
        source.add("lin", linear())
        with serve("lin") as server:
            assert ask(server, "/predict", ROW)[0] == 200
        server.stop()

    def test_plain_asyncio_serves_too(
        self, source: MemorySource, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import sys

        monkeypatch.setitem(sys.modules, "uvloop", None)
        source.add("lin", linear(), "production")
        server = serve("lin")
        assert type(server._loop).__module__.startswith("asyncio")
        for _ in range(10):
            assert ask(server, "/predict", ROW)[1]["prediction"] == 6.5
        assert ask(server, "/predict", {"x1": 1})[0] == 400


def test_openapi_keeps_models_apart_whose_names_are_alike(source: MemorySource, serve: Serve) -> None:
    from openapi_spec_validator import validate

    for name, bundle in (("a-b", linear()), ("a_b", classifier()), ("a.b", linear()), ("a_b_1", linear())):
        source.add(name, bundle)
    source.add("a_b", linear())  # a version of another signature, whose schemas might be called as those of a_b_1
    document = ask(serve("a-b", "a_b:all", "a.b", "a_b_1"), "/openapi.json")[1]
    validate(document)
    operations = [each[method]["operationId"] for each in document["paths"].values() for method in each]
    assert len(set(operations)) == len(operations)
    for path, told in document["paths"].items():
        if path.endswith("/predict"):
            answer = told["post"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
            properties = document["components"]["schemas"][answer.rpartition("/")[2]]["anyOf"][0]["properties"]
            assert ("probabilities" in properties) == (path == "/models/a_b/versions/1/predict"), path


def test_openapi_tells_the_bounds_that_are_kept(source: MemorySource, serve: Serve) -> None:
    fields = [
        ("half", "float16", False),
        ("single", "float32", False),
        ("gap", "int64", True),
        ("long", "int64", False),
    ]
    inputs = tuple(Field(name=name, dtype=dtype, nullable=nullable) for name, dtype, nullable in fields)
    signature = Signature(inputs=inputs, outputs=(Field(name="prediction", dtype="float64"),))
    sample = {"half": [1.0], "single": [1.0], "gap": [1], "long": [1]}
    source.add("m", MemoryBundle(signature, lambda c: {"prediction": c["single"] + 0.0}, sample))
    server = serve("m")
    record = ask(server, "/openapi.json")[1]["components"]["schemas"]["m_record"]["properties"]
    for name, told in record.items():
        low, high = told.get("minimum"), told.get("maximum")
        if low is None:
            low, high = (np.nextafter(told[bound], 0) for bound in ("exclusiveMinimum", "exclusiveMaximum"))
        for value, status in ((low, 200), (high, 200), (told.get("exclusiveMaximum", high + 1), 400)):
            assert ask(server, "/predict", {**dict.fromkeys(record, 1), name: value})[0] == status, (name, value)


def test_openapi_is_valid_and_has_the_real_schema(source: MemorySource, serve: Serve) -> None:
    from openapi_spec_validator import validate

    source.add("lin", linear(), "production")
    source.add("cls", classifier())
    document = ask(serve("lin@production", "cls"), "/openapi.json")[1]
    validate(document)
    assert "security" not in json.dumps(document) and '"401"' not in json.dumps(document)
    assert document["openapi"].startswith("3.1")
    schema = document["components"]["schemas"]["lin_record"]
    assert schema["properties"]["x1"] == {"type": "number"}
    assert schema["required"] == ["x1", "x2"] and schema["additionalProperties"] is False
    post = document["paths"]["/models/lin/aliases/production/predict"]["post"]
    example = post["requestBody"]["content"]["application/json"]["examples"]["record"]["value"]
    assert example == {"x1": 1.0, "x2": 3.0}
    assert "/predict" not in document["paths"]
    answer = document["components"]["schemas"]["cls_response"]["anyOf"][0]
    assert set(answer["properties"]["probabilities"]["properties"]) == {"no", "yes"}


def test_a_method_that_a_path_does_not_take_is_told_the_one_that_predicts(source: MemorySource, serve: Serve) -> None:
    source.add("lin", linear())
    status, told = ask(serve("lin"), "/predict", method="DELETE")
    assert status == 405 and told["error"]["hint"] == "use POST"
