"""The commands `rollout` and `route`, and what `promote` and `rollback` say beside them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import modelyard as my
from modelyard import api as my_api
from modelyard.cli import main
from modelyard.errors import InvalidInput, RemoteFailed
from modelyard.registry import Registry
from modelyard.registry.leases import CONTROL
from modelyard.rollouts.controller import Controller
from recorders import Recorder
from registries import tiny_bundle


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry with churn:1, which is live, and churn:2, and churn:3 with another signature."""
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    opened = Registry.open()
    for text in ("one", "two"):
        opened.register(tiny_bundle(tmp_path / text, text), "churn")
    yield opened
    opened.close()


@pytest.fixture
def loop(registry: Registry) -> Controller:
    lease = registry.lease(CONTROL, "here")
    lease.beat()
    return Controller(registry, lease)


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(list(words)) == code
    told = capsys.readouterr()
    return told.out if code == 0 else told.err


START = ("rollout", "start", "churn", "--to", "2")


def test_a_rollout_is_started_shown_and_aborted(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*START, "--canary", "10%", "--guard", "errors,invalid", "--why", "better"]) == 0
    told = capsys.readouterr()
    assert told.out == "rollout 1 of churn@production, version 1 to 2: running, stage 1 of 1, 10%\n"
    assert "nobody decides yet" in told.err and "modelyard rollout watch churn" in told.err
    shown = said(capsys, "rollout", "status", "churn")
    assert "verdict: not enough evidence yet: a stage takes at least 50 requests to version 2 and 60 s" in shown
    assert "errors" in shown and "needed" in shown
    now = typed(capsys, "rollout", "status", "churn")
    assert (now["state"], now["share"], now["plan"]["guards"]) == ("running", 0.1, ["errors", "invalid"])
    assert now["verdict"]["action"] == "continue" and now["verdict"]["why"].startswith("not enough evidence yet")
    assert [finding["guard"] for finding in now["findings"]] == ["errors", "invalid"]
    assert typed(capsys, "rollout", "list")[0]["why"] == "better"
    assert "paused" in said(capsys, "rollout", "pause", "churn")
    assert "running" in said(capsys, "rollout", "resume", "churn")
    assert said(capsys, "rollout", "abort", "churn", "--why", "complaints") == (
        "churn@production: rollout 1 is aborted, share 0%\n"
    )
    assert [d["action"] for d in typed(capsys, "rollout", "history", "1")] == ["start", "pause", "resume", "abort"]
    assert "complaints" in said(capsys, "rollout", "history", "churn")
    assert "abort by" in said(capsys, "rollout", "status", "churn")


def test_options_become_a_plan(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "--shadow 20% --ramp 1,5,25,50,100 --guard errors,disagreement --alpha 0.1% --tolerate errors=2% --stage 10m"
    )
    more = "--key header:x-user-id --pin header:x-group:testers=canary --by schedule --watch 7d --alias production"
    plan = typed(capsys, *START, *words.split(), *more.split())["plan"]
    assert [(stage["share"], stage.get("mode", "live")) for stage in plan["stages"]] == [
        (0.2, "shadow"), (0.01, "live"), (0.05, "live"), (0.25, "live"), (0.5, "live"),
    ]  # fmt: skip
    assert (plan["alpha"], plan["tolerances"]["errors"], plan["stage_seconds"]) == (0.001, 0.02, 600.0)
    assert (plan["key"], plan["by"], plan["watch_seconds"]) == ("header:x-user-id", "schedule", 604_800.0)
    assert plan["pins"] == [{"key": "header:x-group", "value": "testers", "arm": "canary"}]


