"""Workers send their spans by themselves; calls of a real client of gRPC are spans too."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from clients import interpreter
from modelyard.bundle import pack
from otlp import Receiver, attributes

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

TRITON = """
import sys
import numpy as np
import tritonclient.grpc as client
given = [client.InferInput(name, [1], "FP64") for name in ("x1", "x2")]
for one in given:
    one.set_data_from_numpy(np.array([1.5]))
server = client.InferenceServerClient("127.0.0.1:" + sys.argv[1])
server.infer("line", given, headers={"traceparent": sys.argv[2]})
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spans") / "line"
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x1": rng.normal(size=50), "x2": rng.normal(size=50)})
    pack(LinearRegression().fit(frame, frame.x1 + 2 * frame.x2), folder, sample=dict(frame.items()))
    return folder


def words(bundle: Path) -> list[str]:
    return [sys.executable, "-m", "modelyard", "serve", f"line={bundle}", "--port", "0", "--workers", "2", "--json"]


def predict(port: str, traceparent: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=120)
    connection.request("POST", "/predict", b'{"x1": 1.5, "x2": 2}', {"traceparent": traceparent})
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read()
    return connection


def test_workers_send_spans(bundle: Path, tmp_path: Path) -> None:
    client = interpreter("triton")
    with Receiver() as receiver, (tmp_path / "log").open("wb") as log:
        threading.Thread(target=receiver.serve_forever, args=(0.01,), daemon=True).start()
        environment = {
            **os.environ, "MODELYARD_HOME": str(tmp_path), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.address,
            "OTEL_SERVICE_NAME": "shop",
        }  # fmt: skip
        server = subprocess.Popen(words(bundle), stdout=subprocess.PIPE, stderr=log, env=environment)
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            assert said, (tmp_path / "log").read_text()
            port = json.loads(said)["url"].rpartition(":")[2]
            # Both are open at once, so that each is another worker's.
            for connection in [predict(port, f"00-{i:032x}-{SPAN}-01") for i in (1, 2)]:
                connection.close()
            subprocess.run([client, "-c", TRITON, port, f"00-{TRACE}-{SPAN}-01"], check=True, timeout=120)
        finally:
            server.send_signal(signal.SIGTERM)  # what is left is sent at the end
            server.communicate(timeout=120)
        receiver.shutdown()
    about = [attributes(resource.resource) for one in receiver.requests for resource in one.resource_spans]
    assert {each["service.name"] for each in about} == {"shop"}
    assert len({each["process.pid"] for each in about}) == 2
    requests = {span.trace_id.hex(): attributes(span) for span in receiver.spans if span.parent_span_id.hex() == SPAN}
    assert requests.keys() == {f"{1:032x}", f"{2:032x}", TRACE}
    found = requests[TRACE]
    assert (found["rpc.service"], found["rpc.method"]) == ("inference.GRPCInferenceService", "ModelInfer")
    assert (found["rpc.grpc.status_code"], found["modelyard.wire"], found["modelyard.rows"]) == (0, "oip-grpc", 1)


def test_a_protocol_that_we_do_not_speak_stops_the_start(bundle: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ, "MODELYARD_HOME": str(tmp_path), "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }  # fmt: skip
    done = subprocess.run(words(bundle), env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode and not done.stdout.strip()
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in done.stderr and "http/protobuf" in done.stderr
