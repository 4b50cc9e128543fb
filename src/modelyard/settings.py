"""The table of settings, one row each, and the only reader of the environment.

A setting named ``home`` is read from ``MODELYARD_HOME``. Options of a command win over the environment, the
environment over the default. The table also drives ``modelyard settings`` and the page in the documentation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelyard.errors import InvalidInput, NotFound


class Setting(msgspec.Struct, frozen=True):
    """One row: its name, how text becomes a value, the default as text, what it is for, and how a value must look."""

    name: str
    parse: Callable[[str], Any]
    default: str
    purpose: str
    expects: str = "a text"

    @property
    def variable(self) -> str:
        return f"MODELYARD_{self.name.upper()}"

    @property
    def is_switch(self) -> bool:
        return self.parse is _switch


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


def _some_words(text: str) -> tuple[str, ...]:
    words = _words(text)
    if not words:
        raise ValueError
    return words


_ORIGIN = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?[a-z0-9.-]+(?::[0-9]{1,5})?|\*")


def _origins(text: str) -> tuple[str, ...]:
    words = tuple(word.lower().removesuffix("/") for word in _words(text))
    if not all(map(_ORIGIN.fullmatch, words)):
        raise ValueError(text)
    return words


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _size(text: str) -> int:
    """Bytes from ``64MB``, ``1GiB``, ``512k`` or a plain number; powers of 1024."""
    cleaned = text.strip().lower().removesuffix("b").removesuffix("i")
    scale = {"k": 1, "m": 2, "g": 3, "t": 4}.get(cleaned[-1:], 0)
    return int(float(cleaned[: -1 if scale else None]) * 1024**scale)


def _whole(low: int, high: float = float("inf")) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return parse


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _some_seconds(text: str) -> float:
    seconds = _seconds(text)
    if seconds < 1:
        raise ValueError(text)
    return seconds


_days = _seconds


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError(text)
    return share


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(text)
        return text.lower()

    return parse


def _switch(text: str) -> bool:
    if text.lower() not in ("on", "off", "yes", "no", "true", "false", "1", "0", ""):
        raise ValueError(text)
    return text.lower() in ("on", "yes", "true", "1")


_SECONDS = "a number of seconds"
_DAYS = "a number of days"
_COUNT = "a whole number, or 0"
_SHARE = "a number from 0 to 1"
_SWITCH = "on or off"
_POSITIVE = "a whole number above 0"

TABLE: tuple[Setting, ...] = (
    Setting("home", _path, "~/.modelyard", "folder of the embedded registry: its database, blobs and cache"),
    Setting("registry", str, "", "registry to use instead: a folder or a postgresql:// URL"),
    Setting("store", str, "", "folder of the registry's blobs; inside the home folder when empty"),
    Setting("trust", _words, "", "digests and public-key files whose pickles may be loaded, comma-separated"),
    Setting("host", str, "127.0.0.1", "address that a server binds to"),
    Setting(
        "port",
        _whole(0, 65535),
        "8080",
        "port that a server binds to; 0 picks a free one",
        "a whole number from 0 to 65535",
    ),
    Setting(
        "console_port",
        _whole(0, 65535),
        "8090",
        "port that the console binds to; 0 picks a free one",
        "a whole number from 0 to 65535",
    ),
    Setting(
        "wires",
        _some_words,
        "native,oip,tfserving,kserve,mlflow,seldon",
        "wire protocols that a server speaks",
        "at least one name, like native,oip",
    ),
    Setting("workers", _whole(1, 512), "1", "processes that share a server's port", "a whole number from 1 to 512"),
    Setting(
        "isolation",
        _one_of("auto", "off", "all"),
        "auto",
        "which models run in processes of their own: those that need Python (auto), none (off) or all",
        "auto, off or all",
    ),
    Setting("model_processes", _whole(1, 512), "1", "processes of each isolated model", _POSITIVE),
    Setting("model_seconds", _seconds, "60", "longest call of a model before it counts as hung", _SECONDS),
    Setting("memory", _size, "0", "memory that all models together may take; 0 sets no bound", "a size, like 8GB"),
    Setting(
        "weights",
        _one_of("auto", "mapped", "packed"),
        "auto",
        "large weights of ONNX models: read where their file is mapped, which processes share and one row is fastest "
        "with; or packed, a copy in each process that is faster for batches; auto maps them where workers share",
        "auto, mapped or packed",
    ),
    Setting("request_seconds", _seconds, "60", "how long a request may take where the caller says nothing", _SECONDS),
    Setting("max_body", _size, "64MB", "largest request body that a server accepts", "a size, like 64MB"),
    Setting("max_rows", _whole(1), "1000000", "most rows in one request", _POSITIVE),
    Setting("batch_rows", _whole(1), "8192", "most rows in one call of a model", _POSITIVE),
    Setting("queue_requests", _whole(1), "4096", "requests that may wait for one model", _POSITIVE),
    Setting("queue_rows", _whole(1), "262144", "rows that may wait for one model", _POSITIVE),
    Setting("queue_seconds", _seconds, "5", "longest expected wait at which a request is still taken", _SECONDS),
    Setting("cache", _size, "0", "memory for answers to be given again; 0 keeps none", "a size, like 64MB"),
    Setting("control", _switch, "off", "whether clients may load and unload models", _SWITCH),
    Setting("keys", _switch, "off", "whether calls need an API key", _SWITCH),
    Setting("public", _switch, "off", "whether a server without keys may bind to other than loopback", _SWITCH),
    Setting("production", _switch, "off", "whether answers keep schemas and reasons to themselves", _SWITCH),
    Setting(
        "reflection",
        _one_of("auto", "on", "off"),
        "auto",
        "whether gRPC clients may ask which services and messages there are; auto: unless in production",
        "auto, on or off",
    ),
    Setting(
        "origins",
        _origins,
        "",
        "origins whose web pages may call a server (CORS), comma-separated; * for all",
        "origins, like https://shop.example, or hosts, like shop.example",
    ),
    Setting("admin_port", _whole(0, 65535), "0", "port of admin calls and metrics; 0 keeps them on the main port"),
    Setting("tls_certificate", str, "", "file with the certificate chain, in PEM; makes a server speak TLS"),
    Setting("tls_key", str, "", "file with the certificate's private key, in PEM"),
    Setting("tls_clients", str, "", "file with the authorities that clients' certificates must come from, in PEM"),
    Setting("poll_seconds", _seconds, "0.25", "how often a server looks for moved aliases", _SECONDS),
    Setting("drain_seconds", _seconds, "30", "how long a stopping server waits for requests in flight", _SECONDS),
    Setting(
        "access_log",
        _one_of("errors", "all", "off"),
        "errors",
        "which answers a server logs: errors, all or off",
        "errors, all or off",
    ),
    Setting("log_clients", _switch, "off", "whether the access log tells the addresses of clients", _SWITCH),
    Setting(
        "metrics_folder",
        str,
        "",
        "folder in which processes that mount the same models count together; each for itself when empty",
    ),
    Setting("traces", _share, "0", "share of requests without a trace context for which a trace begins", _SHARE),
    Setting(
        "otlp",
        str,
        "",
        "address of an OpenTelemetry receiver (OTLP over HTTP) of spans; OTEL_EXPORTER_OTLP_ENDPOINT when empty",
    ),
    Setting(
        "record",
        _switch,
        "on",
        "whether predictions are recorded and watched; of bundles by their paths, and where models are mounted, only "
        "if it is set",
        _SWITCH,
    ),
    Setting("records", str, "", "folder of what is recorded of predictions; in the home folder when empty; or off"),
    Setting("record_sample", _whole(0), "100", "of so many requests the inputs of one are kept; 0 for none", _COUNT),
    Setting("record_days", _days, "30", "days that recorded predictions are kept", _DAYS),
    Setting("record_size", _size, "10GB", "disk space that recorded predictions may take", "a size, like 10GB"),
    Setting("window_seconds", _some_seconds, "60", "seconds after which a window of counts closes", _SECONDS),
    Setting("window_rows", _whole(1), "100000", "rows after which a window of counts closes", _POSITIVE),
    Setting("window_days", _days, "400", "days that windows of counts are kept", _DAYS),
    Setting(
        "train_rows",
        _whole(1),
        "200000",
        "most rows that training looks at; more are sampled",
        "a whole number above 0",
    ),
    Setting(
        "log_level",
        _one_of("debug", "info", "warning", "error"),
        "info",
        "least grave lines that a server logs: debug, info, warning or error",
        "debug, info, warning or error",
    ),
    Setting("user", str, "", "who is written into the history; the login name when empty"),
)

_BY_NAME = {setting.name: setting for setting in TABLE}


def get(name: str, given: Any = None) -> Any:
    """The value of a setting: ``given`` if it is not None, else from the environment, else the default.

    Raises InvalidInput where the environment holds a value that does not parse.
    """
    if given is not None:
        return given
    setting = _BY_NAME[name]
    text = os.environ.get(setting.variable)
    if text is None:
        return setting.parse(setting.default)
    return _parse(setting, text, setting.variable)


def environment(**chosen: Any) -> dict[str, str]:
    """The environment for a process that is to have the settings of this one, but for those ``chosen`` (not None)."""
    ours = {_BY_NAME[name].variable: str(value) for name, value in chosen.items() if value is not None}
    return {**os.environ, **ours}


def _parse(setting: Setting, text: str, path: str) -> Any:
    try:
        return setting.parse(text)
    except (ValueError, OverflowError):
        raise InvalidInput.at(path, setting.expects, repr(text)) from None


class Chosen:
    """Settings as attributes: those given, else the environment's, else the defaults. Looked up once each.

    Raises NotFound for a given name that is no setting, InvalidInput for a text that does not parse.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        for name in given:
            if name not in _BY_NAME:
                raise NotFound.among("option", name, _BY_NAME)
        self._given = given

    def is_set(self, name: str) -> bool:
        """Whether somebody chose the value, rather than that it is the default."""
        return self._given.get(name) is not None or _BY_NAME[name].variable in os.environ

    def __getattr__(self, name: str) -> Any:
        if name not in _BY_NAME:
            raise AttributeError(name)
        value = self._given.get(name)
        if isinstance(value, str):
            value = _parse(_BY_NAME[name], value, name)
        value = self.__dict__[name] = get(name, value)
        return value


