"""What a user of ``tensorflow-serving-api`` does. Run by its own interpreter: ``tfserving_client.py PORT``.

The server has versions 1 and 2 of the classifier ``churn`` and the regression ``line`` (see
``tests/e2e/test_clients_tfserving.py``). Prints one JSON object: what came of each function below, by its name.
"""

import json
import sys

import grpc
import numpy as np
import requests
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

PORT = int(sys.argv[1])
CHANNEL = grpc.insecure_channel(f"127.0.0.1:{PORT}", options=[("grpc.max_receive_message_length", 2**26)])
PREDICTION = prediction_service_pb2_grpc.PredictionServiceStub(CHANNEL)
MODEL = model_service_pb2_grpc.ModelServiceStub(CHANNEL)
REST = f"http://127.0.0.1:{PORT}/v1/models"
WAIT = 20


def ask(name, tensors, version=None, label=None, outputs=(), signature=""):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for key, values in tensors.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
    request.output_filter.extend(outputs)
    return request


def told(answer):
    spec = answer.model_spec
    arrays = {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}
    values = {name: array.astype(str) if array.dtype == object else array for name, array in arrays.items()}
    return {
        "spec": [spec.name, spec.version.value, spec.signature_name],
        "outputs": {name: array.tolist() for name, array in values.items()},
        "dtypes": {name: tensor.dtype for name, tensor in answer.outputs.items()},
    }


def refused(call, request):
    try:
        call(request, timeout=WAIT)
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return ["OK", ""]


ROWS = {"x1": np.array([0.5, -1.0]), "x2": np.array([[0.25], [2.0]])}


def predict():
    return told(PREDICTION.Predict(ask("churn", ROWS), timeout=WAIT))


def predict_python_lists():
    return told(PREDICTION.Predict(ask("churn", {"x1": [0.5, -1.0], "x2": [0.25, 2.0]}), timeout=WAIT))


def predict_one_value_for_all():
    request = ask("churn", {"x1": [0.5, -1.0]})
    request.inputs["x2"].CopyFrom(tf.make_tensor_proto(0.25, shape=[2]))
    return told(PREDICTION.Predict(request, timeout=WAIT))


def predict_matrix():
    values = np.random.default_rng(0).normal(size=(1000, 2)).astype("float32")
    answer = told(PREDICTION.Predict(ask("churn", {"inputs": values}, outputs=["probabilities"]), timeout=WAIT))
    return {"inputs": values.astype("float64").tolist(), **answer}


def predict_versions():
    request = ask("churn", ROWS, version=1)
    asked = [request, ask("churn", ROWS, label="production"), ask("churn", ROWS, label="old", signature="predict")]
    return [told(PREDICTION.Predict(one, timeout=WAIT)) for one in asked]


def predict_many_at_once():
    futures = [PREDICTION.Predict.future(ask("line", {"x1": [float(i)], "x2": [0.0]}), timeout=WAIT) for i in range(50)]
    return [told(future.result())["outputs"]["prediction"][0] for future in futures]


def refusals():
    wrong = ask("churn", {"x1": ["a"], "x2": ["b"]})
    mismatch = ask("churn", {"x1": [1.0], "x2": [1.0, 2.0]})
    return {
        "model": refused(PREDICTION.Predict, ask("nobody", ROWS)),
        "version": refused(PREDICTION.Predict, ask("churn", ROWS, version=9)),
        "label": refused(PREDICTION.Predict, ask("churn", ROWS, label="nothing")),
        "input": refused(PREDICTION.Predict, ask("churn", {"x1": [1.0]})),
        "type": refused(PREDICTION.Predict, wrong),
        "rows": refused(PREDICTION.Predict, mismatch),
        "signature": refused(PREDICTION.Predict, ask("churn", ROWS, signature="nope")),
        "regress": refused(PREDICTION.Regress, regression_pb2.RegressionRequest(model_spec={"name": "churn"})),
    }


def example(**features):
    made = {name: tf.train.Feature(float_list=tf.train.FloatList(value=[value])) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=made))


EXAMPLES = [example(x1=0.5, x2=0.25), example(x1=-1.0, x2=2.0)]


def classify():
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "churn"
    request.input.example_list.examples.extend(EXAMPLES)
    answer = PREDICTION.Classify(request, timeout=WAIT)
    rows = [[[one.label, one.score] for one in row.classes] for row in answer.result.classifications]
    return {"version": answer.model_spec.version.value, "rows": rows}


