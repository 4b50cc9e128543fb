"""The command `keys`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.cli import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["keys", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_key_alone_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "shop"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("my_") and len(told.out.split()) == 1
    assert "the only time" in told.err


def test_a_key_is_made_listed_and_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    made = typed(
        capsys, "create", "shop", "--scope", "predict,label", "--models", "churn,risk", "--rate", "100/s",
        "--expires", "30d",
    )  # fmt: skip
    text = made.pop("key")
    assert text.startswith(f"my_{made['id']}_")
    assert (made["scopes"], made["models"], made["rate"]) == (["predict", "label"], ["churn", "risk"], "100/s")
    assert typed(capsys, "list") == [made]
    ended = typed(capsys, "revoke", "shop")
    assert ended["id"] == made["id"] and ended["revoked"]
    assert typed(capsys, "list") == []
    assert typed(capsys, "list", "--all") == [ended]


def test_lists_never_hold_keys(capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(capsys, "create", "shop")["key"]
    typed(capsys, "create", "other")
    typed(capsys, "revoke", "other")
    assert main(["keys", "list", "--all"]) == 0
    shown = capsys.readouterr().out
    assert "shop" in shown and "other" in shown and "revoked" in shown
    assert text[-43:] not in shown
    assert main(["keys", "list", "--all", "--json"]) == 0
    assert text[-43:] not in capsys.readouterr().out


def test_mistakes_have_hints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys"]) == 2
    assert "hint: `modelyard keys --help` shows how" in capsys.readouterr().err
    assert main(["keys", "create", "shop", "--scope", "root"]) == 2
    assert "expected one of predict, label, view, admin" in capsys.readouterr().err
    assert main(["keys", "revoke", "nobody"]) == 3
    assert "no such key: nobody (there are none)" in capsys.readouterr().err
