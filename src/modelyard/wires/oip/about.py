"""What is told of the server and its models: plain values, which REST writes as JSON and gRPC as messages.

Statistics and configurations have the shapes that Triton's tools read.
"""

from __future__ import annotations

import math
from typing import Any

from modelyard import __version__
from modelyard.errors import NotFound, NotReady
from modelyard.interfaces import Catalog, Served, State
from modelyard.schema import Field
from modelyard.wires.oip.datatypes import datatype_of

#: How this protocol calls the states of a version.
_STATES = {
    "loading": "LOADING", "ready": "READY", "unloading": "UNLOADING", "unloaded": "UNAVAILABLE",
    "failed": "UNAVAILABLE",
}  # fmt: skip

EXTENSIONS = (
    "binary_tensor_data", "classification", "model_configuration", "model_repository", "model_repository_extension",
    "parameters", "statistics",
)  # fmt: skip


def server() -> dict[str, Any]:
    """The server's metadata."""
    return {"name": "modelyard", "version": __version__, "extensions": EXTENSIONS}


def check_ready(catalog: Catalog) -> None:
    """Raise NotReady, and why, unless every declared model serves."""
    if not catalog.ready:
        faults = "; ".join(f"{reference}: {why}" for reference, why in catalog.faults().items())
        raise NotReady(f"not every declared model is ready{': ' if faults else ''}{faults}")


def ready_model(catalog: Catalog, model: str | None, version: str | None) -> Served:
    """The version that serves. Raises NotReady where one is declared that does not serve, NotFound where none is."""
    try:
        return catalog.find(model, version, None)
    except NotFound:
        for state in catalog.states():
            if state.model == model and version in (None, state.version) and state.state != "ready":
                raise NotReady(
                    f"the model {model} is {state.state}{': ' if state.reason else ''}{state.reason}"
                ) from None
        raise


def model(catalog: Catalog, served: Served) -> dict[str, Any]:
    """A model's metadata."""
    return {
        "name": served.name,
        "versions": [other.version for other in catalog.models() if other.name == served.name and other.version],
        "platform": served.platform,
        "inputs": [_tensor(field) for field in served.signature.inputs],
        "outputs": [_tensor(field) for field in served.signature.outputs],
    }


def _tensor(field: Field) -> dict[str, Any]:
    return {"name": field.name, "datatype": datatype_of(field), "shape": [-1, *field.shape]}


def config(served: Served) -> dict[str, Any]:
    """A model's configuration. Its shapes are whole, the number of rows first, so ``max_batch_size`` is 0."""
    return {
        "name": served.name,
        "platform": served.platform,
        "backend": "modelyard",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": [_configured(field) for field in served.signature.inputs],
        "output": [_configured(field) for field in served.signature.outputs],
    }


def _configured(field: Field) -> dict[str, Any]:
    datatype = datatype_of(field)
    return {
        "name": field.name,
        "data_type": "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}",
        "dims": [-1, *field.shape],
    }


def index(catalog: Catalog, *, only_ready: bool) -> list[dict[str, str]]:
    """Every version that is or was declared, and how it fares."""
    return [_state(state) for state in catalog.states() if state.state == "ready" or not only_ready]


def _state(state: State) -> dict[str, str]:
    told = {"name": state.model} | ({"version": state.version} if state.version else {})
    reason = state.reason or ("unloaded" if state.state == "unloaded" else "")
    return told | {"state": _STATES[state.state], "reason": reason}


def statistics(catalog: Catalog, model: str | None, version: str | None) -> dict[str, Any]:
    """The counts of some versions: of one, of a model, or of all."""
    if model is not None and version is not None:
        found = [catalog.find(model, version, None)]
    else:
        found = [served for served in catalog.models() if model in (None, served.name)]
        if not found:
            catalog.find(model, None, None)  # which says what there is
    return {"model_stats": [_statistics(catalog, served) for served in found]}


def _statistics(catalog: Catalog, served: Served) -> dict[str, Any]:
    stats = catalog.stats(served)
    answered = stats.requests - stats.failures
    hits, misses = stats.cache_hits, stats.requests - stats.cache_hits if stats.cache_hits else 0
    whole = stats.decode + stats.queue + stats.predict + stats.encode
    told: dict[str, Any] = {
        "name": served.name,
        "version": served.version,
        "last_inference": int(stats.last * 1000),
        "inference_count": stats.rows,
        "execution_count": stats.calls,
        "inference_stats": {
            "success": _duration(answered, whole),
            "fail": _duration(stats.failures, 0),
            "queue": _duration(answered, stats.queue),
            "compute_input": _duration(answered, stats.decode),
            "compute_infer": _duration(answered, stats.predict),
            "compute_output": _duration(answered, stats.encode),
            "cache_hit": _duration(hits, 0),
            "cache_miss": _duration(misses, 0),
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(calls, 0),
                "compute_infer": _duration(calls, seconds),
                "compute_output": _duration(calls, 0),
            }
            for rows, (calls, seconds) in sorted(stats.batches.items())
        ],
        "memory_usage": [],
    }
    if stats.memory is not None:
        told["memory_usage"] = [{"type": "CPU", "id": 0, "byte_size": stats.memory}]
    return told


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": math.floor(seconds * 1e9)}
