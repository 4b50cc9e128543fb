"""The gate: keys and their scopes, models and rates; the admin port; production mode."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import RateLimited, RemoteFailed
from modelyard.messages import Call
from modelyard.registry import Registry
from modelyard.serving import gate
from modelyard.serving.routing import Informing, Predicting
from modelyard.serving.server import Server
from modelyard.wires.native import NativeWire
from receivers import until

from .conftest import MemorySource, linear

Serve = Callable[..., Server]
ROW = json.dumps({"x1": 1.5, "x2": 2})
INFER = json.dumps({"inputs": [{"name": n, "shape": [1], "datatype": "FP64", "data": [1]} for n in ("x1", "x2")]})


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    opened = Registry.open()
    yield opened
    opened.close()


@pytest.fixture
def keyed(source: MemorySource, serve: Serve, registry: Registry) -> Callable[..., Server]:
    """A server of ``lin`` and ``risk`` that wants keys."""
    source.add("lin", linear())
    source.add("risk", linear(10))

    def start(*references: str, **options: Any) -> Server:
        return serve(*(references or ("lin", "risk")), **{"keys": True, "registry": registry, **options})

    return start


class Answer:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """One connection of a caller; ``key`` goes with every request."""

    def __init__(self, server: Server, key: str = "", header: str = "authorization") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self.headers: dict[str, str] = {}
        if key:
            self.headers = {header: f"Bearer {key}" if header == "authorization" else key}

    def __del__(self) -> None:
        self.connection.close()

    def ask(self, path: str, body: str | None = None, method: str = "", **headers: str) -> Answer:
        chosen = method or ("GET" if body is None else "POST")
        self.connection.request(chosen, path, body, {**self.headers, **headers})
        answer = self.connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())

    def predict(self, model: str = "lin") -> int:
        return self.ask(f"/models/{model}/predict", ROW).status


class AnyWire(NativeWire):
    """Has a path for whichever key."""

    name = "any"
    prefix = "/any"

    def match(self, method: str, path: str) -> Call | None:
        return Call("models", scope="any") if path == "/any" else None


OPEN = ["/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/lin/ready"]


class TestKeys:
    def test_health_and_readiness_need_none(self, keyed: Serve) -> None:
        caller = Caller(keyed())
        assert [caller.ask(path).status for path in OPEN] == [200] * len(OPEN)

    @pytest.mark.parametrize("path", ["/", "/models", "/models/lin", "/metrics", "/openapi.json", "/v2", "/nowhere"])
    def test_everything_else_does(self, path: str, keyed: Serve) -> None:
        answer = Caller(keyed()).ask(path)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "API key" in answer.body.decode()

    def test_any_key_may_ask_what_any_may(self, keyed: Serve, registry: Registry) -> None:
        server = keyed(wires=["native", AnyWire()])
        assert Caller(server).ask("/any").status == 401
        for scope in ("predict", "label", "admin"):
            _, text = registry.keys.create(scope, scopes=[scope])
            until(lambda text=text: Caller(server, text).ask("/any").status == 200)

    def test_predicting_does_in_the_words_of_each_wire(self, keyed: Serve) -> None:
        caller = Caller(keyed())
        native = caller.ask("/models/lin/predict", ROW)
        assert (native.status, native.json["error"]["code"]) == (401, "unauthenticated")
        assert "Authorization: Bearer KEY" in native.json["error"]["hint"]
        oip = caller.ask("/v2/models/lin/infer", INFER)
        assert oip.status == 401 and oip.json["error"].startswith("this server wants an API key")

    def test_the_description_says_so(self, keyed: Serve, registry: Registry) -> None:
        from openapi_spec_validator import validate

        _, text = registry.keys.create("shop")
        document = Caller(keyed(), text).ask("/openapi.json").json
        validate(document)
        kinds = document["components"]["securitySchemes"]
        assert (kinds["bearer"]["type"], kinds["bearer"]["scheme"]) == ("http", "bearer")
        assert (kinds["key"]["type"], kinds["key"]["in"], kinds["key"]["name"]) == ("apiKey", "header", "X-API-Key")
        assert document["security"] == [{"bearer": []}, {"key": []}]
        for path, operations in document["paths"].items():
            (operation,) = operations.values()
            is_open = path in OPEN
            assert operation.get("security") == ([] if is_open else None), path
            assert {"401", "403", "429"}.isdisjoint(operation["responses"]) == is_open, path

    @pytest.mark.parametrize("header", ["authorization", "x-api-key"])
    def test_a_key_opens(self, header: str, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("shop")
        caller = Caller(keyed(), text, header)
        assert [caller.predict() for _ in range(4)] == [200] * 4
        assert caller.ask("/v2/models/lin/infer", INFER).status == 200
        assert caller.ask("/models").status == 200
        assert caller.ask("/nowhere").status == 404

    def test_another_scheme_leaves_room_for_the_header_of_its_own(self, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("shop")
        server = keyed()
        proxied = Caller(server, text, "x-api-key").ask("/models", authorization="Basic abc")
        assert proxied.status == 200
        assert Caller(server).ask("/models", authorization=f"bearer  {text}").status == 200
        assert Caller(server).ask("/models", authorization=f"Basic {text}").status == 401

    @pytest.mark.parametrize("what", ["secret", "id", "form", "empty"])
    def test_a_wrong_key_is_none(self, what: str, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("shop")
        other = text[:-1] + ("A" if text[-1] != "A" else "B")
        wrong = {"secret": other, "id": "my_000000000000" + text[15:], "form": "letmein", "empty": "my__"}[what]
        answer = Caller(keyed(), wrong).ask("/models/lin/predict", ROW)
        assert answer.status == 401
        assert answer.json["error"]["message"] == "no such API key, or it was revoked, or it has expired"
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'

    @pytest.mark.parametrize("header", ["Content-Length: 50000000", "Transfer-Encoding: chunked"])
    @pytest.mark.parametrize("expects", ["", "Expect: 100-continue\r\n"])
    def test_who_has_none_need_not_send_a_body(self, header: str, expects: str, keyed: Serve) -> None:
        head = f"POST /models/lin/predict HTTP/1.1\r\nHost: x\r\n{expects}{header}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", keyed().port), 60) as caller:
            caller.sendall(head)
            assert caller.recv(100).startswith(b"HTTP/1.1 401 ")
            while caller.recv(65536):  # and then the connection ends
                pass

    @pytest.mark.parametrize("rate", ["", "1000/s"])
    def test_who_has_one_is_asked_for_it_where_there_is_something(
        self, rate: str, keyed: Serve, registry: Registry
    ) -> None:
        _, text = registry.keys.create("shop", rate=rate)
        told = f"Authorization: Bearer {text}\r\nExpect: 100-continue\r\nContent-Length: {len(ROW)}\r\n\r\n"
        server = keyed()
        for path, answered in (("/models/lin/predict", b"HTTP/1.1 100 "), ("/nowhere", b"HTTP/1.1 404 ")):
            with socket.create_connection(("127.0.0.1", server.port), 60) as caller:
                caller.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{told}".encode())
                assert caller.recv(100).startswith(answered)

    def test_what_was_remembered_of_another_key_does_not_help(self, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("shop")
        caller = Caller(keyed(), text)
        for _ in range(4):
            assert caller.predict() == 200
        caller.headers = {"authorization": "Bearer " + text[:-1] + "-"}
        assert caller.predict() == 401
        caller.headers = {}
        assert caller.predict() == 401


class TestScopes:
    def test_predicting_keys_do_not_operate(self, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("shop")
        caller = Caller(keyed(), text)
        for answer in (caller.ask("/metrics"), caller.ask("/debug/limits")):
            assert answer.status == 403
            assert answer.json["error"]["code"] == "refused"
            assert (
                "this key does not allow calls of the scope admin: it allows predict" in answer.json["error"]["message"]
            )
            assert answer.json["error"]["hint"] == "modelyard keys create NAME --scope predict,admin"

    def test_labelling_keys_do_not_predict(self, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("labels", scopes=["label"])
        assert Caller(keyed(), text).predict() == 403

    def test_admin_keys_may_all(self, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("operator", scopes=["admin"])
        caller = Caller(keyed(), text)
        assert caller.predict() == 200
        assert caller.ask("/metrics").status == 200


class TestModels:
    def test_a_key_for_one_model_sees_a_server_of_one(self, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("shop", models=["risk"])
        caller = Caller(keyed(), text)
        assert caller.predict("risk") == 200
        assert caller.ask("/predict", ROW).json["model"] == "risk"
        assert [model["name"] for model in caller.ask("/models").json["models"]] == ["risk"]
        assert caller.ask("/v2/models").json == {"models": ["risk"]}
        assert "/models/lin/predict" not in caller.ask("/openapi.json").json["paths"]

    def test_other_models_are_refused(self, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("shop", models=["risk"])
        caller = Caller(keyed(), text)
        for path in ("/models/lin/predict", "/models/nosuch/predict"):
            answer = caller.ask(path, ROW)
            assert answer.status == 403
            assert "it is for risk" in answer.json["error"]["message"]
        assert caller.ask("/models/lin").status == 403
        assert caller.ask("/v2/models/lin/infer", INFER).status == 403

    def test_no_answer_names_models_that_the_key_is_not_for(self, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("shop", models=["gone", "away"])
        caller = Caller(keyed(), text)
        for answer in (caller.ask("/predict", ROW), caller.ask("/models/gone/predict", ROW), caller.ask("/models")):
            assert "lin" not in answer.body.decode() and "risk" not in answer.body.decode()
        assert caller.ask("/models/gone/predict", ROW).status == 404


class TestLife:
    def test_a_new_key_opens_soon(self, keyed: Serve, registry: Registry) -> None:
        server = keyed()
        assert any(line["event"] == "there is no API key: nobody can call" for line in server.lines())  # type: ignore[attr-defined]
        _, text = registry.keys.create("shop")
        caller = Caller(server, text)
        until(lambda: caller.predict() == 200)

    def test_a_revoked_key_stops_working_soon(self, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("shop")
        _, kept = registry.keys.create("kept")
        server = keyed()
        caller, other = Caller(server, text), Caller(server, kept)
        assert [caller.predict() for _ in range(3)] == [200] * 3  # the head is known by heart now
        registry.keys.revoke("shop")
        until(lambda: caller.predict() == 401)
        assert other.predict() == 200

    def test_a_key_expires(self, keyed: Serve, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
        _, text = registry.keys.create("shop", expires="1h")
        caller = Caller(keyed(), text)
        assert [caller.predict() for _ in range(3)] == [200] * 3
        monkeypatch.setattr(gate, "time", lambda: time.time() + 3601)
        until(lambda: caller.predict() == 401)

    def test_keys_hold_while_the_registry_does_not_answer(
        self, keyed: Serve, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, text = registry.keys.create("shop")
        server = keyed()
        caller = Caller(server, text)

        def fail() -> int:
            raise RemoteFailed("gone")

        with monkeypatch.context() as patched:
            patched.setattr(registry, "marker", fail)
            told = "the registry does not answer; keys stay as they are"
            until(lambda: any(line["event"] == told for line in server.lines()))  # type: ignore[attr-defined]
            assert caller.predict() == 200
        registry.keys.revoke("shop")
        until(lambda: caller.predict() == 401)

    def test_a_server_does_not_start_where_keys_cannot_be_read(
        self, keyed: Serve, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> int:
            raise RemoteFailed("gone")

        monkeypatch.setattr(registry, "marker", fail)
        with pytest.raises(RemoteFailed, match="gone"):
            keyed()


class TestRates:
    def test_a_bucket_lets_through_what_it_holds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [100.0]
        monkeypatch.setattr(gate, "monotonic", lambda: now[0])
        bucket = gate.Bucket(10, 1.0)

        def taken() -> int:
            count = 0
            while True:
                try:
                    bucket.take()
                except RateLimited:
                    return count
                count += 1

        assert taken() == 10
        now[0] += 0.25
        assert taken() == 2
        now[0] += 0.05
        assert taken() == 1
        now[0] += 1000
        assert taken() == 10

    def test_it_says_when_there_is_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate, "monotonic", lambda: 100.0)
        bucket = gate.Bucket(2, 60.0)
        bucket.take()
        bucket.take()
        with pytest.raises(RateLimited) as caught:
            bucket.take()
        assert caught.value.details["retry_after"] == 30
        assert caught.value.hint == "try again in 30 seconds"

    def test_too_many_calls_are_told_to_wait(self, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("shop", rate="3/h")
        _, free = registry.keys.create("free")
        server = keyed()
        caller = Caller(server, text)
        assert [caller.predict() for _ in range(3)] == [200] * 3
        for path, body in (("/models/lin/predict", ROW), ("/v2/models/lin/infer", INFER), ("/models", None)):
            answer = caller.ask(path, body)
            assert answer.status == 429
            assert 1100 < int(answer.headers["retry-after"]) <= 1200
            assert "this key has used up its calls for now" in answer.body.decode()
        assert Caller(server, text).predict() == 429  # it is the key's, not the connection's
        assert Caller(server, free).predict() == 200
        assert caller.ask("/health/ready").status == 200
        assert server.metrics.refused["rate_limited"] == 4

    def test_only_keys_with_a_rate_are_asked_each_time(self, keyed: Serve, registry: Registry) -> None:
        application = keyed().application

        def found(**options: Any) -> Any:
            _, text = registry.keys.create(f"key{len(registry.keys.list())}", **options)
            headers = {"authorization": f"Bearer {text}"}
            until(lambda: isinstance(application.endpoint("GET", "/models", headers), (Informing, gate.Limited)))
            return application.endpoint("POST", "/models/lin/predict", headers)

        assert isinstance(found(), Predicting)
        assert isinstance(found(rate="100/s"), gate.Limited)
        assert isinstance(found(models=["lin"]), Predicting)

    def test_changes_of_other_keys_do_not_fill_it(self, keyed: Serve, registry: Registry) -> None:
        _, text = registry.keys.create("shop", rate="2/h")
        server = keyed()
        caller = Caller(server, text)
        assert [caller.predict() for _ in range(3)] == [200, 200, 429]
        _, other = registry.keys.create("other")
        until(lambda: Caller(server, other).predict() == 200)
        assert caller.predict() == 429

    @pytest.mark.parametrize(("calls", "share", "each"), [(100, 4, 25), (2, 4, 1)])
    def test_processes_share_a_rate(self, calls: int, share: int, each: int, registry: Registry) -> None:
        key, _ = registry.keys.create("shop", rate=f"{calls}/h")
        grant = gate.Grant(key, "", None, share)  # type: ignore[arg-type]  # no router is asked
        assert grant.bucket is not None
        for _ in range(each):
            grant.bucket.take()
        with pytest.raises(RateLimited) as caught:
            grant.bucket.take()
        assert caught.value.details["retry_after"] == pytest.approx(3600 / calls * share, abs=1.5)


def test_without_any_of_it_there_is_no_gate(source: MemorySource, serve: Serve) -> None:
    source.add("lin", linear())
    assert serve("lin").application.gate is None