def regress():
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "line"
    request.input.example_list_with_context.context.CopyFrom(example(x2=0.25))
    request.input.example_list_with_context.examples.extend([example(x1=0.5), example(x1=-1.0)])
    return [one.value for one in PREDICTION.Regress(request, timeout=WAIT).result.regressions]


def multi_inference():
    request = inference_pb2.MultiInferenceRequest()
    request.input.example_list.examples.extend(EXAMPLES)
    task = request.tasks.add(method_name="tensorflow/serving/classify")
    task.model_spec.name = "churn"
    (result,) = PREDICTION.MultiInference(request, timeout=WAIT).results
    return [row.classes[0].label for row in result.classification_result.classifications]


def metadata():
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "churn"
    answer = PREDICTION.GetModelMetadata(request, timeout=WAIT)
    known = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(known)
    default = known.signature_def["serving_default"]
    return {
        "version": answer.model_spec.version.value,
        "signatures": sorted(known.signature_def),
        "inputs": {
            name: [tf.dtypes.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim]]
            for name, info in default.inputs.items()
        },
    }


def status(name="churn"):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    states = MODEL.GetModelStatus(request, timeout=WAIT).model_version_status
    names = get_model_status_pb2.ModelVersionStatus.State
    return [[one.version, names.Name(one.state), one.status.error_code] for one in states]


def rest():
    answers = {
        "rows": requests.post(f"{REST}/churn:predict", json={"instances": [{"x1": 0.5, "x2": 0.25}]}),
        "lists": requests.post(f"{REST}/churn/versions/1:predict", data='{"instances": [[0.5, 0.25]]}'),
        "columns": requests.post(f"{REST}/churn/labels/old:predict", json={"inputs": {"x1": [0.5], "x2": [[0.25]]}}),
        "line": requests.post(f"{REST}/line:predict", json={"instances": [[0.5, 0.25], [1, 0]]}),
        "classify": requests.post(f"{REST}/churn:classify", json={"examples": [{"x1": 0.5, "x2": 0.25}]}),
        "regress": requests.post(f"{REST}/line:regress", json={"examples": [{"x1": 0.5}], "context": {"x2": 0.25}}),
        "status": requests.get(f"{REST}/churn/versions/2"),
        "metadata": requests.get(f"{REST}/churn/labels/old/metadata"),
        "nobody": requests.post(f"{REST}/nobody:predict", json={"instances": [1.0]}),
        "empty": requests.post(f"{REST}/churn:predict", json={"instances": []}),
    }
    return {name: [answer.status_code, answer.json()] for name, answer in answers.items()}


def reload():
    """Last of all: it changes what is served."""

    def ask_for(*configs):
        request = model_management_pb2.ReloadConfigRequest()
        for name, versions in configs:
            one = request.config.model_config_list.config.add(name=name, model_platform="tensorflow")
            if versions is None:
                one.model_version_policy.all.SetInParent()
            else:
                one.model_version_policy.specific.versions.extend(versions)
        return request

    def served():
        return [refused(PREDICTION.Predict, ask("churn", ROWS, version=version))[0] for version in (1, 2)]

    found = [refused(MODEL.HandleReloadConfigRequest, ask_for(("churn", [1])))[0], served()]
    found.append(refused(PREDICTION.Predict, ask("line", ROWS))[0])
    found += [refused(MODEL.HandleReloadConfigRequest, ask_for(("churn", [2]), ("nobody", [1])))[0], served()]
    found += [refused(MODEL.HandleReloadConfigRequest, ask_for(("churn", None), ("line", None)))[0], served()]
    answer = MODEL.HandleReloadConfigRequest(ask_for(("churn", None)), timeout=WAIT)
    found.append([answer.status.error_code, refused(PREDICTION.Predict, ask("line", ROWS))[0]])
    return found


if __name__ == "__main__":
    calls = (
        predict, predict_python_lists, predict_one_value_for_all, predict_matrix, predict_versions,
        predict_many_at_once, refusals, classify, regress, multi_inference, metadata, status, rest, reload,
    )  # fmt: skip
    results = {}
    for call in calls:
        try:
            results[call.__name__] = call()
        except Exception as error:
            results[call.__name__] = f"{type(error).__name__}: {error}"
    print(json.dumps(results))
