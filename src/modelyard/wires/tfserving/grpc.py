"""TensorFlow Serving over gRPC: ``PredictionService`` and ``ModelService``. Every message names its model inside.

Tensors and examples mean what their JSON means over REST. Answers tell the version and the signature that were used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from modelyard.errors import InvalidInput
from modelyard.interfaces import Catalog, Codec, Served
from modelyard.messages import Batch, Call, Message, Request, Response
from modelyard.wires import Unimplemented, code_of
from modelyard.wires.tfserving.about import (
    CLASSIFY,
    REGRESS,
    Announced,
    cannot,
    check_signature,
    labels_of,
    number_of,
    refusal,
    regressed,
    signatures,
    states_of,
    version_of,
)  # fmt: skip
from modelyard.wires.tfserving.config import references
from modelyard.wires.tfserving.examples import ExamplesReader
from modelyard.wires.tfserving.protos import messages
from modelyard.wires.tfserving.tensors import TensorReader, TensorWriter, features

_SERVICE = "/tensorflow.serving."
_TYPE = "application/grpc"

_CALLS = {
    "PredictionService/Predict": Call("predict", is_inside=True, variant="predict"),
    "PredictionService/Classify": Call("predict", is_inside=True, variant="classify"),
    "PredictionService/Regress": Call("predict", is_inside=True, variant="regress"),
    "PredictionService/MultiInference": Call("predict", is_inside=True, variant="multi"),
    "PredictionService/GetModelMetadata": Call("metadata"),
    "ModelService/GetModelStatus": Call("status", scope="open"),
    "ModelService/HandleReloadConfigRequest": Call("reload", scope="admin", is_slow=True),
}

_REQUESTS = {
    "predict": "PredictRequest", "classify": "ClassificationRequest", "regress": "RegressionRequest",
    "multi": "MultiInferenceRequest", "metadata": "GetModelMetadataRequest", "status": "GetModelStatusRequest",
    "reload": "ReloadConfigRequest",
}  # fmt: skip

#: What a task of a ``MultiInference`` may ask for.
_TASKS = {CLASSIFY: "classify", REGRESS: "regress"}


def _read(what: str, body: bytes) -> Any:
    name = _REQUESTS[what]
    kind = getattr(messages(), name)
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise InvalidInput.at("body", f"a {name}", str(error)) from None


def _addressed(spec: Any, action: str, variant: str = "") -> Call:
    """The call that a ``ModelSpec`` means."""
    if not spec.name:
        raise InvalidInput.at("model_spec.name", "the name of a model", "nothing")
    choice = spec.WhichOneof("version_choice")
    version = version_of(spec.version.value) if choice == "version" else None
    return Call(action, spec.name, version, spec.version_label if choice == "version_label" else None, variant=variant)


class TensorFlowServingGrpcWire:
    """See the module."""

    name = "tfserving-grpc"
    prefix = "/tensorflow.serving"

    def match(self, method: str, path: str) -> Call | None:
        return _CALLS.get(path[len(_SERVICE) :]) if method == "POST" and path.startswith(_SERVICE) else None

    def address(self, call: Call, message: Message) -> tuple[Call, Any]:
        request = _read(call.variant, message.body)
        if call.variant != "multi":
            return _addressed(request.model_spec, "predict", call.variant), request
        found = {_addressed(task.model_spec, "predict", "multi") for task in request.tasks}
        if len(found) != 1:
            raise InvalidInput.at("tasks", "tasks for one version of one model", f"{len(found)} of them")
        return found.pop(), request

    def codec(self, call: Call, served: Served) -> Codec:
        return PredictCodec(served) if call.variant == "predict" else ExamplesCodec(served, call.variant)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        request = _read(call.action, message.body)
        if call.action == "reload":
            catalog.replace(references(request.config, catalog))
            answer = messages().ReloadConfigResponse(status={})
        elif call.action == "metadata":
            answer = _metadata(request, catalog)
        else:
            answer = _status(_addressed(request.model_spec, call.action), catalog)
        return Message(answer.SerializeToString(), content_type=_TYPE)

    def descriptors(self) -> Sequence[bytes]:
        return messages().files

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        return Message(b"", {"grpc-message": refusal(call, error)}, code_of(error), _TYPE)


def _status(call: Call, catalog: Catalog) -> Any:
    assert call.model is not None
    answer = messages().GetModelStatusResponse()
    for state in states_of(catalog, call.model, call.version, call.alias):
        one = answer.model_version_status.add(version=state.version, state=state.state[1])
        one.status.error_code = state.code[1]
        one.status.error_message = state.message
    return answer


def _metadata(request: Any, catalog: Catalog) -> Any:
    if list(request.metadata_field) != ["signature_def"]:
        raise InvalidInput.at("metadata_field", '["signature_def"]', str(list(request.metadata_field)))
    call = _addressed(request.model_spec, "metadata")
    served = catalog.find(call.model, call.version, call.alias)
    known = messages().SignatureDefMap()
    for name, announced in signatures(served).items():
        _announce(known.signature_def[name], name, announced)
    answer = messages().GetModelMetadataResponse(model_spec=_spec(served))
    packed = answer.metadata["signature_def"]
    packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    packed.value = known.SerializeToString(deterministic=True)
    return answer


def _announce(signature: Any, name: str, announced: Announced) -> None:
    signature.method_name = announced.method
    for side, tensors in ((signature.inputs, announced.inputs), (signature.outputs, announced.outputs)):
        for tensor in tensors:
            info = side[tensor.name]
            info.name = tensor.graph_name(name)
            info.dtype = tensor.data_type[1]
            for size in tensor.shape:
                info.tensor_shape.dim.add(size=size)


def _spec(served: Served, signature_name: str = "") -> Any:
    version = {"value": number_of(served.version)}
    return messages().ModelSpec(name=served.name, version=version, signature_name=signature_name)


class PredictCodec:
    """Reads and answers ``Predict`` of one loaded version."""

    def __init__(self, served: Served) -> None:
        self._read = TensorReader(served.signature.inputs).read
        self._writers = {field.name: TensorWriter(field) for field in served.signature.outputs}
        self._answer = messages().PredictResponse
        self._spec = _spec(served)

    def decode(self, body: Any, headers: Mapping[str, str]) -> Request:
        name = check_signature(body.model_spec.signature_name, "predict", "model_spec.signature_name")
        wanted = tuple(body.output_filter)
        for i, output in enumerate(wanted):
            if output not in self._writers:
                raise InvalidInput.at(f"output_filter[{i}]", f"one of {', '.join(self._writers)}", output[:40])
            if output in wanted[:i]:
                raise InvalidInput.at(f"output_filter[{i}]", "each output once", f"{output} twice")
        request = self._read(body.inputs, name)
        request.outputs = wanted or None
        return request

    def encode(self, request: Request, response: Response) -> Message:
        answer = self._answer(model_spec=self._spec)
        answer.model_spec.signature_name = request.form
        for name in request.outputs or self._writers:
            self._writers[name].write(response.batch, response.start, response.stop, answer.outputs[name])
        return Message(answer.SerializeToString(), content_type=_TYPE)


class ExamplesCodec:
    """Reads and answers ``Classify``, ``Regress`` and ``MultiInference``, which is several of both on one input."""

    def __init__(self, served: Served, variant: str) -> None:
        self._served = served
        self._variant = variant
        self._fields = {field.name: field for field in served.signature.inputs}
        self._examples = ExamplesReader(served.signature.inputs, "classify").request
        #: Fills the result of each way that the model has.
        self._fillers: dict[str, Callable[[Response, Any], None]] = {}
        labels, value = labels_of(served), regressed(served)
        if labels is not None:
            self._fillers["classify"] = _Classes(labels.field.name, labels.names)
        if value is not None:
            self._fillers["regress"] = _Values(value.name)
        if variant != "multi" and variant not in self._fillers:
            raise cannot(variant, served)

    def decode(self, body: Any, headers: Mapping[str, str]) -> Request:
        tasks = list(self._tasks(body))
        kind = body.input.WhichOneof("kind")
        given = getattr(body.input, kind) if kind else None
        has_context = kind == "example_list_with_context"
        examples = [features(example, self._fields) for example in (given.examples if given else ())]
        context = features(given.context, self._fields) if has_context and given else {}
        request = self._examples(examples, context)
        request.form = " ".join(f"{variant}={name}" for variant, name in tasks)
        return request

    def _tasks(self, body: Any) -> Iterator[tuple[str, str]]:
        """What is asked for, and by which signature."""
        if self._variant != "multi":
            path = "model_spec.signature_name"
            yield self._variant, check_signature(body.model_spec.signature_name, self._variant, path)
            return
        for i, task in enumerate(body.tasks):
            variant = _TASKS.get(task.method_name)
            if variant is None:
                raise Unimplemented(f"tasks[{i}].method_name: expected {CLASSIFY} or {REGRESS}, got {task.method_name}")
            if variant not in self._fillers:
                raise cannot(variant, self._served)
            path = f"tasks[{i}].model_spec.signature_name"
            yield variant, check_signature(task.model_spec.signature_name, variant, path)

    def encode(self, request: Request, response: Response) -> Message:
        tasks = [task.split("=", 1) for task in request.form.split(" ")]
        known = messages()
        if self._variant == "multi":
            answer = known.MultiInferenceResponse()
            for variant, name in tasks:
                one = answer.results.add(model_spec=_spec(self._served, name))
                self._fillers[variant](
                    response, one.classification_result if variant == "classify" else one.regression_result
                )
        else:
            ((variant, name),) = tasks
            make = known.ClassificationResponse if variant == "classify" else known.RegressionResponse
            answer = make(model_spec=_spec(self._served, name))
            self._fillers[variant](response, answer.result)
        return Message(answer.SerializeToString(), content_type=_TYPE)


class _Classes:
    """Fills a ``ClassificationResult``: each label and its score, or the label alone where there are no scores."""

    def __init__(self, output: str, labels: tuple[str, ...]) -> None:
        self._output = output
        self._labels = labels

    def __call__(self, response: Response, into: Any) -> None:
        batch: Batch = response.batch
        if not self._labels:
            for value in batch.values(self._output)[response.start : response.stop]:
                into.classifications.add().classes.add(label=value if isinstance(value, str) else str(value))
            return
        for scores in batch.columns[self._output][response.start : response.stop].tolist():
            classes = into.classifications.add().classes
            for label, score in zip(self._labels, scores, strict=True):
                classes.add(label=label, score=score)


class _Values:
    """Fills a ``RegressionResult``."""

    def __init__(self, output: str) -> None:
        self._output = output

    def __call__(self, response: Response, into: Any) -> None:
        for value in response.batch.columns[self._output][response.start : response.stop].tolist():
            into.regressions.add(value=value)