def test_shadow_alone_copies_everything(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    told = typed(capsys, *START, "--shadow", "--guard", "errors")
    assert told["plan"]["stages"] == [{"share": 1.0, "mode": "shadow"}]
    assert told["plan"]["goal"] == "pass"


MISTAKES = [
    (("--canary", "10"), 2, "--canary: expected a percentage like 10%, got '10'"),
    (("--canary", "0%"), 2, "--canary: expected a percentage above 0% and below 100%, got '0%'"),
    (("--canary", "100%"), 2, "--canary: expected a percentage above 0% and below 100%, got '100%'"),
    (("--canary", "-5%"), 2, "--canary: expected a percentage from 0% to 100%, got '-5%'"),
    (("--canary", "nan%"), 2, "--canary: expected a percentage from 0% to 100%, got 'nan%'"),
    (("--alpha", "50%"), 2, "--alpha: expected a percentage above 0% and below 50%, got '50%'"),
    (("--tolerate", "errors=0%"), 2, "--tolerate errors: expected a percentage above 0% and below 100%, got '0%'"),
    (("--ramp", ""), 2, "--ramp: expected percentages that grow, like 1,5,25,50,100, got none"),
    (("--ramp", "1,50,5"), 2, "ramp: expected shares that grow, like 1%, 5%, 25%, 50%, 100%, got 1%, 50%, 5%"),
    (("--ramp", "100"), 2, "ramp: expected a share below 100%, got 100%"),
    (("--ramp", "5,x"), 2, "--ramp: expected a percentage like 10%, got 'x%'"),
    (("--stage", "10"), 2, "--stage: expected a time like 90s, 10m, 24h or 7d, got '10'"),
    (("--tolerate", "errors"), 2, "--tolerate: expected NAME=VALUE, got 'errors'"),
    (("--pin", "x=canary"), 2, "--pin: expected header:NAME:VALUE=ARM or column:NAME:VALUE=ARM, got 'x=canary'"),
    (("--guard", "eror"), 3, "hint: did you mean errors?"),
    (("--guard", "latency"), 2, "0 requests recorded in the last day, and it takes 500"),
    (("--ab", "50%"), 2, "got none"),
    (("--key", "cookie"), 2, "key: expected request, header:NAME or column:NAME"),
    (("--key", "column:user_id"), 3, "no such input column: user_id (known: x)"),
]


@pytest.mark.parametrize(("words", "code", "told"), MISTAKES, ids=[" ".join(words) for words, _, _ in MISTAKES])
def test_mistakes_are_told(
    registry: Registry, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, told: str
) -> None:
    if "--ab" in words:
        words, told = (*words, "--guard", "errors"), "labels, which an experiment is judged by, got errors"
    assert told in said(capsys, *START, *words, code=code)
    assert registry.rollouts.all() == []


def test_another_signature_two_at_once_and_nothing_to_take_back(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from modelyard.schema import Field, Signature

    other = Signature(inputs=(Field(name="y", dtype="float64"),), outputs=(Field(name="prediction", dtype="float64"),))
    registry.register(tiny_bundle(tmp_path / "three", "three", signature=other), "churn")
    told = said(capsys, "rollout", "start", "churn", "--to", "3", code=5)
    assert "churn:3 has another signature than churn:1: input x is gone; input y is new" in told
    assert "no rollout of churn@production is under way" in said(capsys, "rollout", "abort", "churn", code=3)
    assert "never had a rollout" in said(capsys, "rollout", "watch", "churn", code=3)
    assert main(["rollout", "start", "churn", "--to", "3", "--force-signature"]) == 0
    told = said(capsys, *START, code=4)
    assert "rollout 1 decides what churn@production means: it is running" in told
    assert "hint: modelyard rollout abort churn" in told


def test_promote_and_rollback_know_of_the_rollout(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*START]) == 0
    told = said(capsys, "promote", "churn", "2", code=4)
    assert "rollout 1 decides what churn@production means" in told and "hint: modelyard rollout abort churn" in told
    assert said(capsys, "rollback", "churn") == (
        "churn@production: rollout 1 roll back: version 1 answers everything\n"
    )
    assert "nothing to roll back to" in said(capsys, "rollback", "churn", code=4)


def test_what_is_asked_at_the_wrong_moment_is_told_with_what_could_be(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*START]) == 0
    told = said(capsys, "rollout", "end", "churn", code=4)
    assert "is running: `end` is for one that is watching\nhint: modelyard rollout abort churn" in told
    assert main(["rollout", "pause", "churn"]) == 0
    told = said(capsys, "rollout", "pause", "churn", code=4)
    assert "is paused: `pause` is for one that is running\nhint: modelyard rollout resume churn" in told


