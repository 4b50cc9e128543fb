"""The conformance kit against our own server, which keeps every rule, and against servers that others have made."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from clients import interpreter
from modelyard.conformance import DIALECTS, Report, check
from modelyard.conformance.checking import dialect
from modelyard.errors import NotFound
from modelyard.schema import Columns, Field, Signature
from modelyard.serving.server import Server
from modelyard.serving.sources import Wanted
from modelyard.testing.memory import MemoryBundle

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/conformance.md"
SERVERS = Path(__file__).parents[1] / "clients"

ROWS = [{"x1": 5.5, "x2": 1, "city": "Rome"}, {"x1": 0.5, "x2": 3, "city": ""}]
LISTS = [list(row.values()) for row in ROWS]
EXAMPLES: dict[str, Any] = {
    "mlflow": {"dataframe_split": {"columns": list(ROWS[0]), "data": LISTS}},
    "sagemaker": {"instances": ROWS},
    "vertex": {"instances": ROWS},
    "kserve": {"instances": ROWS},
    "seldon": {"data": {"names": ["x1", "x2"], "ndarray": [row[:2] for row in LISTS]}},
}

MIXED = Signature(
    inputs=(
        Field(name="x1", dtype="float64"), Field(name="x2", dtype="int64"), Field(name="city", dtype="string"),
    ),
    outputs=(Field(name="prediction", dtype="float64"), Field(name="pair", dtype="float64", shape=(2,))),
)  # fmt: skip
VECTOR = Signature(
    inputs=(Field(name="x", dtype="float32", shape=(3,)),), outputs=(Field(name="prediction", dtype="float32"),)
)


def mixed(columns: Columns) -> dict[str, Any]:
    """prediction = x1 + 10 x2 + 100 * letters of city"""
    answer = columns["x1"] + 10 * columns["x2"] + 100 * np.array([len(city) for city in columns["city"]])
    return {"prediction": answer, "pair": np.stack([answer, -answer], axis=1)}


NUMBERS = Signature(inputs=MIXED.inputs[:2], outputs=MIXED.outputs[:1])


class Source:
    """The models ``m``, of columns of several types, ``n``, of numbers, and ``v``, of one vector."""

    bundles: ClassVar = {
        "m": MemoryBundle(MIXED, mixed, {"x1": [0.0], "x2": [1], "city": ["Rome"]}),
        "n": MemoryBundle(NUMBERS, lambda c: {"prediction": c["x1"] + c["x2"]}, {"x1": [0.0], "x2": [1]}),
        "v": MemoryBundle(VECTOR, lambda columns: {"prediction": columns["x"].sum(axis=1)}, {"x": [[1.0, 2.0, 3.0]]}),
    }

    def marker(self) -> int:
        return 0

    def versions(self, model: str) -> list[str]:
        return ["1"]

    def forget(self, reference: str) -> None: ...

    def resolve(self, reference: str) -> Wanted:
        if reference not in self.bundles:
            raise NotFound.among("model", reference, self.bundles)
        bundle = self.bundles[reference]
        return Wanted(model=reference, version="1", digest=bundle.digest, aliases=(), open=lambda: bundle)


def asked(url: str, protocol: str, **more: Any) -> Report:
    example = json.dumps(EXAMPLES[protocol]).encode() if protocol in EXAMPLES else b""
    return check(url, protocol, **{"model": "m", "body": example, **more})


def told(report: Report, outcome: str) -> dict[str, str]:
    return {each.id: each.reason for each in report.outcomes if each.outcome == outcome}


@pytest.mark.parametrize("protocol", list(DIALECTS))
def test_our_server_keeps_every_rule_of_each_protocol(protocol: str) -> None:
    settings: Any = {"source": Source, "port": 0, "access_log": "off", "control": True, "wires": [protocol]}
    with Server(["n" if protocol == "seldon" else "m"], **settings) as server:
        report = asked(f"http://127.0.0.1:{server.port}", protocol)
    assert told(report, "fail") == {} and report.passed
    # A raw body is for models of one input, and grpcio is no dependency; all else must have been asked.
    assert {each for each in told(report, "skipped") if not each.startswith("grpc")} <= {"binary-raw"}
    assert report.counts["pass"] >= len(dialect(protocol).rules)


@pytest.mark.parametrize("protocol", ["oip", "tfserving", "mlflow"])
def test_our_server_keeps_every_must_with_its_usual_wires(protocol: str) -> None:
    with Server(["m"], source=Source, port=0, access_log="off") as server:
        report = asked(f"http://127.0.0.1:{server.port}", protocol)
    assert report.passed, told(report, "fail")


@pytest.mark.parametrize("protocol", ["oip", "tfserving"])
def test_a_model_of_one_vector_is_asked_what_a_model_of_columns_cannot_be(protocol: str) -> None:
    settings: Any = {"source": Source, "port": 0, "access_log": "off", "control": True, "wires": [protocol]}
    with Server(["v"], **settings) as server:
        report = check(f"http://127.0.0.1:{server.port}", protocol, model="v")
    assert told(report, "fail") == {}
    if protocol == "oip":
        assert "binary-raw" not in told(report, "skipped")


def test_over_tls_what_needs_a_half_closed_connection_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography", reason="certificates are made")
    from certificates import Authority

    authority = Authority(tmp_path)
    certificate, key = authority.sign("server")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    settings: Any = {"source": Source, "port": 0, "access_log": "off", "wires": ["oip"]}
    with Server(["m"], tls_certificate=str(certificate), tls_key=str(key), **settings) as server:
        report = asked(f"https://127.0.0.1:{server.port}", "oip")
    assert told(report, "fail") == {}
    assert told(report, "skipped")["http-short-body"].startswith("TLS")


@contextmanager
def other_server(name: str, folder: Path) -> Iterator[str]:
    """A server that others have made, run by their own interpreter; see ``tests/clients/NAME_server.py``."""
    python = interpreter(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(python), str(SERVERS / f"{name}_server.py"), str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def version_of(name: str) -> str:
    code = f"from importlib.metadata import version; print(version({OTHERS[name][1]!r}))"
    return subprocess.run([str(interpreter(name)), "-c", code], capture_output=True, text=True).stdout.strip()


def table(report: Report) -> str:
    """The rules that a server breaks, as the page has them."""
    lines = ["| rule | | what it asks | what came |", "|---|---|---|---|"]
    for each in report.broken:
        came = each.reason.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
        came = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "...", came)
        came = came if len(came) <= 110 else f"{came[:109].removesuffix('…')}…"
        lines.append(f"| `{each.id}` | {each.severity} | {each.asks} | {came} |")
    return "\n".join(lines)


OTHER_EXAMPLES: dict[str, Any] = {
    "mlflow": {"dataframe_split": {"columns": ["x1", "x2"], "data": [[5, 1], [0, 3]]}},
    "kserve": {"instances": [{"x1": 5, "x2": 1}, {"x1": 0, "x2": 3}]},
}

#: Interpreter -> the protocol, and the distribution that the server comes from.
OTHERS = {"mlserver": ("oip", "mlserver"), "mlflow": ("mlflow", "mlflow-skinny"), "kserve": ("kserve", "kserve")}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OTHERS))
def test_what_others_break_is_what_the_page_says(name: str, tmp_path: Path) -> None:
    """``WRITE=1 pytest tests/e2e/test_conformance.py -k others`` writes the page anew."""
    protocol, distribution = OTHERS[name]
    with other_server(name, tmp_path) as url:
        example = b"" if protocol == "oip" else json.dumps(OTHER_EXAMPLES[protocol]).encode()
        report = check(url, protocol, model="m", body=example)
    mark = re.compile(rf"<!-- {name} ([^ ]+) -->\n(.*?)<!-- end -->", re.DOTALL)
    page = PAGE.read_text(encoding="utf-8")
    version = version_of(name)
    if os.environ.get("WRITE"):
        counts = report.counts
        says = f"{counts['pass']} rules kept, {counts['fail']} broken, {counts['skipped']} not asked."
        text = f"<!-- {name} {version} -->\n{distribution} {version}: {says}\n\n{table(report)}\n<!-- end -->"
        page = mark.sub(lambda _: text, page)
        PAGE.write_text(page, encoding="utf-8")
    found = mark.search(page)
    assert found is not None
    listed = set(re.findall(r"^\| `([^`]+)` \|", found[2], re.MULTILINE))
    assert listed, "the page lists no rule"
    assert listed <= {each.id for each in report.outcomes}, "the page names rules that there are not"
    if found[1] == version:
        assert listed == {each.id for each in report.broken}


def test_our_server_keeps_the_rules_of_grpc() -> None:
    sites = [str(ROOT / "src"), sysconfig.get_paths()["platlib"]]
    with Server(["m"], source=Source, port=0, access_log="off", wires=["oip"]) as server:
        words = [str(interpreter("triton")), str(SERVERS / "conformance_grpc.py"), str(server.port), *sites]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("protocol", list(DIALECTS))
def test_the_page_counts_the_rules(protocol: str) -> None:
    row = re.search(rf"^\| `{protocol}` \|.*\| (\d+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None and int(row[1]) == len(dialect(protocol).rules)
