"""The admin API as an application: how operations are found and read, and how refusals are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from asgi import ask
from modelyard.admin.api import AdminApi
from modelyard.admin.openapi import describe
from modelyard.admin.operation import Operation
from modelyard.admin.table import OPERATIONS
from modelyard.errors import InvalidInput, Refused
from modelyard.registry import Registry
from modelyard.registry.records import author

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def api(registry: Registry) -> Ask:
    """Asks as somebody who may do everything, or only look."""

    def made(method: str, path: str, body: Any = None, *, scope: str = "admin") -> tuple[int, Any]:
        def caller(_scope: Any, wanted: str) -> str:
            if wanted == "admin" and scope != "admin":
                raise Refused("this key allows to look only")
            return "ada"

        return ask(AdminApi(registry, caller), method, path, body)

    return made


def test_the_description_holds_and_tells_of_every_operation() -> None:
    document = describe(OPERATIONS, "/api", wants_keys=True)
    validate(document)
    told = {(method.upper(), path) for path, each in document["paths"].items() for method in each}
    assert told == {(each.method, f"/api{each.path}") for each in OPERATIONS}
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"].endswith("."), operation


def test_operations_are_named_once() -> None:
    names = [each.name for each in OPERATIONS]
    assert sorted(set(names)) == sorted(names)
    places = [(each.method, each.path) for each in OPERATIONS]
    assert sorted(set(places)) == sorted(places)


def test_what_changes_something_is_for_administrators() -> None:
    assert {each.scope for each in OPERATIONS if each.method in ("POST", "DELETE")} == {"admin"}


def test_keys_are_made_listed_and_revoked(api: Ask, registry: Registry) -> None:
    status, made = api("POST", "/keys", {"name": "shop", "scopes": ["predict", "label"], "rate": "5/s"})
    assert (status, made["key"]["by"]) == (200, "ada")
    assert made["text"].startswith(f"my_{made['key']['id']}_")
    assert [key["name"] for key in api("GET", "/keys")[1]] == ["shop"]
    assert api("DELETE", "/keys/shop")[1]["revoked"]
    assert api("GET", "/keys")[1] == []
    assert [key["name"] for key in api("GET", "/keys?revoked=true")[1]] == ["shop"]
    assert author() != "ada", "the name lasts as long as the call"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "told"),
    [
        ("GET", "/nothing", None, 404, "not_found", "no such operation: GET /nothing"),
        ("PUT", "/keys", None, 404, "not_found", "no such operation: PUT /keys"),
        ("GET", "/jobs/9", None, 404, "not_found", "no such batch job: 9"),
        ("GET", "/jobs/nine", None, 400, "invalid_input", "number: expected int, got str"),
        ("GET", "/overview?hours=long", None, 400, "invalid_input", "hours: expected float, got str"),
        ("GET", "/overview?hours=nan", None, 400, "invalid_input", "hours: expected more than 0, up to 9600, got nan"),
        ("GET", "/overview?hours=1e300", None, 400, "invalid_input", "hours: expected more than 0, up to 9600"),
        ("GET", "/rollouts/99999999999999999999", None, 400, "invalid_input", "rollout: expected a whole number of up"),
        ("GET", "/jobs?most=99999999999999999999", None, 400, "invalid_input", "most: expected a whole number of up"),
        ("GET", "/alerts?model=%00", None, 400, "invalid_input", "model: expected text without NUL"),
        ("GET", "/overview?days=1", None, 400, "invalid_input", "unknown field"),
        ("POST", "/keys", {}, 400, "invalid_input", "missing required field `name`"),
        ("POST", "/keys", {"name": 1}, 400, "invalid_input", "name: expected str, got int"),
        ("POST", "/keys", {"name": "a b"}, 400, "invalid_input", "key name: expected 1 to 100"),
        ("POST", "/keys", [], 400, "invalid_input", "body: expected a JSON object, got list"),
        ("POST", "/keys", b"{", 400, "invalid_input", "body: expected JSON"),
        ("POST", "/keys", b'"' + b"x" * (1 << 20), 400, "invalid_input", "body: expected at most"),
    ],
)
def test_refusals_teach(api: Ask, method: str, path: str, body: Any, status: int, code: str, told: str) -> None:
    answered, error = api(method, path, body)
    assert (answered, error["error"]["code"]) == (status, code)
    assert told in error["error"]["message"]
    document = describe(OPERATIONS, "", wants_keys=False)
    schema = {"$ref": "#/components/schemas/ErrorAnswer", "components": document["components"]}
    Draft202012Validator(schema).validate(error)


def test_who_may_look_only_changes_nothing(api: Ask, registry: Registry) -> None:
    assert api("GET", "/overview", scope="view")[0] == 200
    assert api("POST", "/keys", {"name": "mine"}, scope="view")[0] == 403
    assert registry.keys.list() == []


def test_a_bug_is_told_without_its_secrets(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(registry: Registry) -> int:
        """Break."""
        raise ValueError("postgresql://ada:secret@host")

    monkeypatch.setattr("modelyard.admin.api.OPERATIONS", (Operation("GET", "/broken", broken),))
    status, told = ask(AdminApi(registry, lambda *_: ""), "GET", "/broken")
    assert (status, told["error"]["code"]) == (500, "internal")
    assert "secret" not in json.dumps(told)


def test_a_path_is_decoded_once_and_part_by_part(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose the ids of predictions: they may hold slashes, and look like codes."""

    def told(registry: Registry, id: str) -> str:
        """Tell."""
        return id

    monkeypatch.setattr("modelyard.admin.api.OPERATIONS", (Operation("GET", "/told/{id}", told),))
    for id in ("a/b", "50%25", "a b?", "ü"):
        assert ask(AdminApi(registry, lambda *_: ""), "GET", f"/told/{quote(id, safe='')}") == (200, id)
    below = AdminApi(registry, lambda *_: "", prefix="/v1")
    assert ask(below, "GET", "/yard/v1/told/a%2Fb", root="/yard") == (200, "a/b")
    assert ask(below, "GET", "/yard/v1/openapi.json", root="/yard")[1]["paths"].keys() == {"/yard/v1/told/{id}"}


def test_less_than_nothing_is_nothing(api: Ask) -> None:
    assert api("GET", "/jobs?most=-1") == (200, [])


def test_what_is_read_has_its_type() -> None:
    def take(registry: Registry, name: str, *, size: float = 1.0, tags: list[str] | None = None) -> int:
        """Take."""
        return 0

    operation = Operation("POST", "/take/{name}", take, "admin")
    assert operation.match("POST", ["take", "a"]) == {"name": "a"}
    assert operation.match("GET", ["take", "a"]) is None
    assert operation.match("POST", ["take"]) is None
    assert operation.read({"name": "7"}, b'{"tags": ["x"]}') == {"name": "7", "size": 1.0, "tags": ["x"]}
    with pytest.raises(InvalidInput, match=r"tags\[0\]: expected str, got int"):
        operation.read({"name": "a"}, b'{"tags": [1]}')
    with pytest.raises(InvalidInput, match="name: expected it once"):
        operation.read({"name": "a"}, b'{"name": "b"}')
