"""Each command as a person types it: the exact lines of the documentation, --json, exit numbers."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import Done, Place, environment
from receivers import until

Cli = Callable[..., Done]


def test_training_answers_with_everything(made: Place) -> None:
    told = json.loads((made.folder / "trained.json").read_text())
    assert told["task"] == "classification" and told["winner"] == "linear"
    assert told["version"]["model"] == "flowers" and told["version"]["number"] == 1
    assert told["version"]["aliases"] == ["production"]
    assert told["conversion"]["accepted"] is True and told["runtime"] == "onnx"
    accuracy = next(row for row in told["held_out"] if row["metric"].lower() == "accuracy")
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert accuracy["value"] > accuracy["baseline"]
    assert Path(told["report"]).read_text().lower().startswith("<!doctype html>")


def test_training_in_words(cli: Cli) -> None:
    done = cli("train", "flowers.csv", "--target", "kind", "--name", "flowers", "--candidates", "linear", "--seed", "7")
    assert done.code == 0, done.err
    assert "registered flowers:2" in done.out
    assert "next: modelyard promote flowers 2" in done.out
    assert "95% interval" in done.out and "baseline" in done.out and "/report.html" in done.out
    assert "\x1b" not in done.out + done.err


def test_promote_rollback_history(cli: Cli) -> None:
    assert cli("promote", "line", "2", "--alias", "production").out == "line@production is now version 2 (was 1)\n"
    assert cli("show", "line", "--json").json["number"] == 2
    assert cli("promote", "line", "2").out == "line@production is version 2 already\n"
    done = cli("promote", "line", "1", "--expect", "1", "--json")
    assert done.code == 4 and done.error["code"] == "conflict" and done.out == ""
    moment = cli("history", "line", "--json").json[-1]["when"]
    assert cli("rollback", "line", "--why", "alerts").out == "line@production is now version 1 (was 2)\n"
    done = cli("history", "line")
    assert done.code == 0
    assert [line.split()[2] for line in done.out.splitlines()[1:]] == [
        "register", "promote", "register", "promote", "rollback",
    ]  # fmt: skip
    assert "alerts" in done.out
    then = cli("history", "line", "--at", moment, "--json").json
    assert then["live"]["number"] == 2 and len(then["changes"]) == 4
    assert "line@production was version 2" in cli("history", "line", "--at", moment).out
    assert cli("rollback", "line").code == 4
    assert "nothing had happened by then" in cli("history", "line", "--at", "2020-01-01").out


def test_listing_and_tags(cli: Cli) -> None:
    assert [row["model"] for row in cli("models", "--json").json] == ["flowers", "line"]
    assert cli("models").out.splitlines()[2].split()[:3] == ["line", "2", "production=1"]
    assert [row["number"] for row in cli("versions", "line", "--json").json] == [1, 2]
    assert len(cli("versions", "line").out.splitlines()) == 3
    assert cli("aliases", "line", "--json").json == {"production": 1}
    assert cli("tag", "line:2", "owner=ann", "ticket=ML-12", "--json").json["tags"] == {
        "owner": "ann",
        "ticket": "ML-12",
    }
    assert cli("untag", "line:2", "ticket").out == "line:2: owner=ann\n"
    assert "owner=ann" in cli("show", "line:2").out
    assert cli("tag", "line:2", "nonsense").code == 2


def test_delete_and_collect(cli: Cli) -> None:
    done = cli("delete", "line")
    assert done.code == 5 and "production" in done.err and "hint: modelyard promote line" in done.err
    assert cli("delete", "line:2", "--why", "wrong").out == "deleted line:2\n"
    assert cli("show", "line:2").code == 3
    assert cli("collect", "--json").json["freed_bytes"] > 0


def test_inspect_verify_export_register(cli: Cli, place: Place) -> None:
    facts = cli("inspect", "line:1", "--json").json
    assert [field["name"] for field in facts["manifest"]["signature"]["inputs"]] == ["x1", "x2"]
    assert facts["golden_rows"] > 0 and facts["version"]["number"] == 1
    words = cli("inspect", "line:1").out
    assert "converted from sklearn" in words and "manifest" not in words and facts["digest"] in words
    assert cli("verify", "line@production", "--json").json["ok"] is True
    assert cli("export", "line:1", "line.zip").code == 0
    assert cli("export", "line.zip", "folder").code == 0
    assert cli("export", "line:1", "line.zip").code == 4
    assert cli("inspect", "line.zip", "--json").json["digest"] == facts["digest"]
    assert "is whole" in cli("verify", "./folder").out
    copied = cli("register", "line.zip", "--name", "copy", "--alias", "staging", "--tag", "from=file", "--json").json
    assert (copied["digest"], copied["number"], copied["tags"]) == (facts["digest"], 1, {"from": "file"})
    assert cli("register", "folder", "--name", "copy", "--json").json["existing"] is True


def test_the_report_of_a_file_is_not_a_path_that_is_gone(cli: Cli) -> None:
    assert Path(cli("inspect", "flowers", "--json").json["report"]).is_file()
    assert cli("export", "flowers", "flowers.zip").code == 0
    assert cli("inspect", "flowers.zip", "--json").json["report"] is None
    words = cli("inspect", "flowers.zip").out
    assert "/report.html" not in words and "`modelyard export`" in words


def test_predict(cli: Cli, place: Place) -> None:
    line = ("predict", "line@production", "--input", "rows.csv", "--output", "out.parquet")
    done = cli(*line)
    assert done.code == 0 and done.out.startswith("60 rows scored in "), done.err
    again = cli(*line)
    assert again.code == 4 and "--overwrite" in again.err
    told = cli(*line, "--overwrite", "--json").json
    assert (told["scored"], told["rejected"]) == (60, 0)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(place.folder / "out.parquet")
    assert table.column_names == ["row", "prediction"]
    with (place.folder / "rows.csv").open() as file:
        expected = [3 * float(row["x1"]) + float(row["x2"]) for row in csv.DictReader(file)]
    assert table["prediction"].to_pylist() == pytest.approx(expected, abs=1e-9)


def test_predict_sets_bad_rows_aside(cli: Cli, place: Place) -> None:
    lines = (place.folder / "flowers.csv").read_text().splitlines()
    lines[3] = lines[3].replace(lines[3].split(",")[0], "tall", 1)
    (place.folder / "bad.csv").write_text("\n".join(lines))
    words = ("predict", "flowers", "--input", "bad.csv", "--output", "out.csv", "--keep", "kind", "--json")
    told = cli(*words).json
    assert (told["scored"], told["rejected"]) == (149, 1)
    with (place.folder / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = ["row", "kind", "prediction", "probability_setosa", "probability_versicolor", "probability_virginica"]
    assert list(rows[0]) == names
    assert sum(row["kind"] == row["prediction"] for row in rows) > 140
    with (place.folder / "out.csv.rejected.csv").open() as file:
        assert [(r["line"], "tall" in r["reason"]) for r in csv.DictReader(file)] == [("4", True)]


def test_package_with_a_label_and_extra_columns(cli: Cli) -> None:
    done = cli("package", "model1.pkl", "--sample", "more.csv", "--target", "y", "--name", "other", "--json")
    assert done.code == 0, done.err
    assert [field["name"] for field in done.json["signature"]["inputs"]] == ["x1", "x2"]
    assert cli("package", "model1.pkl", "--sample", "more.csv", "--target", "z", "--name", "other").code == 2


def test_look_and_signatures(cli: Cli, place: Place) -> None:
    seen = cli("look", "model1.pkl", "--json").json
    assert seen["harmless"] is True and re.fullmatch("sha256:[0-9a-f]{64}", seen["digest"])
    assert "sklearn.linear_model._base.LinearRegression" in seen["imports"]
    assert "loads without asking" in cli("look", "model1.pkl").out
    assert cli("inspect", "model1.pkl", "--json").json == seen
    pytest.importorskip("cryptography")
    assert cli("keygen", "publisher").code == 0
    assert cli("keygen", "publisher").code == 4
    assert (place.folder / "publisher").stat().st_mode & 0o77 == 0
    assert cli("sign", "model1.pkl", "--key", "publisher", "--json").json["digest"] == seen["digest"]


def test_a_pickle_from_packaging_to_serving(cli: Cli, place: Place, tmp_path: Path) -> None:
    """Each line that is printed works as it is: the digest first, then the publisher's key."""
    pytest.importorskip("cryptography")
    (place.folder / "mine.py").write_text("def twice(x):\n    return 2 * x\n")
    (place.folder / "fit.py").write_text(
        "import pickle, mine, pandas\n"
        "from sklearn.linear_model import LinearRegression\n"
        "from sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import FunctionTransformer\n"
        "rows = pandas.read_csv('rows.csv')\n"
        "model = make_pipeline(FunctionTransformer(mine.twice), LinearRegression()).fit(rows, 3 * rows.x1 + rows.x2)\n"
        "open('cust.pkl', 'wb').write(pickle.dumps(model))\n"
    )
    subprocess.run([sys.executable, "fit.py"], cwd=place.folder, check=True)
    assert cli("keygen", "publisher").code == 0
    assert cli("sign", "cust.pkl", "--key", "publisher").code == 0
    assert "signature" in cli("look", "cust.pkl").out and "cust.pkl.sig" in cli("look", "cust.pkl").out
    done = cli("package", "cust.pkl", "--sample", "rows.csv", "--name", "cust", "--trust", "publisher.pub")
    assert done.code == 0, done.err
    line = re.search("next: modelyard (serve cust@production --trust sha256:[0-9a-f]{64})", done.out)
    assert line, done.out
    for words in ([], ["--trust", "publisher.pub"]):
        assert cli("verify", "cust", *words).code == 5
    _answers(place, *line.group(1).split()[1:])

    done = cli("sign", "cust:1", "--key", "publisher")
    assert done.code == 0, done.err
    assert "next: modelyard serve cust:1 --trust publisher.pub" in done.out
    assert cli("sign", "cust", "--key", "publisher", "--json").json["version"]["number"] == 1
    assert [row["action"] for row in cli("history", "cust", "--json").json] == ["register", "promote", "attach"]
    assert cli("verify", "cust", "--trust", "publisher.pub").code == 0
    _answers(place, "cust", "--trust", "publisher.pub")
    assert cli("keygen", "other").code == 0
    done = cli("sign", "cust", "--key", "other")
    assert done.code == 4 and "another key" in done.err


