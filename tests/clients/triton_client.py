"""What a user of ``tritonclient`` does, at its defaults. Run by its own interpreter: ``triton_client.py PORT CASE``.

The server has the model ``m`` of two rows' worth of columns (see ``tests/e2e/test_clients_triton.py``), and may load
the models ``spare`` and ``broken``.
"""

import asyncio
import queue
import sys

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

PORT = int(sys.argv[1])
URL = f"127.0.0.1:{PORT}"


def inputs_of(module, rows, **how):
    """The same rows in other datatypes and shapes than the model's own."""
    columns = [
        ("city", np.array([f"c{i}".encode() for i in range(rows)], dtype=object), "BYTES"),
        ("x1", np.arange(rows, dtype="float32"), "FP32"),
        ("x2", np.arange(rows, dtype="int64").reshape(-1, 1), "INT64"),
    ]
    made = []
    for name, values, datatype in columns:
        made.append(module.InferInput(name, list(values.shape), datatype))
        made[-1].set_data_from_numpy(values, **how)
    return made


def check(result, rows):
    expected = [i + 10 * i + 100 * len(f"c{i}") for i in range(rows)]
    assert result.as_numpy("prediction").tolist() == expected, result.get_response()
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape == (rows, 2) and probabilities[:, 0].tolist() == expected
    labels = [label if isinstance(label, str) else label.decode() for label in result.as_numpy("label").tolist()]
    assert labels == ["odd" if i % 2 else "even" for i in range(rows)]  # the client leaves those of JSON as they are


