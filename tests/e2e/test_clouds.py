"""The containers of SageMaker, Vertex AI and Azure ML: ``modelyard serve`` in their environments, asked as they ask."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from commands import environment

pytest.importorskip("sklearn", reason="a model is packaged")

ROWS = [[5.0, 1.0], [0.0, 3.0]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says yes where x1 is larger than x2."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from modelyard.bundle import pack

    sample = np.random.default_rng(0).normal(size=(60, 2))
    model = LogisticRegression().fit(sample, np.where(sample[:, 0] > sample[:, 1], "yes", "no"))
    folder = tmp_path_factory.mktemp("clouds") / "bundle"
    pack(model, folder, sample={"x1": sample[:, 0], "x2": sample[:, 1]})
    return folder


class Container:
    """A process that a cloud has started."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """Status, body (JSON where it is) and headers of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"content-type": "application/json", **(headers or {})}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, sent if data else dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        is_json = answer.headers["content-type"] == "application/json" and text.strip()
        return answer.status, json.loads(text) if is_json else text.decode(), answer.headers


Start = Callable[..., Container]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``modelyard serve`` with variables of a cloud, and waits until it is ready."""
    started: list[subprocess.Popen[str]] = []

    def run(port: int, *words: str, **variables: str) -> Container:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard", "serve", *words, "--json"], cwd=tmp_path, text=True,
            env={**environment(tmp_path / "home"), **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        assert json.loads(line)["url"] == f"http://127.0.0.1:{port}"
        return Container(process, port)

    yield run
    for process in started:
        process.terminate()
        assert process.wait(timeout=120) == 0
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def test_sagemaker(start: Start, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "ml" / "model" / "1")  # as an artefact may unpack
    port = free_port()
    container = start(port, SAGEMAKER_BASE_DIR=str(tmp_path / "ml"), SAGEMAKER_BIND_TO_PORT=str(port))
    status, body, headers = container.ask("GET", "/ping")
    assert (status, body, headers["content-length"]) == (200, "", "0")
    status, body, _ = container.ask("POST", "/invocations", {"instances": [{"features": row} for row in ROWS]})
    assert status == 200 and [row["prediction"] for row in body["predictions"]] == ["yes", "no"]
    status, body, headers = container.ask(
        "POST", "/invocations", b"5,1\n0,3\n", {"content-type": "text/csv", "accept": "text/csv"}
    )
    assert (status, body, headers["content-type"]) == (200, "yes\nno\n", "text/csv")
    status, body, _ = container.ask("POST", "/invocations", b"\0", {"content-type": "application/x-recordio-protobuf"})
    assert status == 415 and "no such content type" in body["message"]
    status, body, _ = container.ask("POST", "/invocations", {"instances": []})
    assert status == 400 and body["code"] == "invalid_input"
    assert container.ask("GET", "/models")[1]["models"][0]["name"] == "model"  # our own wires are there as well


def test_sagemaker_with_many_models(start: Start, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "models" / "9f8e" / "model")
    port = free_port()
    container = start(port, SAGEMAKER_MULTI_MODEL="true", SAGEMAKER_SAFE_PORT_RANGE=f"{port}-{port}")
    assert container.ask("GET", "/ping")[0] == 200
    assert container.ask("GET", "/models")[1] == {"models": []}
    load = {"model_name": "9f8e", "url": str(tmp_path / "models" / "9f8e" / "model")}
    assert container.ask("POST", "/models", load)[0] == 200
    assert container.ask("POST", "/models", load)[0] == 409
    assert container.ask("GET", "/models/9f8e")[1] == {"modelName": "9f8e", "modelUrl": load["url"]}
    status, body, _ = container.ask(
        "POST", "/models/9f8e/invoke", {"instances": ROWS}, {"x-amzn-sagemaker-target-model": "m.tar.gz"}
    )
    assert status == 200 and body["predictions"][0]["prediction"] == "yes"
    assert container.ask("POST", "/models/other/invoke", {"instances": ROWS})[0] == 404
    assert container.ask("POST", "/models", {"model_name": "none", "url": str(tmp_path / "none")})[0] == 404
    assert container.ask("DELETE", "/models/9f8e")[0] == 200
    assert container.ask("DELETE", "/models/9f8e")[0] == 404
    assert container.ask("POST", "/models/9f8e/invoke", {"instances": ROWS})[0] == 404
    assert container.ask("POST", "/models", load)[0] == 200


def test_sagemaker_without_room(start: Start, bundle: Path) -> None:
    port = free_port()
    variables = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BIND_TO_PORT": str(port)}
    container = start(port, "--memory", "1k", **variables)
    assert container.ask("POST", "/models", {"model_name": "big", "url": str(bundle)})[0] == 507


def test_vertex(start: Start, bundle: Path) -> None:
    port = free_port()
    routes = {"AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2", "AIP_PREDICT_ROUTE": "/v1/models/m:predict"}
    container = start(port, str(bundle), AIP_HTTP_PORT=str(port), AIP_MODE="PREDICTION", **routes)
    assert container.ask("GET", routes["AIP_HEALTH_ROUTE"])[0] == 200
    status, body, _ = container.ask("POST", routes["AIP_PREDICT_ROUTE"], {"instances": ROWS, "parameters": None})
    assert status == 200 and [row["prediction"] for row in body["predictions"]] == ["yes", "no"]
    status, body, _ = container.ask("POST", routes["AIP_PREDICT_ROUTE"], {"instances": [[1]]})
    assert status == 400 and "instances[0]: expected a list of 2 (x1, x2)" in body["error"]


def test_azure(start: Start, bundle: Path, tmp_path: Path) -> None:
    port = free_port()
    container = start(port, AZUREML_MODEL_DIR=str(bundle.parent), MODELYARD_PORT=str(port))
    status, body, _ = container.ask("GET", "/")
    assert (status, body) == (200, "Healthy")
    assert container.ask("GET", "/", headers={"accept": "application/json"})[1] == {"status": "alive"}
    status, body, headers = container.ask("POST", "/score", {"input_data": {"data": ROWS}}, {"x-request-id": "A"})
    assert (status, body) == (200, ["yes", "no"])
    assert headers["x-request-id"] == headers["x-ms-request-id"] == "A" and "x-ms-client-request-id" not in headers
    sent = {"x-ms-request-id": "B", "x-ms-client-request-id": "C", "trace-id": "T"}
    status, body, headers = container.ask("GET", "/score?x1=5&x2=1", headers=sent)
    assert status == 200 and body["predictions"][0]["prediction"] == "yes"
    assert headers["x-ms-request-id"] == headers["x-ms-client-request-id"] == "C" and headers["trace-id"] == "T"
    status, _, headers = container.ask("OPTIONS", "/score")
    assert status == 200 and headers["allow"] == "GET, POST, OPTIONS"
    assert container.ask("GET", "/swagger.json")[1]["swagger"] == "2.0"
    assert container.ask("GET", "/swagger.json?version=3")[1]["openapi"].startswith("3.")
    assert container.ask("POST", "/score", b"{")[0] == 400


def test_without_a_cloud_a_model_must_be_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelyard", "serve"], env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 2 and "REFS" in done.stderr