def _answers(place: Place, *words: str) -> None:
    """A server started with ``words`` answers."""
    server, ready = _serve(place, *words)
    try:
        body = json.dumps({"x1": 1.0, "x2": 2}).encode()
        with urllib.request.urlopen(ready["models"][0]["predict"], body, timeout=60) as answer:  # type: ignore[index]
            assert json.load(answer)["prediction"] == pytest.approx(5)
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=120)


def _served(place: Place, ref: str) -> tuple[str, str, str]:
    """Name, version and digest of what a server of ``ref`` serves."""
    server, ready = _serve(place, ref)
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=120)
    model = ready["models"][0]  # type: ignore[index]
    return model["model"], model["version"], model["digest"]


def test_a_folder_needs_no_dots_unless_a_model_is_called_so(cli: Cli, place: Place) -> None:
    assert cli("export", "line:2", "bdir").code == 0
    digest = cli("inspect", "./bdir", "--json").json["digest"]
    assert cli("inspect", "bdir", "--json").json["digest"] == digest
    assert cli("verify", "bdir").code == 0
    assert cli("predict", "bdir", "--input", "rows.csv", "--output", "out.csv").code == 0
    assert _served(place, "bdir") == ("bdir", "", digest)
    assert cli("export", "line:1", "one").code == 0
    assert cli("register", "one", "--name", "bdir").code == 0
    assert cli("inspect", "bdir", "--json").json["version"]["model"] == "bdir"
    assert cli("inspect", "./bdir", "--json").json["digest"] == digest
    assert _served(place, "bdir")[:2] == ("bdir", "1")
    assert _served(place, "./bdir") == ("bdir", "", digest)
    assert "./folder" in cli("help", "references").out and "12 digits" in cli("help", "references").out


