"""Seldon's own client against the port that is given; one line of JSON tells what it got."""

import json
import sys

import numpy as np
from google.protobuf.json_format import MessageToDict
from seldon_core.seldon_client import SeldonClient

place = f"127.0.0.1:{sys.argv[1]}"
data = np.array([[1.0, 0.5], [-2.0, 0.5]])
told = {}


def plain(answer: object) -> object:
    if not answer.success:
        return answer.msg
    return answer.response if isinstance(answer.response, dict) else MessageToDict(answer.response)


for transport in ("rest", "grpc"):
    client = SeldonClient(
        gateway="seldon", gateway_endpoint=place, microservice_endpoint=place, transport=transport,
        deployment_name="m", namespace="team",
    )  # fmt: skip
    for kind in ("tensor", "ndarray"):
        for names in (None, ["x2", "x1"]):
            rows = data if names is None else data[:, ::-1]
            answer = client.microservice(method="predict", data=rows, payload_type=kind, names=names)
            key = f"{transport} {kind} {'named' if names else 'plain'}"
            told[key] = plain(answer)
    answer = client.microservice(method="predict", json_data={"x1": 1.0, "x2": 0.5})
    told[f"{transport} json"] = plain(answer)
    answer = client.microservice_feedback(answer.request, answer.request, 1.0, deployment_name="m", namespace="team")
    told[f"{transport} feedback"] = answer.success
    answer = client.predict(data=data, payload_type="ndarray")
    told[f"{transport} gateway"] = plain(answer)
    answer = client.microservice(method="predict", data=data[:, :1])
    told[f"{transport} wrong"] = f"{answer.success} {answer.response} {answer.msg}"
rest = SeldonClient(
    gateway="ambassador", gateway_endpoint=place, transport="rest", deployment_name="m", namespace="team"
)
answer = rest.predict(data=data, payload_type="tensor")
told["rest ambassador"] = plain(answer)
print(json.dumps(told))
