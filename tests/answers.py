"""The admin API, asked without a socket; every answer is held against the API's own description."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

from asgi import ask
from modelyard.admin.api import AdminApi
from modelyard.admin.openapi import describe
from modelyard.admin.table import OPERATIONS
from modelyard.errors import Refused
from modelyard.registry import Registry

_DOCUMENT = describe(OPERATIONS, "", wants_keys=False)


class Api:
    """Asks as ``ada``, who may do everything, or only look where ``scope`` is view."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __call__(self, method: str, path: str, body: Any = None, *, scope: str = "admin") -> Any:
        """What is answered, which is no refusal."""
        status, told = self._ask(method, path, body, scope)
        assert status == 200, told
        segments = path.partition("?")[0].strip("/").split("/")
        operation = next(each for each in OPERATIONS if each.match(method, segments) is not None)
        described = _DOCUMENT["paths"][operation.path][method.lower()]["responses"]["200"]
        _check(described["content"]["application/json"]["schema"], told)
        return told

    def refused(self, method: str, path: str, body: Any = None, *, scope: str = "admin") -> tuple[int, str]:
        """The status and the message of a refusal."""
        status, told = self._ask(method, path, body, scope)
        assert status != 200, told
        _check({"$ref": "#/components/schemas/ErrorAnswer"}, told)
        return status, told["error"]["message"]

    def _ask(self, method: str, path: str, body: Any, scope: str) -> tuple[int, Any]:
        def caller(_scope: Any, wanted: str) -> str:
            if wanted == "admin" and scope != "admin":
                raise Refused("this key allows to look only")
            return "ada"

        return ask(AdminApi(self._registry, caller), method, path, body)


def _check(schema: Any, told: Any) -> None:
    Draft202012Validator({**schema, "components": _DOCUMENT["components"]}).validate(told)