def _serve(place: Place, *words: str) -> tuple[subprocess.Popen[str], dict[str, object]]:
    command = [sys.executable, "-m", "modelyard", "serve", *words, "--port", "0", "--json"]
    server = subprocess.Popen(
        command,
        cwd=place.folder,
        env=environment(place.home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None and server.stderr is not None
    line = server.stdout.readline()
    assert line, server.stderr.read()
    return server, json.loads(line)


def test_serve_follows_promote_and_stops(cli: Cli, place: Place) -> None:
    server, ready = _serve(place, "line@production")
    try:
        model = ready["models"][0]  # type: ignore[index]
        assert set(model["example"]) == {"x1", "x2"}

        def ask() -> dict[str, object]:
            body = json.dumps({"x1": 1.5, "x2": 2}).encode()
            with urllib.request.urlopen(model["predict"], body, timeout=60) as answer:
                told: dict[str, object] = json.load(answer)
            return told

        assert ask()["prediction"] == pytest.approx(6.5, abs=1e-6)
        assert cli("promote", "line", "2").code == 0
        until(lambda: ask()["prediction"] == pytest.approx(8.5, abs=1e-6))
        taken = cli("serve", "line", "--port", str(ready["url"]).rpartition(":")[2])
        assert taken.code == 4 and "taken" in taken.err
    finally:
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=120)
    assert server.returncode == 0
    assert "Traceback" not in err


def test_serve_in_words(place: Place) -> None:
    command = [sys.executable, "-m", "modelyard", "serve", "line@production", "flowers", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=place.folder,
        env=environment(place.home),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        said = []
        while not said or not said[-1].strip().startswith("curl"):
            said.append(server.stdout.readline())
            assert said[-1], "the server ended"
        # The line that it prints can be pasted.
        answer = json.loads(subprocess.run(["bash", "-c", said[-1]], capture_output=True, text=True, check=True).stdout)
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=120)
    assert answer["model"] == "line" and isinstance(answer["prediction"], float)
    assert server.returncode == 0


def listens_for(process: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_ctrl_c_while_training_is_clean(place: Place) -> None:
    rows = "\n".join(f"{i % 97},{i * 7919 % 1009},{i * 31 % 53}" for i in range(20_000))
    (place.folder / "long.csv").write_text(f"a,b,y\n{rows}\n")
    # Fifty folds of every family on this table take minutes: it cannot be over before it is interrupted.
    words = ["train", "long.csv", "--target", "y", "--name", "later", "--folds", "50"]
    command = [sys.executable, "-m", "modelyard", *words]
    job = subprocess.Popen(
        command,
        cwd=place.folder,
        env=environment(place.home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: listens_for(job.pid, signal.SIGALRM))  # once it trains, it has an interrupt repeated
    time.sleep(1)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=120)
    assert job.returncode == 130
    assert "Traceback" not in err and "error: stopped" in err


def test_output_that_nobody_reads(place: Place) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m modelyard history line | true"],
        cwd=place.folder, env=environment(place.home), capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == "" and done.returncode in (0, 141)


def test_completion_of_references(place: Place) -> None:
    def offered(words: str) -> list[str]:
        asked = {"_MODELYARD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from modelyard.cli import main; sys.exit(main())"],
            env={**environment(place.home), **asked}, capture_output=True, text=True,
        )  # fmt: skip
        return [line.partition(",")[2] for line in done.stdout.split()]

    assert offered("modelyard serve li") == ["line"]
    assert offered("modelyard serve line@p") == ["line@production"]
    assert offered("modelyard show line:") == ["line:2", "line:1"]
    assert offered("modelyard promote fl") == ["flowers"]
