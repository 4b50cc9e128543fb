"""Monitoring through the command line, on windows as a recorder writes them."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from commands import Done, environment, type_in
from modelyard.registry import Registry
from receivers import receiving
from traffic import Traffic

Type = Callable[..., Done]


def older(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
    columns["age"] = columns["age"] + 8
    columns["weight"] = columns["weight"] * 2.54


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Registry, Traffic]:
    """A registry with a model of two versions, and its traffic."""
    for name in environment(tmp_path / "home"):
        if name.startswith("MODELYARD_"):
            monkeypatch.setenv(name, environment(tmp_path / "home")[name])
    registry, traffic = Registry.open(tmp_path / "home"), Traffic(1)
    traffic.moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=3)
    registry.register(traffic.bundle(tmp_path / "one"), "churn")
    return registry, traffic


@pytest.fixture
def cli(yard: tuple[Registry, Traffic], tmp_path: Path) -> Type:
    return lambda *words: type_in(tmp_path / "home", tmp_path, *words)


def write(yard: tuple[Registry, Traffic], count: int, change: Any = None, **more: Any) -> None:
    registry, traffic = yard
    registry.windows.add([msgspec.structs.replace(w, id=0) for w in traffic.windows(count, change=change, **more)])


def test_what_a_person_sees_of_a_model_that_drifts(yard: tuple[Registry, Traffic], cli: Type, tmp_path: Path) -> None:
    write(yard, 30)
    write(yard, 20, change=older)
    assert cli("watch", "--once").out == "done\n"

    shown = cli("monitor", "churn", "--html", "report.html")
    assert shown.code == 0, shown.err
    assert "churn:1: 75,000 rows, 75,000 requests, 0 failed" in shown.out
    assert "open findings: 2" in shown.out
    assert re.search(r"weight +ks +0\.\d+ .*unit", shown.out)
    assert re.search(r"age +ks +0\.\d+ .*drift", shown.out)
    assert "weight looks like another unit: times 2.54, as inches become centimetres" in shown.out
    assert "nobody watches" in shown.err
    assert "█" in shown.out

    told = cli("monitor", "churn", "--json").json
    (arm,) = told["arms"]
    features = {feature["name"]: feature for feature in arm["features"]}
    assert (features["weight"]["open"], features["city"]["open"]) == (["unit"], [])
    for name in ("psi", "js", "chi2", "ks", "wasserstein"):
        found = features["age"]["distances"][name]
        assert found["value"] > found["critical"] > 0, name
    assert {"psi", "js", "chi2"} == set(features["city"]["distances"])
    assert arm["latency"]["predict"]["p95"] > arm["latency"]["decode"]["p95"] > 0

    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert not re.search(r"(src|href)=", page)
    assert "weight looks like another unit" in page
    assert page.count("<svg") > 10

    number = str(told["findings"][0]["id"])
    detail = cli("monitor", "churn", "--finding", number)
    assert "chance exceeds 1 in 20" in detail.out
    assert "such findings a month are to be expected where nothing changes" in detail.out


def test_alerts_are_listed_acknowledged_and_silenced(yard: tuple[Registry, Traffic], cli: Type) -> None:
    write(yard, 5, change=older)
    assert cli("alerts", "silence", "churn", "--for", "1h", "--why", "a campaign").code == 0
    cli("watch", "--once")
    (alert,) = cli("alerts", "list", "--json").json["alerts"]
    assert alert["state"] == "silenced"
    listed = cli("alerts", "list")
    assert "a campaign" in listed.out
    assert cli("alerts", "silence", "--end", "1").out == "silence 1 is over\n"
    cli("watch", "--once")
    shown = cli("alerts", "show", "1")
    assert "log" in shown.out
    assert "sent" in shown.out
    assert cli("alerts", "ack", "1", "--why", "on it").out.startswith("acknowledged alert 1: churn:1: weight")
    assert cli("alerts", "list", "--json").json["alerts"][0]["state"] == "acknowledged"
    history = cli("history", "churn", "--json").json
    assert [change["action"] for change in history][-1] == "acknowledge"
    assert "silence" in [change["action"] for change in history]


def test_rules_are_shown_and_changed(yard: tuple[Registry, Traffic], cli: Type) -> None:
    assert "drift.ks" in cli("monitor", "rules").out
    words = ("--set", "drift.ks=0.5", "--set", "drift.ignore=weight", "--why", "it is noisy", "--json")
    changed = cli("monitor", "rules", "churn", *words).json
    assert yard[0].history("churn")[-1].why == "it is noisy"
    assert (changed["drift"]["ks"], changed["drift"]["ignore"]) == (0.5, ["weight"])
    assert re.search(r"drift\.ks +0\.5 +\*", cli("monitor", "rules", "churn").out)
    write(yard, 5, change=older)
    cli("watch", "--once")
    assert cli("monitor", "churn", "--json").json["findings"] == []
    assert cli("monitor", "rules", "churn", "--unset", "drift", "--json").json["drift"]["ks"] == 0.1
    wrong = cli("monitor", "rules", "--set", "drift.kz=1", "--json")
    assert (wrong.code, wrong.error["code"]) == (3, "not_found")
    assert "modelyard monitor rules lists them" in wrong.error["hint"]
    assert cli("monitor", "rules", "--set", "drift.ks", "--json").error["code"] == "invalid_input"


def test_sinks_are_tried(cli: Type) -> None:
    with receiving() as receiver, receiving(500) as broken:
        done = cli(
            "monitor", "rules", "--set", "sinks.ops.kind=slack", "--set", f"sinks.ops.url={receiver.url}/secret/path",
            "--set", "sinks.bad.kind=webhook", "--set", f"sinks.bad.url={broken.url}/hook",
        )  # fmt: skip
        assert done.code == 0, done.err
        assert "secret/path" not in done.out
        tried = cli("alerts", "test", "--json")
        assert tried.code == 10
        outcomes = {row["sink"]: row["error"] for row in tried.json}
        assert (outcomes["log"], outcomes["ops"]) == ("", "")
        assert "answered 500" in outcomes["bad"]
        assert cli("alerts", "test", "--sink", "ops").code == 0
        assert cli("alerts", "test", "--sink", "pager", "--json").error["code"] == "not_found"
    assert json.loads(receiver.got[0][2])["text"] == "Test: a test of Modelyard's alerts"


def test_the_selftest_finds_what_it_injects_and_nothing_else(yard: tuple[Registry, Traffic], cli: Type) -> None:
    words = ("monitor", "selftest", "churn", "--runs", "3", "--looks", "20", "--json")
    tried = cli(*words).json
    assert "too few: its reference was taken instead" in tried["told"]
    write(yard, 30)
    tried = cli(*words).json
    assert "30 blocks of its own traffic" in tried["told"]
    assert (tried["null_looks"], tried["false_findings"]) == (60, 0)
    found = {(trial["what"], trial["named"]): trial for trial in tried["trials"]}
    assert found["times 2.54", "unit"]["found"] == 3
    assert found["1 in 5 goes missing", "missing"]["found"] == 3
    assert found["1 in 20 becomes a new text", "category"]["looks"] == 2
    assert "nothing injected: 0 findings in 60 looks" in cli(*words[:-1]).out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("monitor", "chrun"), "not_found", "no such model: chrun"),
        (("monitor", "churn", "--version", "7"), "not_found", "no such version of churn with recorded traffic: 7"),
        (("monitor", "churn", "--finding", "99"), "not_found", "no such finding: 99"),
        (("alerts", "ack", "5"), "not_found", "no such alert: 5"),
        (("alerts", "silence", "--for", "yesterday"), "invalid_input", "moment"),
        (("monitor", "selftest", "chrun"), "not_found", "no such model: chrun"),
    ],
)
def test_mistakes_are_told(cli: Type, words: tuple[str, ...], code: str, message: str) -> None:
    done = cli(*words, "--json")
    assert done.error["code"] == code
    assert message in done.error["message"]


def test_a_model_without_traffic_says_so(cli: Type) -> None:
    shown = cli("monitor", "churn")
    assert shown.code == 0
    assert "no predictions were recorded in the last 24 hours" in shown.err
    assert "open findings: 0" in shown.out


def test_a_small_reference_says_what_cannot_be_claimed(
    yard: tuple[Registry, Traffic], cli: Type, tmp_path: Path
) -> None:
    registry, _ = yard
    small = Traffic(2, rows=20)
    small.moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    registry.register(small.bundle(tmp_path / "small"), "small")
    registry.windows.add([msgspec.structs.replace(w, id=0, model="small") for w in small.windows(5)])
    assert "what cannot be claimed: the reference has 20 rows" in cli("monitor", "small").out
