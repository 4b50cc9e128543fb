"""What a served version is in TensorFlow Serving's words: tensors, signatures, states and codes."""

from __future__ import annotations

import msgspec

from modelyard.errors import InvalidInput, ModelyardError, NotFound
from modelyard.interfaces import Catalog, Served
from modelyard.messages import Call
from modelyard.schema import Field
from modelyard.wires import code_of

#: Storage types of fields and the data type under which each travels, by name and number.
DATA_TYPES = {
    "float32": ("DT_FLOAT", 1), "float64": ("DT_DOUBLE", 2), "float16": ("DT_HALF", 19), "bool": ("DT_BOOL", 10),
    "int8": ("DT_INT8", 6), "int16": ("DT_INT16", 5), "int32": ("DT_INT32", 3), "int64": ("DT_INT64", 9),
    "uint8": ("DT_UINT8", 4), "uint16": ("DT_UINT16", 17), "uint32": ("DT_UINT32", 22), "uint64": ("DT_UINT64", 23),
    "object": ("DT_STRING", 7),
}  # fmt: skip

PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))

#: The names of the signature that each way of predicting takes. The first of them is announced, and is the default.
SIGNATURE_NAMES = {
    "predict": ("serving_default", "predict", PREDICT),
    "classify": ("classification", "serving_default", CLASSIFY),
    "regress": ("regression", "serving_default", REGRESS),
}

#: States of versions here, and what they are called there.
STATES = {
    "loading": ("LOADING", 20), "ready": ("AVAILABLE", 30), "unloading": ("UNLOADING", 40), "unloaded": ("END", 50),
    "failed": ("END", 50),
}  # fmt: skip
_START = ("START", 10)

#: Code words of errors and what they are called there; any other is INTERNAL.
CODES = {
    "ok": ("OK", 0), "invalid_input": ("INVALID_ARGUMENT", 3), "not_found": ("NOT_FOUND", 5),
    "conflict": ("FAILED_PRECONDITION", 9), "refused": ("PERMISSION_DENIED", 7), "not_ready": ("UNAVAILABLE", 14),
    "overloaded": ("RESOURCE_EXHAUSTED", 8), "no_room": ("RESOURCE_EXHAUSTED", 8),
    "deadline_passed": ("DEADLINE_EXCEEDED", 4), "missing_dependency": ("UNIMPLEMENTED", 12),
    "bad_bundle": ("DATA_LOSS", 15), "remote_failed": ("UNAVAILABLE", 14),
}  # fmt: skip
_INTERNAL = ("INTERNAL", 13)


def data_type(field: Field) -> tuple[str, int]:
    """The data type under which a field is announced and answered."""
    return DATA_TYPES["object" if field.dtype == "datetime" else field.storage]


class Tensor(msgspec.Struct, frozen=True):
    """A tensor of a signature as it is announced."""

    name: str
    data_type: tuple[str, int]
    shape: tuple[int, ...]

    def graph_name(self, signature: str) -> str:
        """A name such as the tensor would have in a graph."""
        return f"{signature}_{self.name}:0"


class Announced(msgspec.Struct, frozen=True):
    """A signature as it is announced."""

    method: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def signatures(served: Served) -> dict[str, Announced]:
    """The signatures of a version: the one to predict with, and those for classifying and regression where they fit."""
    default = Announced(
        PREDICT,
        tuple(_tensor(field) for field in served.signature.inputs),
        tuple(_tensor(field) for field in served.signature.outputs),
    )
    found = {SIGNATURE_NAMES["predict"][0]: default}
    examples = (Tensor("inputs", DATA_TYPES["object"], (-1,)),)
    labels = labels_of(served)
    if labels is not None:
        outputs: tuple[Tensor, ...] = (Tensor("classes", DATA_TYPES["object"], (-1, len(labels.names) or 1)),)
        if labels.has_scores:
            outputs += (Tensor("scores", DATA_TYPES["float32"], (-1, len(labels.names))),)
        found[SIGNATURE_NAMES["classify"][0]] = Announced(CLASSIFY, examples, outputs)
    if regressed(served) is not None:
        outputs = (Tensor("outputs", DATA_TYPES["float32"], (-1, 1)),)
        found[SIGNATURE_NAMES["regress"][0]] = Announced(REGRESS, examples, outputs)
    return found


