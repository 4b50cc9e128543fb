"""The frame of the command line: help, errors, exit numbers, laziness."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from modelyard import errors
from modelyard.cli import exits, frame, main

#: The tree of errors; a listener's own, which never reach the command line, may be imported too in a full run.
ERRORS = [cls for cls in errors.ModelyardError.__subclasses__() if cls.__module__ == errors.__name__]


def test_every_error_has_an_exit_number() -> None:
    words = [cls.code for cls in ERRORS]
    assert words
    assert set(words) <= set(exits.NUMBERS)
    assert all(exits.NUMBERS[word] not in (0, 1) for word in words)


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = (
        "import sys; from modelyard.cli import main; main(['--help']);"
        "heavy = {'numpy', 'rich', 'pyarrow', 'onnxruntime', 'sklearn', 'pandas', 'msgspec', 'sqlite3', 'asyncio'};"
        "print('LOADED', sorted(heavy & set(sys.modules)), [m for m in sys.modules if m.startswith('modelyard.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert loaded == "LOADED [] ['modelyard.cli', 'modelyard.cli.exits', 'modelyard.cli.frame']"


@pytest.mark.parametrize("name", list(frame.COMMANDS))
def test_every_command_has_a_purpose_help_and_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, purpose = frame.COMMANDS[name]
    found = getattr(import_module(f"modelyard.cli.{module}"), name.replace("-", "_"))
    assert found.help and found.help.splitlines()[0] == purpose
    members = {name: found}
    if isinstance(found, frame.Family):
        assert main([name, "--help"]) == 0
        assert f"modelyard {name} " in capsys.readouterr().out.split("Examples:")[1]
        members = {f"{name} {word}": each for word, each in found.commands.items()}
    for words, each in members.items():
        assert isinstance(each, frame.Command)
        assert each.help and each.examples.strip()
        assert main([*words.split(), "--help"]) == 0
        out = capsys.readouterr().out
        assert "Examples:" in out and "--json" in out and "modelyard " in out.split("Examples:")[1]
        options = [p for p in each.params if isinstance(p, click.Option)]
        assert all(option.help for option in options)


def test_without_words_it_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    bare = capsys.readouterr()
    assert main(["--help"]) == 0
    assert bare == capsys.readouterr() and "Make a model" in bare.out and bare.err == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("help", "which subject: expected one of exit-codes, references"),
        ("completion", "which shell: expected one of bash, zsh, fish"),
    ],
)
def test_choices_are_told(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 2
    assert capsys.readouterr().err == f"error: {message}\nhint: `modelyard {name} --help` shows how\n"


def test_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promot"]) == 2
    assert capsys.readouterr().err == "error: no such command: promot\nhint: did you mean `modelyard promote`?\n"
    assert main(["import"]) == 2
    assert "`modelyard register`" in capsys.readouterr().err


def test_usage_errors_are_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--nonsense", "--json"]) == 2
    caught = capsys.readouterr()
    told = json.loads(caught.err)["error"]
    assert caught.out == ""
    assert told["code"] == "invalid_input" and told["exit"] == 2 and "--nonsense" in told["message"]


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("modelyard.cli.frame.Group.invoke", fail)


@pytest.mark.parametrize("cls", ERRORS)
def test_errors_tell_message_and_hint_and_exit_by_code(
    cls: type[errors.ModelyardError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raising(monkeypatch, cls("what happened: 7", hint="try this"))
    assert main(["settings"]) == exits.NUMBERS[cls.code]
    assert capsys.readouterr().err == "error: what happened: 7\nhint: try this\n"


def test_problems_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    problems = [errors.Problem("age", "a number", "'x'"), errors.Problem("city", "a column", "nothing")]
    _raising(monkeypatch, errors.InvalidInput.of(problems))
    assert main(["settings"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: age: expected a number, got 'x' (and 1 more)",
        "  city: expected a column, got nothing",
    ]
    _raising(monkeypatch, errors.InvalidInput("two faults", problems=problems))
    assert main(["settings"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
    _raising(monkeypatch, errors.InvalidInput.of(problems))
    assert main(["settings", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["problems"][1] == {
        "path": "city",
        "expected": "a column",
        "got": "nothing",
    }


def test_bug_is_short_unless_debug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _raising(monkeypatch, ZeroDivisionError("division by zero"))
    assert main(["settings"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and "--debug" in err and "Traceback" not in err
    assert main(["settings", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _raising(monkeypatch, KeyboardInterrupt())
    assert main(["settings"]) == 130
    assert capsys.readouterr().err.strip().endswith("error: stopped")


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.csv"), 3),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 5),
        (OSError(errno.EROFS, "Read-only file system", "/x"), 5),
        (OSError(errno.EADDRINUSE, "Address already in use"), 4),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 10),
    ],
)
def test_system_errors(
    error: OSError, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raising(monkeypatch, error)
    assert main(["settings"]) == number
    assert (error.strerror or "").lower() in capsys.readouterr().err


def test_broken_pipe_is_silent() -> None:
    code = "import sys; from modelyard.cli import main; sys.exit(main(['settings']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141


def test_settings_tell_their_origin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MODELYARD_PORT", "9001")
    assert main(["settings", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["port"]["value"] == "9001" and rows["port"]["from"] == "environment"
    assert rows["host"]["from"] == "default"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_MODELYARD_COMPLETE" in capsys.readouterr().out


def test_completion_of_commands(tmp_path: Path) -> None:
    env = {**os.environ, "_MODELYARD_COMPLETE": "bash_complete", "COMP_WORDS": "modelyard pro", "COMP_CWORD": "1"}
    code = "import sys; from modelyard.cli import main; sys.argv = ['modelyard']; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.split() == ["plain,promote"]


def test_exit_codes_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "exit-codes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["exit"] for row in rows} == set(exits.EXITS)


def test_the_page_in_the_documentation_has_the_same_exit_codes() -> None:
    page = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text()
    for number, (words, meaning) in exits.EXITS.items():
        assert f"| {number} | {', '.join(f'`{word}`' for word in words)} | {meaning} |" in page


def test_settings_show_no_password(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MODELYARD_REGISTRY", "postgresql://me:secret@host/db")
    for words in (["settings"], ["settings", "--json"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert "postgresql://me:***@host/db" in shown and "secret" not in shown
