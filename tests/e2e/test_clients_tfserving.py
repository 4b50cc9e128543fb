"""TensorFlow Serving's own stubs, as they come, against a running server. All their calls run in one process, because
TensorFlow takes long to start; the tests look at what came of each.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from clients import interpreter
from modelyard.bundle import pack
from modelyard.registry import Registry
from modelyard.serving.server import Server

SCRIPT = Path(__file__).parents[1] / "clients" / "tfserving_client.py"

RNG = np.random.default_rng(5)
FRAME = pd.DataFrame({"x1": RNG.normal(size=80), "x2": RNG.normal(size=80)})
CHURN = [
    LogisticRegression().fit(FRAME, np.where(sign * FRAME.x1 > FRAME.x2, "yes", "no")) for sign in (1, -1)
]  # version 1 and version 2
LINE = LinearRegression().fit(FRAME, FRAME.x1 + 2 * FRAME.x2 + 1)
ROWS = pd.DataFrame({"x1": [0.5, -1.0], "x2": [0.25, 2.0]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tfserving")
    registry = Registry.open(folder / "home")
    for number, model in enumerate(CHURN, 1):
        registry.register(pack(model, folder / f"churn-{number}", sample=FRAME), "churn")
    registry.register(pack(LINE, folder / "line", sample=FRAME), "line")
    registry.promote("churn", 2)
    registry.promote("churn", 1, alias="old")
    options: dict[str, Any] = {"port": 0, "access_log": "off", "control": True, "wires": ["tfserving"]}
    with Server(["churn:all", "line"], registry=registry, **options) as server:
        yield server


@pytest.fixture(scope="module")
def came(server: Server) -> dict[str, Any]:
    """What came of each of the script's functions."""
    command = [str(interpreter("tfs")), str(SCRIPT), str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(told: dict[str, Any], version: int, rows: pd.DataFrame = ROWS, signature: str = "serving_default") -> None:
    model = CHURN[version - 1]
    assert told["spec"] == ["churn", version, signature]
    assert np.allclose(told["outputs"]["probabilities"], model.predict_proba(rows), rtol=1e-5)
    if "prediction" in told["outputs"]:
        assert told["outputs"]["prediction"] == model.predict(rows).tolist()


def test_predict(came: dict[str, Any]) -> None:
    check(came["predict"], 2)
    assert came["predict"]["dtypes"]["prediction"] == 7
    check(came["predict_python_lists"], 2)
    check(came["predict_one_value_for_all"], 2, pd.DataFrame({"x1": [0.5, -1.0], "x2": [0.25, 0.25]}))


def test_a_matrix_of_many_rows_and_one_output(came: dict[str, Any]) -> None:
    told = came["predict_matrix"]
    assert list(told["outputs"]) == ["probabilities"]
    check(told, 2, pd.DataFrame(told["inputs"], columns=["x1", "x2"]))


def test_versions_and_labels(came: dict[str, Any]) -> None:
    first, labelled, old = came["predict_versions"]
    check(first, 1)
    check(labelled, 2)
    check(old, 1, signature="predict")


def test_many_calls_on_one_channel(came: dict[str, Any]) -> None:
    frame = pd.DataFrame({"x1": np.arange(50.0), "x2": np.zeros(50)})
    assert np.allclose(came["predict_many_at_once"], LINE.predict(frame), rtol=1e-5)


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("model", "NOT_FOUND", "no such model: nobody"),
        ("version", "NOT_FOUND", "no such version of churn"),
        ("label", "NOT_FOUND", "no such alias of churn"),
        ("input", "INVALID_ARGUMENT", "inputs.x2: expected a tensor, got nothing"),
        ("type", "INVALID_ARGUMENT", "inputs.x1.dtype: expected DT_FLOAT, DT_DOUBLE"),
        ("rows", "INVALID_ARGUMENT", "inputs.x2.tensor_shape: expected 1 rows"),
        ("signature", "INVALID_ARGUMENT", "model_spec.signature_name: expected one of serving_default"),
        ("regress", "INVALID_ARGUMENT", "a signature that churn has: serving_default, classification"),
    ],
)
def test_refusals(came: dict[str, Any], fault: str, code: str, words: str) -> None:
    got, told = came["refusals"][fault]
    assert got == code
    assert words in told


def test_examples(came: dict[str, Any]) -> None:
    model = CHURN[1]
    assert came["classify"]["version"] == 2
    for row, scores in zip(came["classify"]["rows"], model.predict_proba(ROWS), strict=True):
        assert [label for label, _ in row] == model.classes_.tolist()
        assert np.allclose([score for _, score in row], scores, rtol=1e-5)
    assert np.allclose(came["regress"], LINE.predict(pd.DataFrame({"x1": [0.5, -1], "x2": [0.25, 0.25]})), rtol=1e-5)
    assert came["multi_inference"] == ["no", "no"]  # the first label of each row


def test_what_models_are(came: dict[str, Any]) -> None:
    assert came["metadata"] == {
        "version": 2,
        "signatures": ["classification", "serving_default"],
        "inputs": {"x1": ["float64", [-1]], "x2": ["float64", [-1]]},
    }
    assert came["status"] == [[2, "AVAILABLE", 0], [1, "AVAILABLE", 0]]


def test_rest(came: dict[str, Any]) -> None:
    one = ROWS[:1]
    told = {name: answer for name, (status, answer) in came["rest"].items() if status == 200}
    for name, version in (("rows", 2), ("lists", 1)):
        (row,) = told[name]["predictions"]
        assert row["prediction"] == CHURN[version - 1].predict(one)[0]
        assert np.allclose(row["probabilities"], CHURN[version - 1].predict_proba(one)[0], rtol=1e-5)
    assert told["columns"]["outputs"]["prediction"] == CHURN[0].predict(one).tolist()
    frame = pd.DataFrame({"x1": [0.5, 1.0], "x2": [0.25, 0.0]})
    assert np.allclose(told["line"]["predictions"], LINE.predict(frame), rtol=1e-5)
    assert np.allclose(told["regress"]["results"], LINE.predict(one), rtol=1e-5)
    ((pairs,),) = [told["classify"]["results"]]
    assert [label for label, _ in pairs] == ["no", "yes"]
    assert told["status"]["model_version_status"][0]["version"] == "2"
    assert told["metadata"]["model_spec"]["version"] == "1"
    assert came["rest"]["nobody"][0] == 404 and "Latest(nobody)" in came["rest"]["nobody"][1]["error"]
    assert came["rest"]["empty"][0] == 400


def test_a_configuration_says_all_that_is_served(came: dict[str, Any]) -> None:
    assert came["reload"] == [
        "OK", ["OK", "NOT_FOUND"], "NOT_FOUND",
        "NOT_FOUND", ["OK", "NOT_FOUND"],  # one of the models cannot be had, so all is as before
        "OK", ["OK", "OK"],
        [0, "NOT_FOUND"],
    ]  # fmt: skip
