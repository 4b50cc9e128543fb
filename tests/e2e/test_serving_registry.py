"""A server over a real registry: bundles of real models, promoted and rolled back under load."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from clients import interpreter
from modelyard.bundle import Bundle, pack
from modelyard.errors import BadBundle, NotFound
from modelyard.registry import Registry
from modelyard.serving.server import Server
from receivers import until

RNG = np.random.default_rng(7)
SAMPLE = {"x1": RNG.normal(size=60), "x2": RNG.normal(size=60)}
ROW = {"x1": 1.5, "x2": 2.0}


def line(folder: Path, scale: float) -> tuple[LinearRegression, Bundle]:
    frame = pd.DataFrame(SAMPLE)
    model = LinearRegression().fit(frame, scale * (frame.x1 + 2 * frame.x2 + 1))
    return model, pack(model, folder, sample=SAMPLE)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "home")


def serve(*references: str, **options: Any) -> Server:
    return Server(references, port=0, poll_seconds=0.05, **{"access_log": "off", **options}).start()


class Asker:
    """A client that keeps its connection."""

    def __init__(self, server: Server) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def __call__(self, path: str = "/predict", body: Any = ROW) -> tuple[int, Any]:
        self.connection.request("POST" if body is not None else "GET", path, body and json.dumps(body))
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_the_case_of_the_blog_post(registry: Registry, tmp_path: Path) -> None:
    model, bundle = line(tmp_path / "bundle", 1.0)
    registry.register(bundle, "line")
    with serve("line@production", registry=registry) as server, Asker(server) as ask:
        rows = [{"x1": float(a), "x2": float(b)} for a, b in zip(SAMPLE["x1"], SAMPLE["x2"], strict=True)]
        expected = model.predict(pd.DataFrame(rows))
        got = [ask(body=row)[1]["prediction"] for row in rows]
        assert np.allclose(got, expected, rtol=1e-6, atol=1e-9)
        together = ask(body=rows)[1]["predictions"]
        assert np.allclose([row["prediction"] for row in together], expected, rtol=1e-6, atol=1e-9)


def test_a_classifier_with_texts_and_reordered_columns(registry: Registry, tmp_path: Path) -> None:
    frame = pd.DataFrame(SAMPLE)
    labels = np.where(frame.x1 + frame.x2 > 0, "stays", "leaves")
    model = LogisticRegression().fit(frame, labels)
    bundle = pack(model, tmp_path / "bundle", sample=SAMPLE)
    registry.register(bundle, "churn")
    with serve("churn", registry=registry) as server, Asker(server) as ask:
        status, told = ask(body={"x2": [2.0, -2.0], "x1": [1.5, -1.0]})
        expected = model.predict_proba(pd.DataFrame({"x1": [1.5, -1.0], "x2": [2.0, -2.0]}))
        assert status == 200
        assert told["prediction"] == ["stays", "leaves"]
        assert np.allclose(told["probabilities"]["stays"], expected[:, list(model.classes_).index("stays")])


def test_a_folder_and_a_file_are_served_without_a_registry(tmp_path: Path) -> None:
    _, bundle = line(tmp_path / "my line", 1.0)
    one_file = bundle.write_file(tmp_path / "line.zip")
    with (
        serve(str(tmp_path / "my line"), f"other={one_file}", registry=tmp_path / "none") as server,
        Asker(server) as ask,
    ):
        status, told = ask("/models/my-line/predict")
        assert status == 200 and "version" not in told
        assert ask("/models/other/predict")[1]["prediction"] == pytest.approx(6.5)
        assert ask("/models/other", None)[1]["versions"][0]["version"] is None
    assert not (tmp_path / "none").exists()


def test_a_damaged_bundle_is_not_served(tmp_path: Path) -> None:
    line(tmp_path / "bundle", 1.0)
    graph = next((tmp_path / "bundle").rglob("*.onnx"))
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(bytes(data))
    with pytest.raises(BadBundle, match=graph.name):
        serve(str(tmp_path / "bundle"))


@pytest.mark.parametrize("reference", ["nobody", "nobody@production", "nobody:1", "./nowhere"])
def test_what_is_not_there(registry: Registry, reference: str) -> None:
    with pytest.raises(NotFound):
        serve(reference, registry=registry)


def test_promote_and_rollback_under_load_lose_nothing_and_mix_nothing(registry: Registry, tmp_path: Path) -> None:
    for number, scale in ((1, 1.0), (2, 10.0)):
        registry.register(line(tmp_path / f"bundle{number}", scale)[1], "line")
    assert registry.resolve("line@production").number == 1
    expected = {1: 6.5, 2: 65.0}
    with serve("line@production", registry=tmp_path / "home") as server, Asker(server) as ask:
        stop, faults, counts = threading.Event(), [], {1: 0, 2: 0}

        def call() -> None:
            with Asker(server) as ask:
                while not stop.is_set():
                    status, told = ask()
                    if status != 200 or abs(told["prediction"] - expected[told["version"]]) > 1e-6:
                        faults.append((status, told))
                    else:
                        counts[told["version"]] += 1

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for change, number in ((lambda: registry.promote("line", 2), 2), (lambda: registry.rollback("line"), 1)) * 3:
            change()
            until(lambda number=number: ask()[1]["version"] == number)  # type: ignore[misc]
            before = counts[number]
            until(lambda number=number, before=before: counts[number] > before)  # type: ignore[misc]
        stop.set()
        for thread in threads:
            thread.join()
    assert not faults
    assert counts[1] and counts[2]


def test_a_stream_that_is_open_follows_a_promotion(registry: Registry, tmp_path: Path) -> None:
    python = interpreter("triton")
    script = Path(__file__).parents[1] / "clients" / "stream_client.py"
    for number, scale in ((1, 1.0), (2, 10.0), (3, 100.0)):
        registry.register(line(tmp_path / f"bundle{number}", scale)[1], "line")
    with (
        serve("line@production", registry=tmp_path / "home") as server,
        subprocess.Popen(
            [python, script, str(server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as stream,
    ):
        assert stream.stdin is not None and stream.stdout is not None

        def send() -> str:
            print("again", file=stream.stdin, flush=True)
            return stream.stdout.readline().strip()  # type: ignore[union-attr]

        assert send() == "4.0"
        for number, expected in ((2, "40.0"), (3, "400.0")):
            registry.promote("line", number)
            until(lambda expected=expected: send() == expected)  # type: ignore[misc]
        stream.stdin.close()


def test_a_promoted_version_that_is_damaged_leaves_the_old_one_serving(registry: Registry, tmp_path: Path) -> None:
    registry.register(line(tmp_path / "bundle1", 1.0)[1], "line")
    second = line(tmp_path / "bundle2", 10.0)[1]
    registry.register(second, "line")
    graph = next((tmp_path / "bundle2").rglob("*.onnx")).read_bytes()
    (blob,) = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and graph in path.read_bytes()]
    with serve("line@production", registry=tmp_path / "home") as server, Asker(server) as ask:
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes()[:-20])
        registry.promote("line", 2)
        until(lambda: bool(server.catalog.faults()))
        assert ask()[1]["version"] == 1
        status, told = ask("/health/ready", None)
        assert status == 200
        assert "version 1 goes on serving" in told["faults"]["line@production"]
        registry.rollback("line")
        until(lambda: not server.catalog.faults())