def spans_address(given: str) -> str:
    """Where spans are sent: ``given``, else what OpenTelemetry's own variables say; "" for nowhere.

    Raises InvalidInput where those ask for another protocol than ours.
    """
    if given:
        return f"{given.rstrip('/')}/v1/traces"
    known = os.environ
    if known.get("OTEL_SDK_DISABLED", "").lower() == "true" or known.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return ""
    address = known.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    if base := known.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""):
        address = address or f"{base.rstrip('/')}/v1/traces"
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = known.get(variable, "")
        if address and protocol not in ("", "http/protobuf"):
            hint = "set it to http/protobuf, with the receiver's port for HTTP (usually 4318)"
            raise InvalidInput.at(variable, "http/protobuf", protocol, hint=hint)
        if protocol:
            break
    return address


def who() -> str:
    """The name that history rows carry."""
    import getpass

    named: str = get("user")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


class Cloud(msgspec.Struct, frozen=True, kw_only=True):
    """What the contract of a cloud's container asks of a server, as the environment tells."""

    #: The wire that speaks it: ``sagemaker``, ``vertex`` or ``azure``.
    name: str
    #: Settings by their names, but for those that our own variables set.
    options: dict[str, Any]
    #: Where the cloud puts the model; "" where it brings none.
    folder: str = ""
    #: SageMaker: models come and go over the wire.
    is_multi_model: bool = False
    #: SageMaker: what an answer is where the caller does not say.
    accept: str = ""
    #: Vertex AI: the paths of health and prediction.
    health: str = ""
    predict: str = ""


