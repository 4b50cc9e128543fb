"""How ``tritonclient`` meets keys and TLS, at its defaults. Run by its own interpreter with one JSON argument.

Prints what each attempt ended in: ``ok``, or the words and the status of the client's own error.
"""

import json
import sys

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

told = json.loads(sys.argv[1])


def attempt(module, client, headers):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("line")
    inputs = [module.InferInput(name, [1], "FP64") for name in ("x1", "x2")]
    for each in inputs:
        each.set_data_from_numpy(np.array([1.0]))
    try:
        for _ in range(3):
            result = client.infer("line", inputs, headers=headers)
            assert abs(result.as_numpy("prediction")[0] - 4.0) < 1e-6, result.get_response()
    except InferenceServerException as error:
        return [str(error.status()), error.message()]
    finally:
        client.close()
    return "ok"


found = {}
for name, headers in told["headers"].items():
    secure = {"ssl": True, "root_certificates": told["authority"]}
    if told.get("certificate"):
        secure |= {"certificate_chain": told["certificate"], "private_key": told["key"]}
    found[f"grpc {name}"] = attempt(grpc_client, grpc_client.InferenceServerClient(told["address"], **secure), headers)
    options = {"ca_certs": told["authority"]}
    if told.get("certificate"):
        options |= {"certfile": told["certificate"], "keyfile": told["key"]}
    client = http_client.InferenceServerClient(told["address"], ssl=True, ssl_options=options)
    found[f"http {name}"] = attempt(http_client, client, headers)
print(json.dumps(found))
