"""Which cloud's container we run in, and what its environment asks of a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard import settings
from modelyard.errors import InvalidInput


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of a cloud, and none of ours that would win over it."""
    import os

    for name in list(os.environ):
        if name.startswith(("SAGEMAKER_", "AIP_", "AZUREML_", "AML_", "MODELYARD_", "WORKER_", "VERTEX_")):
            monkeypatch.delenv(name)


def here(monkeypatch: pytest.MonkeyPatch, **variables: str) -> settings.Cloud:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = settings.cloud()
    assert found is not None
    return found


def test_nowhere() -> None:
    assert settings.cloud() is None


@pytest.mark.parametrize("variable", ["SAGEMAKER_PROGRAM", "SAGEMAKER_CONTAINER_LOG_LEVEL"])
def test_sagemaker(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    found = here(monkeypatch, **{variable: "20"})
    assert (found.name, found.folder, found.is_multi_model) == ("sagemaker", "/opt/ml/model", False)
    assert found.options["host"] == "0.0.0.0" and found.options["port"] == 8080 and found.options["public"] is True
    assert found.options["wires"][:2] == ("sagemaker", "native") and "control" not in found.options


@pytest.mark.parametrize(
    ("variables", "port"),
    [
        ({"SAGEMAKER_BIND_TO_PORT": "9000"}, 9000),
        ({"SAGEMAKER_SAFE_PORT_RANGE": "8000-8999"}, 8080),
        ({"SAGEMAKER_SAFE_PORT_RANGE": "9000-9999"}, 9000),
        ({"SAGEMAKER_BIND_TO_PORT": "9005", "SAGEMAKER_SAFE_PORT_RANGE": "9000-9999"}, 9005),
        ({"SAGEMAKER_SAFE_PORT_RANGE": "any"}, 8080),
        ({"SAGEMAKER_BIND_TO_PORT": "9000", "MODELYARD_PORT": "7000"}, None),
    ],
)
def test_ports_of_sagemaker(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], port: int | None) -> None:
    assert here(monkeypatch, **variables).options.get("port") == port


def test_sagemaker_by_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "_SAGEMAKER", ())
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    assert settings.cloud() is None
    (tmp_path / "model").mkdir()
    assert here(monkeypatch).folder == f"{tmp_path}/model"


def test_more_of_sagemaker(monkeypatch: pytest.MonkeyPatch) -> None:
    found = here(
        monkeypatch, SAGEMAKER_MULTI_MODEL="true", SAGEMAKER_MODEL_SERVER_WORKERS="3",
        SAGEMAKER_MODEL_SERVER_TIMEOUT="120", SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv",
    )  # fmt: skip
    assert found.is_multi_model and found.folder == "" and found.accept == "text/csv"
    assert found.options["control"] is True and found.options["workers"] == 3
    assert found.options["request_seconds"] == 120


def test_vertex(monkeypatch: pytest.MonkeyPatch) -> None:
    found = here(monkeypatch, AIP_MODE="PREDICTION", AIP_ENDPOINT_ID="1", AIP_DEPLOYED_MODEL_ID="2")
    assert found.name == "vertex" and found.options["port"] == 8080
    assert (found.health, found.predict) == (
        "/v1/endpoints/1/deployedModels/2", "/v1/endpoints/1/deployedModels/2:predict",
    )  # fmt: skip
    found = here(monkeypatch, AIP_HTTP_PORT="9000", AIP_HEALTH_ROUTE="/up", AIP_PREDICT_ROUTE="/ask")
    assert (found.options["port"], found.health, found.predict) == (9000, "/up", "/ask")


def test_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    found = here(monkeypatch, AZUREML_MODEL_DIR="/var/models", WORKER_COUNT="2", MODELYARD_HOST="127.0.0.1")
    assert (found.name, found.folder, found.options["port"]) == ("azure", "/var/models", 5001)
    assert found.options["workers"] == 2 and "host" not in found.options  # our own variable wins


def test_azure_tells_whose_pages_may_call(monkeypatch: pytest.MonkeyPatch) -> None:
    found = here(monkeypatch, AZUREML_MODEL_DIR="/m", AML_CORS_ORIGINS="www.Contoso.com, https://a.example/,*")
    assert found.options["origins"] == ("www.contoso.com", "https://a.example", "*")
    monkeypatch.setenv("AML_CORS_ORIGINS", r"https://.*\.contoso\.com")
    with pytest.raises(InvalidInput, match=r"AML_CORS_ORIGINS: expected origins, like https://shop\.example"):
        settings.cloud()


def test_our_own_wires_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    found = here(monkeypatch, AIP_MODE="PREDICTION", MODELYARD_WIRES="oip,vertex")
    assert found.options["wires"] == ("vertex", "oip")


def test_a_number_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_HTTP_PORT", "many")
    with pytest.raises(InvalidInput, match="AIP_HTTP_PORT"):
        settings.cloud()