def cloud() -> Cloud | None:
    """The cloud in whose container we run, or None. Raises InvalidInput where a variable holds no number."""
    known = os.environ
    base = known.get("SAGEMAKER_BASE_DIR", "/opt/ml")
    if any(name in known for name in _SAGEMAKER) or any(Path(base, name).is_dir() for name in ("model", "models")):
        is_multi = known.get("SAGEMAKER_MULTI_MODEL", "").lower() in ("true", "1")
        return Cloud(
            name="sagemaker",
            options=_options(
                "sagemaker", _port_in(known.get("SAGEMAKER_SAFE_PORT_RANGE", "")), port="SAGEMAKER_BIND_TO_PORT",
                workers="SAGEMAKER_MODEL_SERVER_WORKERS", request_seconds="SAGEMAKER_MODEL_SERVER_TIMEOUT",
            ) | ({"control": True} if is_multi else {}),
            folder="" if is_multi else f"{base}/model",
            is_multi_model=is_multi,
            accept=known.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", ""),
        )  # fmt: skip
    if any(name in known for name in _VERTEX):
        endpoint, deployed = known.get("AIP_ENDPOINT_ID", "0"), known.get("AIP_DEPLOYED_MODEL_ID", "0")
        route = f"/v1/endpoints/{endpoint}/deployedModels/{deployed}"
        return Cloud(
            name="vertex",
            options=_options("vertex", 8080, port="AIP_HTTP_PORT", workers="VERTEX_CPR_WEB_CONCURRENCY"),
            folder="" if "://" in known.get("AIP_STORAGE_URI", "") else known.get("AIP_STORAGE_URI", ""),
            health=known.get("AIP_HEALTH_ROUTE") or route,
            predict=known.get("AIP_PREDICT_ROUTE") or f"{route}:predict",
        )
    if any(name in known for name in _AZURE):
        return Cloud(
            name="azure",
            options=_options("azure", 5001, workers="WORKER_COUNT", origins="AML_CORS_ORIGINS"),
            folder=known.get("AZUREML_MODEL_DIR", ""),
        )
    return None


