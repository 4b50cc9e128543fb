"""What a user of KServe's clients does. Run by their own interpreter: ``kserve_client.py PORT``.

The server has the model ``m`` (see ``tests/e2e/test_clients_kserve.py``).
"""

import asyncio
import sys

import grpc
import httpx
import numpy as np
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_http
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

PORT = int(sys.argv[1])
URL = f"http://127.0.0.1:{PORT}"
INSTANCES = [{"x1": 1.5, "x2": 2, "city": "Rome"}, {"x1": 0, "x2": 3, "city": ""}]
EXPECTED = [421.5, 30.0]


def inputs(*, is_binary):
    columns = [
        ("x1", np.array([1.5, 0], "float64"), "FP64"),
        ("x2", np.array([2, 3], "int64"), "INT64"),
        ("city", np.array([b"Rome", b""], dtype=object), "BYTES"),
    ]
    made = []
    for name, values, datatype in columns:
        made.append(InferInput(name, list(values.shape), datatype))
        made[-1].set_data_from_numpy(values, binary_data=is_binary)
    return made


async def fails(awaited, kind, words):
    try:
        await awaited
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"no error with {words!r}")


async def v1():
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_server_live(URL)
    assert await client.is_model_ready(URL, "m")
    await fails(client.is_model_ready(URL, "nobody"), httpx.HTTPStatusError, "no such model: nobody")
    rows = [[1.5, 2, "Rome"], [0, 3, ""]]
    for body in ({"instances": INSTANCES}, {"instances": rows}, {"inputs": INSTANCES}):
        assert await client.infer(URL, body, model_name="m") == {"predictions": EXPECTED}
    await fails(client.infer(URL, {"instances": []}, model_name="m"), httpx.HTTPStatusError, "instances")
    await fails(client.explain(URL, "m", {"instances": rows}), httpx.HTTPStatusError, "501")
    await client.close()


async def events():
    event = CloudEvent({"type": "some.request", "source": "a/test"}, {"instances": INSTANCES})
    async with httpx.AsyncClient() as client:
        for convert in (to_binary, to_structured):
            headers, body = convert(event)
            answer = await client.post(f"{URL}/v1/models/m:predict", headers=headers, content=body)
            assert answer.status_code == 200, answer.text
            told = from_http(answer.headers, answer.content)
            assert told.data == {"predictions": EXPECTED} and told["source"] == "io.kserve.inference.m"


async def v2():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(URL) and await client.is_server_ready(URL)
    assert await client.is_model_ready(URL, "m") and not await client.is_model_ready(URL, "nobody")
    for is_binary in (False, True):
        for parameters in (None, {"binary_data_output": True}):
            asked = InferRequest("m", inputs(is_binary=is_binary), request_id="mine", parameters=parameters)
            told = await client.infer(URL, asked, model_name="m")
            assert told.id == "mine" and told.model_name == "m"
            assert told.outputs[0].as_numpy().tolist() == EXPECTED
            assert told.outputs[1].as_numpy().shape == (2, 2)
    chosen = InferRequest("m", inputs(is_binary=True), request_outputs=[RequestedOutput("prediction")])
    assert [output.name for output in (await client.infer(URL, chosen, model_name="m")).outputs] == ["prediction"]
    missing = InferRequest("m", inputs(is_binary=True)[:1])
    await fails(client.infer(URL, missing, model_name="m"), httpx.HTTPStatusError, "the input is missing")
    await client.close()


async def v2_grpc():
    async with InferenceGRPCClient(f"127.0.0.1:{PORT}") as client:
        assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("m")
        for is_binary in (False, True):
            told = await client.infer(InferRequest("m", inputs(is_binary=is_binary), request_id="mine"))
            assert told.id == "mine" and told.outputs[0].as_numpy().tolist() == EXPECTED
            assert told.outputs[1].as_numpy().shape == (2, 2)
        missing = InferRequest("m", inputs(is_binary=True)[:1])
        await fails(client.infer(missing), grpc.RpcError, "the input is missing")
        await fails(client.is_model_ready("nobody"), grpc.RpcError, "no such model: nobody")


async def all_of_it():
    for case in (v1, events, v2, v2_grpc):
        await case()


if __name__ == "__main__":
    asyncio.run(all_of_it())