def raises(words, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except InferenceServerException as error:
        assert words in error.message(), error.message()
        return error
    raise AssertionError(f"no error with {words!r}")


def ask_about(client, is_http):
    """Health, metadata, configuration, statistics, index: plain values over HTTP, messages over gRPC."""

    def told(value):
        if is_http:
            return value
        from google.protobuf.json_format import MessageToDict

        return MessageToDict(value, preserving_proto_field_name=True)

    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("m") and client.is_model_ready("m", "1")
    assert "binary_tensor_data" in told(client.get_server_metadata())["extensions"]
    metadata = told(client.get_model_metadata("m", "1"))
    assert metadata["name"] == "m" and metadata["versions"] == ["1"]
    assert [one["datatype"] for one in metadata["inputs"]] == ["FP64", "INT64", "BYTES"]
    assert [int(size) for size in metadata["outputs"][1]["shape"]] == [-1, 2]
    config = told(client.get_model_config("m"))
    config = config if is_http else config["config"]
    assert config["output"][0]["data_type"] == "TYPE_FP64" and config.get("max_batch_size", 0) == 0
    (counted,) = told(client.get_inference_statistics("m"))["model_stats"]
    assert counted["name"] == "m"
    assert told(client.get_inference_statistics())["model_stats"]
    found = told(client.get_model_repository_index())
    found = found if is_http else found["models"]
    assert [(one["name"], one["version"], one["state"]) for one in found if one["name"] == "m"] == [("m", "1", "READY")]


def ask_wrongly(client, module):
    raises("no such model: nobody", client.infer, "nobody", inputs_of(module, 1))
    raises("version", client.infer, "m", inputs_of(module, 1), model_version="9")
    raises("the input is missing", client.infer, "m", inputs_of(module, 1)[:2])
    wanted = [module.InferRequestedOutput("nothing")]
    raises("outputs[0].name", client.infer, "m", inputs_of(module, 1), outputs=wanted)
    wrong = module.InferInput("x1", [1], "FP64")
    wrong.set_data_from_numpy(np.array([np.nan]))
    others = [one for one in inputs_of(module, 1) if one.name() != "x1"]
    raises("inputs.x1[0]", client.infer, "m", [wrong, *others])
    raises("no such model", client.get_model_metadata, "nobody")
    raises("triton_", client.infer, "m", inputs_of(module, 1), parameters={"triton_mine": 1})


def change(client):
    """Load and unload, and what stands in the way."""
    assert not is_ready(client, "spare")
    client.load_model("spare")
    assert is_ready(client, "spare")
    client.load_model("spare")  # again: looked up anew
    client.unload_model("spare")
    assert not is_ready(client, "spare")
    raises("golden rows", client.load_model, "broken")
    raises("nobody", client.load_model, "nobody")
    raises("spare", client.unload_model, "spare")
    raises("parameters.config", client.load_model, "spare", config='{"max_batch_size": 1}')
    assert client.is_server_ready() and client.is_model_ready("m")


def is_ready(client, model):
    try:
        return client.is_model_ready(model)
    except InferenceServerException:  # gRPC: it is not known at all
        return False


def http():
    client = http_client.InferenceServerClient(URL)
    ask_about(client, True)
    for rows in (1, 2, 70):
        check(client.infer("m", inputs_of(http_client, rows)), rows)
        check(client.infer("m", inputs_of(http_client, rows, binary_data=False)), rows)
        wanted = [
            http_client.InferRequestedOutput(n, binary_data=False) for n in ("label", "prediction", "probabilities")
        ]
        result = client.infer("m", inputs_of(http_client, rows), outputs=wanted, request_id="mine", model_version="1")
        check(result, rows)
        assert result.get_response()["id"] == "mine" and result.get_response()["model_version"] == "1"
    for algorithm in ("gzip", "deflate"):
        zipped = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
        check(client.infer("m", inputs_of(http_client, 300), **zipped), 300)
    top = [http_client.InferRequestedOutput("probabilities", class_count=1)]
    (best,) = client.infer("m", inputs_of(http_client, 1), outputs=top).as_numpy("probabilities").ravel().tolist()
    assert best == b"200.000000:0:first", best
    ask_wrongly(client, http_client)
    elsewhere = http_client.InferenceServerClient(f"{URL}/elsewhere")
    raises("no such path: /elsewhere/v2/models/m/infer", elsewhere.infer, "m", inputs_of(http_client, 1))
    assert not client.is_model_ready("nobody")
    waiting = [client.async_infer("m", inputs_of(http_client, rows)) for rows in range(1, 20)]
    for rows, one in enumerate(waiting, 1):
        check(one.get_result(), rows)
    client.close()


def http_loop():
    async def ask():
        async with http_aio.InferenceServerClient(URL) as client:
            assert await client.is_server_ready() and await client.is_model_ready("m")
            results = await asyncio.gather(*[client.infer("m", inputs_of(http_aio, rows)) for rows in range(1, 30)])
            for rows, result in enumerate(results, 1):
                check(result, rows)
            check(await client.infer("m", inputs_of(http_aio, 70), response_compression_algorithm="gzip"), 70)
            try:
                await client.infer("nobody", inputs_of(http_aio, 1))
            except InferenceServerException as error:
                assert "no such model: nobody" in error.message()
            else:
                raise AssertionError("no error")

    asyncio.run(ask())


def repository():
    client = http_client.InferenceServerClient(URL)
    change(client)
    client.close()
    client = grpc_client.InferenceServerClient(URL)
    change(client)
    client.close()


def grpc():
    client = grpc_client.InferenceServerClient(URL)
    ask_about(client, False)
    for rows in (1, 2, 70):
        check(client.infer("m", inputs_of(grpc_client, rows)), rows)
        wanted = [grpc_client.InferRequestedOutput(name) for name in ("label", "prediction", "probabilities")]
        result = client.infer("m", inputs_of(grpc_client, rows), outputs=wanted, request_id="mine", model_version="1")
        check(result, rows)
        assert result.get_response().id == "mine" and result.get_response().model_version == "1"
    check(client.infer("m", inputs_of(grpc_client, 300), compression_algorithm="gzip"), 300)
    top = [grpc_client.InferRequestedOutput("probabilities", class_count=1)]
    (best,) = client.infer("m", inputs_of(grpc_client, 1), outputs=top).as_numpy("probabilities").ravel().tolist()
    assert best == b"200.000000:0:first", best
    ask_wrongly(client, grpc_client)
    assert raises("nobody", client.is_model_ready, "nobody").status() == "StatusCode.NOT_FOUND"
    assert raises("shared memory", client.get_system_shared_memory_status).status() == "StatusCode.UNIMPLEMENTED"
    raises("settings", client.get_log_settings)
    client.close()


def stream():
    """Errors are told in the stream, which goes on; answers come in order."""
    client = grpc_client.InferenceServerClient(URL)
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for rows in (1, 2, 3):
        client.async_stream_infer("m", inputs_of(grpc_client, rows), request_id=str(rows))
    client.async_stream_infer("nobody", inputs_of(grpc_client, 1))
    client.async_stream_infer("m", inputs_of(grpc_client, 4)[:1])
    client.async_stream_infer("m", inputs_of(grpc_client, 4), enable_empty_final_response=True)
    for rows in (1, 2, 3):
        result, error = answers.get(timeout=60)
        assert error is None, error
        check(result, rows)
        assert result.get_response().id == str(rows)
    for words in ("no such model: nobody", "the input is missing"):
        result, error = answers.get(timeout=60)
        assert result is None and words in error.message(), error
    result, error = answers.get(timeout=60)
    check(result, 4)
    assert result.get_response().parameters["triton_final_response"].bool_param
    client.stop_stream()
    client.close()


def grpc_loop():
    async def ask():
        async with grpc_aio.InferenceServerClient(URL) as client:
            assert await client.is_server_live() and await client.is_model_ready("m")
            results = await asyncio.gather(*[client.infer("m", inputs_of(grpc_aio, rows)) for rows in range(1, 30)])
            for rows, result in enumerate(results, 1):
                check(result, rows)

            async def requests():
                for rows in (1, 2, 3):
                    yield {"model_name": "m", "inputs": inputs_of(grpc_aio, rows)}

            rows = 0
            async for result, error in client.stream_infer(requests()):
                assert error is None, error
                rows += 1
                check(result, rows)
            assert rows == 3

    asyncio.run(ask())


if __name__ == "__main__":
    globals()[sys.argv[2]]()