def _tensor(field: Field) -> Tensor:
    return Tensor(field.name, data_type(field), (-1, *field.shape))


def check_signature(name: str, variant: str, path: str = "signature_name") -> str:
    """The name of the signature that a request means. Raises InvalidInput where this way of predicting has no such."""
    known = SIGNATURE_NAMES[variant]
    if name and name not in known:
        raise InvalidInput.at(path, f"one of {', '.join(known)}", name[:100])
    return name or "serving_default"


class Labels(msgspec.Struct, frozen=True):
    """How a version classifies."""

    #: The output that holds a score for each of ``names``, or the label alone where there are none.
    field: Field
    names: tuple[str, ...]

    @property
    def has_scores(self) -> bool:
        return bool(self.names)


def labels_of(served: Served) -> Labels | None:
    """How a version classifies; None where it does not."""
    outputs = served.signature.outputs
    for field in outputs:
        if field.categories and field.is_numeric and field.shape == (len(field.categories),):
            return Labels(field, field.categories)
    if served.task == "classification":
        return next((Labels(field, ()) for field in outputs if not field.shape), None)
    return None


def regressed(served: Served) -> Field | None:
    """The output that is the value of a regression; None where the version is no such model."""
    if served.task == "classification":
        return None
    numbers = [field for field in served.signature.outputs if not field.shape and field.is_numeric]
    return next((field for field in numbers if field.name == "prediction"), numbers[0] if len(numbers) == 1 else None)


def cannot(variant: str, served: Served) -> InvalidInput:
    """The error where a version cannot ``classify`` or ``regress``."""
    known = ", ".join(signatures(served))
    hint = f'call :predict, or signature "serving_default"; {served.name} is for {served.task}'
    return InvalidInput.at("signature_name", f"a signature that {served.name} has: {known}", variant, hint=hint)


def number_of(version: str) -> int:
    """A version as this protocol counts them; 0 for a bundle that no registry has numbered."""
    return int(version) if version.isdecimal() else 0


def version_of(number: str | int) -> str:
    """What ``number_of`` was made of."""
    return str(number).lstrip("0")


class VersionState(msgspec.Struct, frozen=True):
    """How one version fares."""

    version: int
    state: tuple[str, int]
    code: tuple[str, int]
    message: str


def states_of(catalog: Catalog, model: str, version: str | None, alias: str | None) -> list[VersionState]:
    """The states of a model's versions, newest first, or of one of them. Raises NotFound."""
    if alias is not None:
        version = catalog.find(model, None, alias).version
    found = [
        VersionState(
            number_of(state.version),
            STATES.get(state.state, _START),
            (CODES.get(code_of(state.error), _INTERNAL) if state.error else CODES["ok"]),
            state.reason,
        )
        for state in catalog.states()
        if state.model == model and version in (None, state.version)
    ]
    if not found:
        what = "any versions" if version is None else f"version {version or 0}"
        raise NotFound(f"Could not find {what} of model {model}")
    return sorted(found, key=lambda state: -state.version)


def refusal(call: Call | None, error: Exception) -> str:
    """An error in words; where no such version is served, in the words that clients know."""
    if not isinstance(error, ModelyardError):
        return "something went wrong inside the server"
    told = error.message
    if isinstance(error, InvalidInput) and len(error.problems) > 1:
        told = "; ".join(str(problem) for problem in error.problems)
    if isinstance(error, NotFound) and call is not None and call.model and call.action == "predict":
        which = "Latest" if call.version is None else "Specific"
        asked = call.model if call.version is None else f"{call.model}, {call.version or 0}"
        told = f"Servable not found for request: {which}({asked}): {told}"
    return f"{told} (hint: {error.hint})" if error.hint else told