@pytest.mark.parametrize(
    "words",
    [("rollout", "list"), ("rollout", "watch"), ("rollout", "abort"), ("rollout", "history"), ("route", "clear")],
)
def test_a_model_that_is_not_there_is_told(
    registry: Registry, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert "no such model: chorn (known: churn)" in said(capsys, *words, "chorn", code=3)


def test_numbers_that_no_version_or_rollout_has(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not in the range" in said(capsys, "rollout", "start", "churn", "--to", "-1", code=2)
    assert "up to 64 bits" in said(capsys, "rollout", "history", "9" * 30, code=2)
    with pytest.raises(InvalidInput, match="version: expected a whole number from 1, got -1"):
        my.start_rollout("churn", -1)


def test_ctrl_c_ends_watching_and_not_the_rollout(
    registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    assert main([*START]) == 0
    monkeypatch.setattr("modelyard.cli.rollout.time.sleep", interrupt)
    assert (
        said(capsys, "rollout", "watch", "churn", code=130) == "\nthe rollout goes on without anybody watching here\n"
    )
    assert registry.rollouts.latest("churn").state == "running"


def test_watching_outlasts_a_registry_that_is_away(
    registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = iter(["away", "away", "there", "there"])

    def find(*given: Any, **more: Any) -> my_api.Standing:
        if next(outcomes) == "away":
            raise RemoteFailed("cannot reach the registry")
        return found(*given, **more)

    assert main([*START]) == 0
    found = my_api.find_rollout
    standing = found("churn")
    registry.rollouts.abort("churn")
    monkeypatch.setattr(
        my_api, "find_rollout", lambda *_a, **_b: (monkeypatch.setattr(my_api, "find_rollout", find), standing)[1]
    )
    capsys.readouterr()
    assert main(["rollout", "watch", "churn", "--every", "0.01s"]) == 0
    told = capsys.readouterr()
    assert told.err == "cannot reach the registry; it is asked again\nthe registry answers again\n"
    assert "version 1 to 2: aborted" in told.out


def test_watching_tells_each_change_until_the_end(
    registry: Registry, loop: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*START, "--guard", "errors", "--tolerate", "errors=5%", "--stage", "1s"]) == 0
    recorder = Recorder(candidate={"errors": 0.3})

    def decide() -> None:
        while active := registry.rollouts.active():
            recorder.write(registry, active[0], 50)
            loop.step()

    thread = threading.Thread(target=decide)
    thread.start()
    shown = said(capsys, "rollout", "watch", "churn", "--every", "0.01s")
    thread.join()
    assert "version 1 to 2: rolled back" in shown
    assert "roll back by guard" in shown and "; evidence " in shown
    once = typed(capsys, "rollout", "watch", "churn")
    assert (once["state"], once["verdict"], once["decider"]) == ("rolled back", None, "here")
    assert once["exposure"]["bad"] > 0 and once["findings"][0]["guard"] == "errors" and once["curve"]


def test_in_a_terminal_it_is_drawn(
    registry: Registry, loop: Controller, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from modelyard.cli import rollout_screen

    assert main([*START, "--guard", "errors"]) == 0
    Recorder(candidate={"errors": 0.5}).write(registry, registry.rollouts.of("churn"), 400)
    loop.step()
    monkeypatch.setattr(rollout_screen.screen, "plain", lambda: False)
    monkeypatch.setenv("COLUMNS", "160")
    shown = said(capsys, "rollout", "watch", "churn")
    assert "rolled back" in shown and "█" in shown and "of what it takes" in shown


def test_a_route_is_set_shown_and_cleared(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "route", "show", "churn") == ("churn@production has no route: version 1 answers everything\n")
    shown = said(
        capsys, "route", "set", "churn", "1=90%", "2=10%", "--key", "header:x-id", "--pin", "header:x-group:testers=v2"
    )
    assert "v1   " in shown and "90%" in shown and "sticks by header:x-id" in shown
    assert "header:x-group:testers goes to v2" in shown
    told = typed(capsys, "route", "show", "churn")
    assert [(arm["name"], arm["version"], arm["weight"]) for arm in told["arms"]] == [("v1", 1, 0.9), ("v2", 2, 0.1)]
    shadowed = typed(capsys, "route", "set", "churn", "1=100%", "--shadow", "2=20%")
    assert shadowed["arms"][1] == {"name": "v2-shadow", "version": 2, "weight": 0.2, "mode": "shadow"}
    assert "copies" in said(capsys, "route", "show", "churn")
    told = said(capsys, "promote", "churn", "2", code=4)
    assert "churn@production has a route" in told and "hint: modelyard route clear churn" in told
    assert said(capsys, "rollback", "churn") == ("churn@production: its route is gone, the alias alone decides\n")
    assert said(capsys, "route", "clear", "churn") == "churn@production had no route\n"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("1=90%",), 2, "weights of the live arms: expected 1 in all, got 0.9"),
        (("1=90%", "1=10%"), 2, "expected each version number once, got '1'"),
        (("x=100%",), 2, "expected each version number once, got 'x'"),
        (("1=90",), 2, "share: expected a percentage like 10%, got '90'"),
        (("1=90%", "7=10%"), 3, "no such version of churn: 7"),
        (("1=100%", "--pin", "header:a:b=v3"), 2, "expected one of v1, got 'v3'"),
        (("1=90%", "2=10%", "--key", "column:user_id"), 3, "no such input column: user_id (known: x)"),
    ],
)
def test_mistakes_with_routes_are_told(
    registry: Registry, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, told: str
) -> None:
    assert told in said(capsys, "route", "set", "churn", *words, code=code)


def test_the_python_face_does_the_same(registry: Registry) -> None:
    rollout, notes = my.start_rollout("churn", 2, canary=0.2, guards=["errors"])
    (note,) = notes
    assert rollout.share == 0.2 and note.startswith(
        "nothing of churn:1 was recorded in the last day: a guard sees what"
    )
    assert my.pause_rollout("churn").state == "paused"
    assert my.resume_rollout("churn").state == "running"
    standing = my.find_rollout("churn")
    assert standing.verdict is not None and standing.verdict.action == "continue"
    assert my.abort_rollout("churn").state == "aborted"
    route = my.set_route("churn", {1: 0.5, 2: 0.5})
    assert my.find_route("churn") == route
    assert my.clear_route("churn") and my.find_route("churn") is None
