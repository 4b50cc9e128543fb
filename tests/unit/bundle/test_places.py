"""Which references mean a bundle on disk."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from modelyard.bundle.places import is_path


def _nobody() -> NoReturn:
    raise AssertionError("the registry must not be asked")


@pytest.mark.parametrize("reference", ["./bdir", "../bdir", "a/b", "a\\b", "churn.zip", "~/bdir", ".", Path("bdir")])
def test_what_is_written_like_a_path_is_one(reference: str | Path) -> None:
    assert is_path(reference, _nobody)


@pytest.mark.parametrize("reference", ["churn", "churn:4", "churn@production", "churn@sha256:0123456789ab"])
def test_what_is_written_like_a_name_is_one(reference: str) -> None:
    assert not is_path(reference, _nobody)


def test_a_folder_that_holds_a_bundle_unless_a_model_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bdir").mkdir()
    assert not is_path("bdir", _nobody)
    (tmp_path / "bdir" / "manifest.json").write_text("{}")
    assert is_path("bdir", lambda: ["churn"])
    assert not is_path("bdir", lambda: ["bdir"])
    assert is_path("./bdir", _nobody)
