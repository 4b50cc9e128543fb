"""Stock clients of the Open Inference Protocol, with JSON tensors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from modelyard.bundle import pack
from modelyard.serving.server import Server

triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

RNG = np.random.default_rng(3)
FRAME = pd.DataFrame({"x1": RNG.normal(size=80), "x2": RNG.normal(size=80)})
MODEL = LogisticRegression().fit(FRAME, np.where(FRAME.x1 > FRAME.x2, "yes", "no"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("triton") / "m"
    pack(MODEL, folder, sample={name: FRAME[name].to_numpy() for name in FRAME})
    with Server([str(folder)], port=0, access_log="off") as server:
        yield server


def inputs(module: Any, rows: int) -> list[Any]:
    made = []
    for name in ("x2", "x1"):
        values = FRAME[name].to_numpy()[:rows]
        made.append(module.InferInput(name, list(values.shape), "FP64"))
        made[-1].set_data_from_numpy(values, binary_data=False)
    return made


def check(result: Any, rows: int) -> None:
    expected = MODEL.predict_proba(FRAME[:rows])
    assert result.as_numpy("prediction").tolist() == MODEL.predict(FRAME[:rows]).tolist()
    assert np.allclose(result.as_numpy("probabilities"), expected, rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 80])
def test_http(server: Server, rows: int) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    try:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("m")
        assert not client.is_model_ready("other")
        assert client.get_model_metadata("m")["inputs"][0]["datatype"] == "FP64"
        assert client.get_model_repository_index()[0]["state"] == "READY"
        wanted = [triton.InferRequestedOutput(n, binary_data=False) for n in ("prediction", "probabilities")]
        result = client.infer("m", inputs(triton, rows), outputs=wanted, request_id="mine")
        check(result, rows)
        assert result.get_response()["id"] == "mine"
        check(client.infer("m", inputs(triton, rows)), rows)  # which asks for binary outputs, and takes JSON
    finally:
        client.close()


def test_errors_arrive_as_the_clients_own(server: Server) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    from tritonclient.utils import InferenceServerException

    try:
        with pytest.raises(InferenceServerException, match="no such model: nobody"):
            client.infer("nobody", inputs(triton, 1))
        with pytest.raises(InferenceServerException, match="the input is missing"):
            client.infer("m", inputs(triton, 1)[:1])
    finally:
        client.close()


def test_http_aio(server: Server) -> None:
    aio = pytest.importorskip("tritonclient.http.aio", reason="aiohttp is not installed")

    async def ask() -> None:
        async with aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_server_ready()
            results = await asyncio.gather(*[client.infer("m", inputs(aio, rows)) for rows in range(1, 30)])
            for rows, result in enumerate(results, 1):
                check(result, rows)

    asyncio.run(ask())
