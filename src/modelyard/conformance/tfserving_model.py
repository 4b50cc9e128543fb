"""A model that speaks TensorFlow Serving's REST, as its metadata or an example request describe it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from modelyard.conformance.client import Client, Request
from modelyard.conformance.rules import Asked, Skip
from modelyard.errors import InvalidInput

_WHOLE = ("DT_INT8", "DT_INT16", "DT_INT32", "DT_INT64", "DT_UINT8", "DT_UINT16", "DT_UINT32", "DT_UINT64")

#: Rows of the example.
_ROWS = 2


@dataclass(frozen=True)
class TfModel:
    """See the module. A row is input -> value; ``version`` is the one that is available."""

    model: str
    prefix: str
    rows: tuple[dict[str, Any], ...]
    signature: str = "serving_default"
    version: str = ""
    values: Any = None

    @property
    def url(self) -> str:
        return f"{self.prefix}/v1/models/{quote(self.model, safe='')}"

    @property
    def good(self) -> Request:
        return self.posts({"instances": self.instances()})

    def instances(self, rows: tuple[dict[str, Any], ...] | None = None) -> list[Any]:
        """Rows as the protocol writes them: bare values of a single input, else objects."""
        chosen = self.rows if rows is None else rows
        return [next(iter(row.values())) if len(row) == 1 == len(self.rows[0]) else row for row in chosen]

    def columns(self) -> Any:
        """Rows in columns: bare for a single input, else an object."""
        told = {name: [row[name] for row in self.rows] for name in self.rows[0]}
        return next(iter(told.values())) if len(told) == 1 else told

    def get(self, path: str = "") -> Request:
        return Request("GET", self.url + path)

    def sends(self, body: bytes, *, at: str = "", verb: str = "predict") -> Request:
        return Request("POST", f"{at or self.url}:{verb}", body)

    def posts(self, told: Any, *, at: str = "", verb: str = "predict") -> Request:
        return self.sends(json.dumps(told).encode(), at=at, verb=verb)

    def available(self) -> str:
        """The version that answers. Raises Skip."""
        if not self.version:
            raise Skip("the server tells no version")
        return self.version

    def number(self) -> str:
        """The first input of numbers. Raises Skip."""
        for name, value in self.rows[0].items():
            while isinstance(value, list) and value:
                value = value[0]
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return name
        raise Skip("the model has no input of numbers")

    def several(self) -> tuple[dict[str, Any], ...]:
        """The rows, where there is more than one input. Raises Skip."""
        if len(self.rows[0]) < 2:
            raise Skip("the model has one input")
        return self.rows


def read_rows(told: Any) -> list[Any]:
    """The predictions of an answer, row by row, whichever form it has."""
    if "predictions" in told:
        found: list[Any] = told["predictions"]
        return found
    columns = told["outputs"]
    if isinstance(columns, list):
        return columns
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def meet(client: Client, asked: Asked) -> TfModel:
    """The model that the caller names."""
    if not asked.model:
        raise InvalidInput.at("--model", "the name of a model", "nothing", hint="--model NAME")
    model = TfModel(asked.model, asked.path, ())
    metadata = client.ask(model.get("/metadata"))
    signature, rows = _of_metadata(metadata.body)
    rows = _of_body(asked.body) if asked.body else rows
    if not rows:
        raise InvalidInput(f"the metadata describe no inputs: {metadata}", hint="--body FILE gives an example request")
    found = replace(model, rows=rows, signature=signature, version=_version(client, model))
    answer = client.ask(found.good)
    try:
        if answer.status != 200:
            raise ValueError
        return replace(found, values=read_rows(answer.json))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidInput(
            f"the server does not answer a plain request of the model {asked.model}: {answer}",
            hint="--body FILE gives a request that it answers",
        ) from None


def _version(client: Client, model: TfModel) -> str:
    try:
        rows = client.ask(model.get()).json["model_version_status"]
        return str(next(row["version"] for row in rows if row["state"] == "AVAILABLE"))
    except (ValueError, KeyError, TypeError, StopIteration):
        return ""


def _of_metadata(body: bytes) -> tuple[str, tuple[dict[str, Any], ...]]:
    """A signature that predicts, and rows for it."""
    try:
        known = json.loads(body)["metadata"]["signature_def"]["signature_def"]
        name = "serving_default" if "serving_default" in known else next(iter(known))
        row = {}
        for field, told in known[name]["inputs"].items():
            sizes = [int(each["size"]) for each in told["tensor_shape"].get("dim", [])]
            value: Any = "a" if told["dtype"] == "DT_STRING" else True if told["dtype"] == "DT_BOOL" else 0.5
            value = 1 if told["dtype"] in _WHOLE else value
            for size in reversed(sizes[1:]):
                value = [value] * max(size, 1)
            row[field] = value
        return name, (row,) * _ROWS
    except (ValueError, KeyError, TypeError, StopIteration):
        return "serving_default", ()


def _of_body(body: bytes) -> tuple[dict[str, Any], ...]:
    try:
        told = json.loads(body)["instances"]
        return tuple(each if isinstance(each, dict) else {"": each} for each in told)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput.at("--body", '{"instances": [...]}', f"{type(error).__name__}: {error}") from None
