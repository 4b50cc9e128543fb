"""What the Open Inference Protocol tells of the server and its models, and how it changes what is served."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from modelyard.errors import InvalidInput, ModelyardError, NotFound, NotReady, Refused
from modelyard.interfaces import Served, State
from modelyard.messages import Call, Message
from modelyard.testing.wires import KitCatalog
from modelyard.wires import Unimplemented
from modelyard.wires.oip import OipWire

WIRE = OipWire()


def call(method: str, path: str) -> Call:
    found = WIRE.match(method, path)
    assert found is not None, path
    return found


def ask(path: str, *, method: str = "GET", body: Any = None, catalog: KitCatalog | None = None) -> Any:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.loads(WIRE.inform(call(method, path), Message(data), catalog or KitCatalog()).body)


class Yard(KitCatalog):
    """A catalog with one version in each state, that notes what it is asked to change."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []

    def states(self) -> Sequence[State]:
        return [
            State(model="kit", version="3", state="ready"), State(model="kit", version="4", state="loading"),
            State(model="old", version="1", state="unloaded"), State(model="older", version="", state="unloading"),
            State(model="bad", version="2", state="failed", reason="its golden rows differ"),
        ]  # fmt: skip

    def load(self, reference: str) -> Served:
        self.asked.append(("load", reference))
        return self.served

    def unload(self, model: str) -> None:
        self.asked.append(("unload", model))


class TestPaths:
    @pytest.mark.parametrize(
        ("method", "path", "action", "scope"),
        [
            ("GET", "/v2", "server", "predict"), ("GET", "/v2/", "server", "predict"),
            ("GET", "/v2/health/live/", "live", "open"), ("GET", "/v2/health/ready", "ready", "open"),
            ("GET", "/v2/models/m/ready", "model_ready", "open"), ("GET", "/v2/models/stats", "stats", "predict"),
            ("GET", "/v2/models/m/versions/v1/config", "config", "predict"),
            ("POST", "/v2/models/m/infer", "predict", "predict"),
            ("POST", "/v2/models/m/versions/v1/infer/", "predict", "predict"),
            ("POST", "/v2/repository/models/m/load", "load", "admin"),
            ("POST", "/v2/repository/models/m/unload", "unload", "admin"),
        ],
    )  # fmt: skip
    def test_what_they_mean(self, method: str, path: str, action: str, scope: str) -> None:
        assert (call(method, path).action, call(method, path).scope) == (action, scope)
        assert call(method, path).is_slow == (action in ("load", "unload"))

    def test_names_are_decoded(self) -> None:
        found = call("POST", "/v2/models/a%2Fb%20c/versions/v1/infer")
        assert (found.model, found.version) == ("a/b c", "v1")

    @pytest.mark.parametrize("path", ["/v2x", "/v2/nothing", "/v2/models/m/infer/more", "/v2/health", "/v22/models"])
    def test_others_are_not_ours(self, path: str) -> None:
        assert WIRE.match("POST", path) is None and WIRE.match("GET", path) is None

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/v2/logging"), ("POST", "/v2/logging"), ("GET", "/v2/trace/setting"),
            ("POST", "/v2/models/m/trace/setting"), ("GET", "/v2/systemsharedmemory/status"),
            ("POST", "/v2/cudasharedmemory/region/r/register"), ("POST", "/v2/repository/r/index"),
            ("POST", "/v2/repository/r/models/m/load"), ("POST", "/v2/models/m/generate"),
        ],
    )  # fmt: skip
    def test_what_is_known_and_not_answered(self, method: str, path: str) -> None:
        with pytest.raises(Unimplemented) as caught:
            WIRE.inform(call(method, path), Message(b"{}"), KitCatalog())
        assert json.loads(WIRE.refuse(call(method, path), caught.value, "id").body)["error"]


