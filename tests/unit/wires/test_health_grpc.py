"""``grpc.health.v1`` on bytes."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import InvalidInput, NotFound, NotReady
from modelyard.interfaces import Catalog, State
from modelyard.messages import Message
from modelyard.testing.wires import KitCatalog, KitServed
from modelyard.wires.health_grpc import HealthGrpcWire
from modelyard.wires.native import NativeWire

PATH = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


class Other(NativeWire):
    name = "other-grpc"
    prefix = "/other.Service/"


class Loading(KitCatalog):
    def find(self, model: str | None, version: str | None, alias: str | None) -> Any:
        raise NotReady("it loads")


class Failed(KitCatalog):
    """A model that is declared, and in this state."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self.state = state

    def states(self) -> list[State]:
        return [State(model="other", version="1", state=self.state)]


def check(service: str, catalog: Catalog | None = None, method: str = "Check") -> Message:
    wire = HealthGrpcWire([NativeWire(), Other()])
    call = wire.match("POST", PATH.replace("Check", method))
    assert call is not None and call.scope == "open" and call.is_watched == (method == "Watch")
    name = service.encode()
    return wire.inform(call, Message(b"\x0a" + bytes((len(name),)) + name), catalog or KitCatalog())


@pytest.mark.parametrize("service", ["", "kit", "other.Service", "grpc.health.v1.Health"])
def test_what_serves(service: str) -> None:
    answer = check(service)
    assert (answer.body, answer.code, answer.content_type) == (SERVING, "ok", "application/grpc")


@pytest.mark.parametrize("service", ["", "other.Service"])
def test_a_server_that_is_not_ready(service: str) -> None:
    assert check(service, KitCatalog(ready=False)).body == NOT_SERVING


def test_a_model_that_is_not_ready() -> None:
    assert check("kit", Loading()).body == NOT_SERVING


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_a_model_that_cannot_answer(method: str) -> None:
    assert check("kit", KitCatalog(KitServed(is_alive=False)), method).body == NOT_SERVING
    assert check("kit", KitCatalog(draining=True), method).body == NOT_SERVING
    for state in ("loading", "failed", "unloading"):
        assert check("other", Failed(state), method).body == NOT_SERVING


def test_a_model_that_is_gone() -> None:
    assert check("other", Failed("unloaded"), "Watch").body == SERVICE_UNKNOWN
    with pytest.raises(NotFound):
        check("other", Failed("unloaded"))


@pytest.mark.parametrize("service", ["", "kit", "other.Service", "nobody"])
def test_who_watches_is_told_the_same(service: str) -> None:
    expected = SERVICE_UNKNOWN if service == "nobody" else check(service).body
    assert check(service, None, "Watch").body == expected


@pytest.mark.parametrize("service", ["nobody", "v1", "other.Servic", "other.Service2"])
def test_what_nobody_knows(service: str) -> None:
    with pytest.raises(NotFound, match="no such service"):
        check(service)


def test_a_message_that_is_none() -> None:
    wire = HealthGrpcWire()
    call = wire.match("POST", PATH)
    assert call is not None
    with pytest.raises(InvalidInput):
        wire.inform(call, Message(b"\xff"), KitCatalog())


@pytest.mark.parametrize(
    ("method", "path"), [("GET", PATH), ("POST", PATH.replace("Check", "List")), ("POST", "/Check")]
)
def test_other_methods_are_none_of_its_own(method: str, path: str) -> None:
    assert HealthGrpcWire().match(method, path) is None


def test_a_refusal() -> None:
    refusal = HealthGrpcWire().refuse(None, NotFound("no", hint="ask"), "id")
    assert (refusal.body, refusal.code, refusal.headers) == (b"", "not_found", {"grpc-message": "no (hint: ask)"})
