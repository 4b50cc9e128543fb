"""``grpc.health.v1`` on bytes."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import InvalidInput, NotFound, NotReady
from modelyard.interfaces import Catalog
from modelyard.messages import Message
from modelyard.testing.wires import KitCatalog
from modelyard.wires.health_grpc import HealthGrpcWire
from modelyard.wires.native import NativeWire

PATH = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


class Other(NativeWire):
    name = "other-grpc"
    prefix = "/other.Service/"


class Loading(KitCatalog):
    def find(self, model: str | None, version: str | None, alias: str | None) -> Any:
        raise NotReady("it loads")


def check(service: str, catalog: Catalog | None = None) -> Message:
    wire = HealthGrpcWire([NativeWire(), Other()])
    call = wire.match("POST", PATH)
    assert call is not None and call.scope == "open"
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


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("POST", "/grpc.health.v1.Health/Watch"), ("POST", "/")])
def test_other_methods_are_none_of_its_own(method: str, path: str) -> None:
    assert HealthGrpcWire().match(method, path) is None


def test_a_refusal() -> None:
    refusal = HealthGrpcWire().refuse(None, NotFound("no", hint="ask"), "id")
    assert (refusal.body, refusal.code, refusal.headers) == (b"", "not_found", {"grpc-message": "no (hint: ask)"})