_SAGEMAKER = (
    "SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_SAFE_PORT_RANGE", "SAGEMAKER_MULTI_MODEL", "SAGEMAKER_PROGRAM",
    "SAGEMAKER_CONTAINER_LOG_LEVEL", "SAGEMAKER_BASE_DIR", "SAGEMAKER_MODEL_SERVER_WORKERS",
    "SAGEMAKER_MODEL_SERVER_TIMEOUT", "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT",
)  # fmt: skip
_VERTEX = ("AIP_HTTP_PORT", "AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE", "AIP_MODE")
_AZURE = ("AZUREML_MODEL_DIR", "AZUREML_ENTRY_SCRIPT", "AML_APP_ROOT")


def _options(wire: str, usual_port: int, **variables: str) -> dict[str, Any]:
    """The settings that a cloud's variables stand for; a container's address is public, the cloud guards it."""
    found: dict[str, Any] = {"host": "0.0.0.0", "port": usual_port, "public": True}
    for name, variable in variables.items():
        if text := os.environ.get(variable):
            found[name] = _parse(_BY_NAME[name], text, variable)
    found = {name: value for name, value in found.items() if _BY_NAME[name].variable not in os.environ}
    return found | {"wires": tuple(dict.fromkeys((wire, *get("wires"))))}


def _port_in(span: str) -> int:
    """8080, or the first port of a range such as ``9000-9999`` that does not hold it."""
    low, _, high = span.partition("-")
    if low.isdecimal() and high.isdecimal() and not int(low) <= 8080 <= int(high):
        return int(low)
    return 8080
