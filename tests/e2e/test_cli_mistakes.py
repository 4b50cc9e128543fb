"""What people get wrong, and what they are told: the right exit number, a message, no trace, and nothing lost."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import Done, Place, type_in
from modelyard.cli import main

Cli = Callable[..., Done]


@pytest.fixture
def quick(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Type a command in this process, which has the libraries loaded already."""
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("MODELYARD_HOME", str(place.home))

    def run(*words: str) -> Done:
        capsys.readouterr()
        code = main(list(words))
        caught = capsys.readouterr()
        assert "Traceback" not in caught.err
        return Done(code, caught.out, caught.err)

    return run


def _rows(place: Place, *lines: str) -> str:
    (place.folder / "data.csv").write_text("\n".join(lines) + "\n")
    return "data.csv"


def test_no_such_target(quick: Cli) -> None:
    before = quick("models", "--json").json
    done = quick("train", "flowers.csv", "--target", "kinds", "--name", "new")
    assert done.code in (2, 3) and "kinds" in done.err and "kind" in done.err and "hint:" in done.err
    assert quick("models", "--json").json == before


def test_one_class(quick: Cli, place: Place) -> None:
    data = _rows(place, "a,y", *(f"{i},yes" for i in range(50)))
    done = quick("train", data, "--target", "y", "--name", "new")
    assert done.code == 2 and "yes" in done.err


def test_five_rows(quick: Cli, place: Place) -> None:
    data = _rows(place, "a,y", *(f"{i},{i * 2}" for i in range(5)))
    done = quick("train", data, "--target", "y", "--name", "new")
    assert done.code == 2 and "5" in done.err


def test_no_such_file(quick: Cli) -> None:
    for words in (
        ("train", "none.csv", "--target", "y", "--name", "new"),
        ("package", "none.pkl", "--sample", "rows.csv", "--name", "new"),
        ("package", "model1.pkl", "--sample", "none.csv", "--name", "new"),
        ("predict", "line", "--input", "none.csv", "--output", "out.csv"),
        ("inspect", "./none"),
        ("look", "none.pkl"),
        ("register", "none", "--name", "new"),
        ("sign", "none.pkl", "--key", "none"),
    ):
        done = quick(*words)
        assert done.code == 3, (words, done)
        assert "none" in done.err


def test_what_is_to_be_signed_is_not_there(quick: Cli) -> None:
    pytest.importorskip("cryptography")
    assert quick("keygen", "key").code == 0
    for what in ("none.pkl", "./none", "none"):
        done = quick("sign", what, "--key", "key")
        assert done.code == 3 and "./folder" in done.err and "registered version" in done.err, done


@pytest.mark.parametrize("name", ["../x", "a/b", "x" * 300, "\N{ROCKET}", "", "-x", "a b"])
def test_bad_model_names(quick: Cli, name: str, place: Place) -> None:
    before = sorted(p for p in place.home.rglob("*") if p.is_file() and "registry" not in p.name)
    for words in (
        ["train", "flowers.csv", "--target", "kind", f"--name={name}"],
        ["package", "model1.pkl", "--sample", "rows.csv", f"--name={name}"],
        ["promote", "--", name, "1"],
        ["versions", "--", name],
    ):
        done = quick(*words)
        assert done.code == 2, (words, done)
        assert "error:" in done.err and "1 to 100" in done.err
    assert sorted(p for p in place.home.rglob("*") if p.is_file() and "registry" not in p.name) == before


def test_unknown_model_version_alias(quick: Cli) -> None:
    for words in (
        ("show", "lines"),
        ("show", "line:9"),
        ("show", "line@staging"),
        ("promote", "line", "9"),
        ("rollback", "lines"),
        ("history", "lines"),
        ("versions", "lines"),
        ("delete", "line:9"),
        ("predict", "lines", "--input", "rows.csv", "--output", "out.csv"),
        ("serve", "lines", "--port", "0"),
    ):
        done = quick(*words)
        assert done.code == 3, (words, done)
        assert quick(*words, "--json").error["code"] == "not_found"
    assert "did you mean line?" in quick("show", "lines").err
    assert quick("history", "line", "--at", "yesterday").code == 2