class TestTold:
    def test_server(self) -> None:
        told = ask("/v2")
        assert told["name"] == "modelyard" and told["version"]
        assert {"binary_tensor_data", "model_repository", "statistics"} <= set(told["extensions"])

    def test_config(self) -> None:
        told = ask("/v2/models/kit/config")
        assert told["name"] == "kit" and told["platform"] == "memory" and told["max_batch_size"] == 0
        assert told["input"][1] == {"name": "city", "data_type": "TYPE_STRING", "dims": [-1]}
        assert told["output"][1] == {"name": "probabilities", "data_type": "TYPE_FP64", "dims": [-1, 2]}
        assert ask("/v2/models/kit/versions/3/config") == told
        with pytest.raises(NotFound):
            ask("/v2/models/kit/versions/4/config")

    @pytest.mark.parametrize("path", ["/v2/models/stats", "/v2/models/kit/stats", "/v2/models/kit/versions/3/stats"])
    def test_statistics(self, path: str) -> None:
        (told,) = ask(path)["model_stats"]
        assert (told["name"], told["version"], told["last_inference"]) == ("kit", "3", 1_700_000_000_000)
        assert (told["inference_count"], told["execution_count"]) == (5, 2)
        counts = told["inference_stats"]
        assert counts["success"] == {"count": 2, "ns": 10_000_000}
        assert counts["fail"]["count"] == 1
        assert [counts[name]["ns"] for name in ("queue", "compute_input", "compute_infer", "compute_output")] == [
            2_000_000, 1_000_000, 3_000_000, 4_000_000,
        ]  # fmt: skip
        assert [(one["batch_size"], one["compute_infer"]) for one in told["batch_stats"]] == [
            (1, {"count": 1, "ns": 1_000_000}), (4, {"count": 1, "ns": 2_000_000}),
        ]  # fmt: skip

    def test_statistics_of_nobody(self) -> None:
        with pytest.raises(NotFound):
            ask("/v2/models/nobody/stats")

    def test_readiness_of_a_model(self) -> None:
        assert ask("/v2/models/kit/ready", catalog=Yard()) == {"name": "kit", "ready": True}
        with pytest.raises(NotReady, match="the model bad is failed: its golden rows differ"):
            ask("/v2/models/bad/ready", catalog=Yard())
        with pytest.raises(NotReady, match="loading"):
            ask("/v2/models/kit/versions/4/ready", catalog=Yard())
        with pytest.raises(NotFound):
            ask("/v2/models/nobody/ready", catalog=Yard())


class TestRepository:
    def test_index(self) -> None:
        told = ask("/v2/repository/index", method="POST", catalog=Yard())
        assert told == [
            {"name": "kit", "version": "3", "state": "READY", "reason": ""},
            {"name": "kit", "version": "4", "state": "LOADING", "reason": ""},
            {"name": "old", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
            {"name": "older", "state": "UNLOADING", "reason": ""},
            {"name": "bad", "version": "2", "state": "UNAVAILABLE", "reason": "its golden rows differ"},
        ]
        assert ask("/v2/repository/index", method="POST", body={"ready": True}, catalog=Yard()) == told[:1]
        assert ask("/v2/repository/index", method="POST", body={"ready": False}, catalog=Yard()) == told

    @pytest.mark.parametrize("action", ["load", "unload"])
    @pytest.mark.parametrize("body", [None, {}, {"parameters": {}}, {"parameters": {"unload_dependents": True}}])
    def test_changes(self, action: str, body: Any) -> None:
        yard = Yard()
        told = ask(f"/v2/repository/models/k%3A4/{action}", method="POST", body=body, catalog=yard)
        assert told == {"name": "k:4", action: True}
        assert yard.asked == [(action, "k:4")]

    @pytest.mark.parametrize(
        "body",
        [b"[", b"[]", {"parameters": [1]}, {"parameters": {"config": "{}"}}, {"parameters": {"file:1/model": "AAAA"}}],
    )
    def test_what_is_refused(self, body: Any) -> None:
        yard = Yard()
        with pytest.raises(InvalidInput):
            ask("/v2/repository/models/kit/load", method="POST", body=body, catalog=yard)
        assert not yard.asked

    def test_errors_of_the_catalog_pass_through(self) -> None:
        class Closed(KitCatalog):
            def load(self, reference: str) -> Served:
                raise Refused("clients may not load models here", hint="start the server with --control on")

        with pytest.raises(Refused):
            ask("/v2/repository/models/kit/load", method="POST", catalog=Closed())
        with pytest.raises(NotFound):
            ask("/v2/repository/models/nobody/unload", method="POST")


def test_every_refusal_is_one_line_under_error() -> None:
    error = InvalidInput.at("inputs[0].shape", "[N]", "[]", hint="N is at least 1")
    told = json.loads(WIRE.refuse(None, error, "id").body)
    assert told == {"error": "inputs[0].shape: expected [N], got [] (hint: N is at least 1)"}
    assert isinstance(error, ModelyardError)