def test_a_pickle_that_would_run_code(place: Place) -> None:
    canary = place.folder / "canary"

    class Evil:
        def __reduce__(self) -> object:
            return (os.system, (f"touch {canary}",))

    (place.folder / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    for words in (
        ("package", "evil.pkl", "--sample", "rows.csv", "--name", "new"),
        ("look", "evil.pkl"),
        ("inspect", "evil.pkl"),
    ):
        done = type_in(place.home, place.folder, *words)
        assert done.code == (5 if words[0] == "package" else 0), done
        assert "system" in done.out + done.err and "sha256:" in done.out + done.err
        assert not canary.exists()
    done = type_in(place.home, place.folder, "look", "evil.pkl", "--json")
    assert done.json["harmless"] is False and not canary.exists()


@pytest.fixture
def bundle(quick: Cli, place: Place) -> Path:
    assert quick("export", "line:1", "bundle").code == 0
    return place.folder / "bundle"


def _spoil_byte(folder: Path) -> str:
    path = folder / "model" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "model/model.onnx"


def _truncate(folder: Path) -> str:
    path = folder / "golden.json"
    path.write_bytes(path.read_bytes()[:-10])
    return "golden.json"


def _swap(folder: Path) -> str:
    shutil.copy(folder / "golden.json", folder / "profile.json")
    return "profile.json"


def _lose(folder: Path) -> str:
    (folder / "profile.json").unlink()
    return "profile.json"


def _add(folder: Path) -> str:
    (folder / "model" / "more.bin").write_bytes(b"x")
    return "more.bin"


def _newer(folder: Path) -> str:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    return "99"


def _no_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text("{")
    return "manifest.json"


@pytest.mark.parametrize("spoil", [_spoil_byte, _truncate, _swap, _lose, _add, _newer, _no_manifest])
def test_spoiled_bundles(quick: Cli, bundle: Path, spoil: Callable[[Path], str]) -> None:
    culprit = spoil(bundle)
    for words in (
        ("register", "bundle", "--name", "new"),
        ("inspect", "./bundle"),
        ("verify", "./bundle"),
        ("predict", "./bundle", "--input", "rows.csv", "--output", "out.csv"),
        ("serve", "./bundle", "--port", "0"),
    ):
        done = quick(*words)
        assert done.code == 9, (words, done)
        assert culprit in done.err
    assert quick("show", "new").code == 3


def test_a_truncated_file_bundle(quick: Cli, place: Place) -> None:
    assert quick("export", "line:1", "line.zip").code == 0
    path = place.folder / "line.zip"
    path.write_bytes(path.read_bytes()[:-200])
    assert quick("inspect", "line.zip").code == 9
    assert quick("register", "line.zip", "--name", "new").code == 9


def test_read_only_home(place: Place) -> None:
    bound: tuple[str, ...] = ()
    if os.geteuid() == 0:  # whom permissions do not stop, unless the capability is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("root writes everywhere, and setpriv is not there to stop it")
        bound = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    everything = [place.home, *place.home.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for words in (("promote", "line", "2"), ("package", "model2.pkl", "--sample", "rows.csv", "--name", "new")):
            done = type_in(place.home, place.folder, *words, before=bound)
            assert done.code in (5, 10) and str(place.home) in done.err, done
        done = type_in(place.home, place.folder, "show", "line", "--json", before=bound)
        assert done.code == 0 and done.json["number"] == 1, done
    finally:
        for path in everything:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_home_that_cannot_be(place: Place) -> None:
    (place.folder / "file").write_text("")
    done = type_in(place.folder / "file" / "home", place.folder, "models")
    assert done.code in (5, 10) and "error:" in done.err


def test_options_that_do_not_fit(quick: Cli) -> None:
    for words in (
        ("promote", "line", "zero"),
        ("promote", "line"),
        ("train", "flowers.csv"),
        ("train", "flowers.csv", "--target", "kind"),
        ("predict", "line", "--input", "rows.csv", "--output", "out.xlsx"),
        ("package", "model1.pkl", "--sample", "rows.csv", "--name", "n", "--trust", "yes"),
        ("serve", "line", "--port", "99999"),
        ("serve",),
        ("completion", "tcsh"),
    ):
        done = quick(*words)
        assert done.code == 2, (words, done)
        assert done.out == "" and done.err.startswith("error: ")


def test_a_report_that_cannot_be_written_is_told_before_training(quick: Cli, place: Place) -> None:
    for report in ("none/report.html", "home"):
        words = ("train", "flowers.csv", "--target", "kind", "--name", "new", "--candidates", "linear")
        done = quick(*words, "--report", report)
        assert done.code in (3, 10) and report in done.err, done
        assert quick("show", "new").code == 3


def test_a_report_that_can_no_longer_be_written(quick: Cli, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text = Path.write_text

    def full(path: Path, text: str, **how: str) -> int:
        if path == Path("report.html"):
            raise OSError(28, "No space left on device")
        return write_text(path, text, **how)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(Path, "write_text", full)
    words = ("train", "flowers.csv", "--target", "kind", "--name", "new", "--candidates", "linear")
    done = quick(*words, "--report", "report.html")
    assert done.code == 0 and "registered new:1" in done.out and "95% interval" in done.out
    assert "warning: cannot write the report" in done.err and not (place.folder / "report.html").exists()


def test_ranges_name_the_option(quick: Cli) -> None:
    for option, value in (
        ("--seed", "-1"), ("--folds", "1"), ("--test-size", "1.5"), ("--max-rows", "0"), ("--time-limit", "-3"),
    ):  # fmt: skip
        done = quick("train", "flowers.csv", "--target", "kind", "--name", "new", option, value)
        assert done.code == 2 and option in done.err, done


def test_nowhere_to_put_it(quick: Cli) -> None:
    for words in (("train", "flowers.csv", "--target", "kind"), ("package", "model1.pkl", "--sample", "rows.csv")):
        done = quick(*words)
        assert done.code == 2 and "--name NAME" in done.err and "--out FOLDER" in done.err


def test_a_version_that_is_no_number(quick: Cli) -> None:
    for words in (("line", "two"), ("line:two",), ("line", "0"), ("line",)):
        done = quick("promote", *words)
        assert done.code == 2 and "expected a version number" in done.err, done
    assert quick("promote", "line:2").out == "line@production is now version 2 (was 1)\n"
    assert quick("promote", "line:9").code == 3


def test_look_points_to_inspect(quick: Cli, bundle: Path) -> None:
    done = quick("look", "bundle/model/model.onnx")
    assert done.code == 2 and "`modelyard inspect bundle/model/model.onnx`" in done.err
    assert quick("inspect", "bundle/model/model.onnx").code == 0


def test_a_setting_that_does_not_parse(quick: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_PORT", "many")
    done = quick("serve", "line")
    assert done.code == 2 and "MODELYARD_PORT: expected a whole number" in done.err
