"""The truth about predictions, through the command line and a real server: sent, joined, corrected, judged."""

from __future__ import annotations

import datetime as dt
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from commands import Done, Place, environment, type_in
from modelyard.registry import Registry
from recorded import CITIES, Prediction, bundle_of, csv_of, lines_of, truth_of, write_segment

TRAINED = {
    "held_out": {"accuracy": {"value": 0.9, "low": 0.88, "high": 0.92, "baseline": 0.5}},
    "rows": {"learnt_from": 9_000, "held_out": 1_000},
}
ROWS = 3_000


class Yard(NamedTuple):
    """A home with a model, and what it predicted in the last days."""

    folder: Path
    predictions: list[Prediction]
    labels: list[tuple[str, str]]

    def __call__(self, *words: str) -> Done:
        return type_in(self.folder / "home", self.folder, *words)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    registry = Registry.open(tmp_path / "home")
    registry.register(bundle_of(tmp_path / "bundle", metrics=TRAINED), "churn")
    registry.close()
    drawn, now, found = random.Random(1), dt.datetime.now(dt.UTC), []
    for number in range(ROWS):
        p, moment = drawn.random(), now - dt.timedelta(hours=2 + drawn.random() * 100)
        found.append(Prediction(f"r{number}", [1 - p, p], moment, city=drawn.choice(CITIES)))
    write_segment(tmp_path / "home" / "records", found, model="churn")
    return Yard(tmp_path, found, [(each.id, truth_of(each, 7)) for each in found])


def test_from_a_file_to_what_is_known_of_a_model(yard: Yard) -> None:
    odd = [("unheard of", "yes"), ("r1", "perhaps"), yard.labels[0]]
    (yard.folder / "labels.csv").write_text(csv_of([*yard.labels, *odd]))
    sent = yard("labels", "send", "churn", "labels.csv")
    assert sent.code == 0 and "3,002 labels of churn" in sent.out and "1 row set aside" in sent.out
    assert "perhaps" in (yard.folder / "labels.csv.rejected.csv").read_text()
    again = yard("labels", "send", "churn", "labels.csv", "--json")
    assert (again.json["new"], again.json["repeated"], again.json["rejected"]) == (0, 3_002, 1)

    yard("monitor", "rules", "churn", "--set", "accuracy.columns=city", "--set", "accuracy.hours=1")
    joined = yard("labels", "join", "--json").json["churn"]
    assert (joined["joined"], joined["predictions"]) == (ROWS, ROWS)
    assert yard("labels", "join", "churn", "--json").json["churn"]["joined"] == 0
    status = yard("labels", "status", "churn", "--json").json
    assert (status["matched"], status["waiting"], status["corrected"]) == (ROWS, 1, 0)
    assert "matched" in yard("labels", "status", "churn").out

    right = sum(
        (row.answer[1] > 0.5) == (label == "yes") for row, (_, label) in zip(yard.predictions, yard.labels, strict=True)
    )
    found = yard("labels", "accuracy", "churn", "--json").json
    version = found["versions"][0]
    assert version["whole"]["labelled"] == ROWS
    assert version["whole"]["metrics"]["accuracy"]["value"] == pytest.approx(right / ROWS)
    assert version["whole"]["verdicts"] == {"accuracy": "worse"}
    shown = yard("labels", "accuracy", "churn")
    assert (
        "0.88 to 0.92" in shown.out
        and "worse" in shown.out
        and "expected if the relationship is unchanged" in shown.out
    )

    assert yard("watch", "--once").code == 0
    told = yard("monitor", "churn", "--json").json
    assert [(f["kind"], f["subject"]) for f in told["findings"]] == [("accuracy", "accuracy")]
    assert told["quality"]["versions"][0]["whole"]["labelled"] == ROWS


def test_a_correction_is_taken_back_from_what_was_counted(yard: Yard) -> None:
    (yard.folder / "labels.jsonl").write_text(lines_of(yard.labels))
    yard("labels", "send", "churn", "labels.jsonl")
    yard("labels", "join")
    turned = [(id, "no" if label == "yes" else "yes") for id, label in yard.labels]
    (yard.folder / "turned.csv").write_text(csv_of(turned))
    assert yard("labels", "send", "churn", "turned.csv", "--json").json["corrected"] == ROWS
    assert yard("labels", "join", "--json").json["churn"]["corrected"] == ROWS
    found = yard("labels", "accuracy", "churn", "--ripe-after", "0", "--json").json["versions"][0]["whole"]
    right = sum(
        (row.answer[1] > 0.5) == (label == "yes") for row, (_, label) in zip(yard.predictions, turned, strict=True)
    )
    assert found["labelled"] == ROWS and found["metrics"]["accuracy"]["value"] == pytest.approx(right / ROWS)


def test_mistakes(yard: Yard) -> None:
    (yard.folder / "labels.csv").write_text(csv_of(yard.labels[:5]))
    assert yard("labels", "send", "chrun", "labels.csv").code == 3
    assert yard("labels", "send", "churn", "nothing.csv").code == 3
    wrong = yard("labels", "send", "churn", "labels.csv", "--label", "outcome", "--json")
    assert wrong.code == 2 and "--label COLUMN" in wrong.error["hint"]
    assert yard("labels", "accuracy", "other").code == 3
    nobody = yard("labels", "send", "churn", "labels.csv", "--url", "http://127.0.0.1:9")
    assert nobody.code == 10 and "no answer from" in nobody.err
    assert yard("labels", "join", "--records", "off").code == 3
    assert "labels send" in yard("labels", "status", "churn").err


# -- a server -------------------------------------------------------------------------------------------------------


class Serving:
    """``modelyard serve`` in a process of its own."""

    def __init__(self, place: Place, *words: str) -> None:
        command = [sys.executable, "-m", "modelyard", "serve", *words, "--port", "0"]
        log = place.folder / "server.log"  # no pipe: who records beside it goes on for a while when it has ended
        with log.open("w") as written:
            self.process = subprocess.Popen(
                command, env=environment(place.home), cwd=place.folder, stderr=written, stdout=subprocess.DEVNULL
            )
        until = time.monotonic() + 120
        while not (found := [json.loads(line) for line in log.read_text().splitlines() if '"url"' in line]):
            assert self.process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        self.url: str = found[0]["url"]

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=120)


@pytest.fixture
def serving(place: Place) -> Iterator[Serving]:
    made = Serving(place, "flowers", "line", "--workers", "2", "--record")
    yield made
    made.end()


def ask(url: str, body: Any, **headers: str) -> tuple[int, Any]:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_labels_sent_to_a_server_meet_the_predictions_it_made(place: Place, serving: Serving) -> None:
    """Everything is real: two workers, the recorder beside them, Seldon's feedback, and both ways of sending."""
    row = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    first = ask(f"{serving.url}/models/flowers/predict", row)[1]
    several = ask(f"{serving.url}/models/flowers/predict", [row] * 3)[1]
    ids = [first["request_id"], *(f"{several['request_id']}.{number}" for number in range(3))]
    label = {"prediction_id": ids[0], "label": first["prediction"]}
    assert ask(f"{serving.url}/models/flowers/labels", label)[1]["new"] == 1
    assert ask(f"{serving.url}/models/flowers/labels", [label])[1]["repeated"] == 1
    status, refused = ask(f"{serving.url}/models/flowers/labels", [label, {"prediction_id": "x", "label": "oak"}])
    assert status == 400 and refused["error"]["problems"][0]["path"] == "[1].label"
    assert ask(f"{serving.url}/labels", label)[0] == 404  # of two models, which?
    feedback = {"response": {"meta": {"puid": several["request_id"]}}, "truth": {"data": {"ndarray": [["setosa"]] * 3}}}
    assert ask(f"{serving.url}/seldon/team/flowers/api/v1.0/feedback", feedback) == (200, {"meta": {}})
    (place.folder / "labels.csv").write_text(csv_of([(ids[3], "virginica"), ("x", "oak"), (ids[2], "setosa")]))
    sent = type_in(place.home, place.folder, "labels", "send", "flowers", "labels.csv", "--url", serving.url, "--json")
    assert (sent.json["corrected"], sent.json["repeated"], sent.json["rejected"]) == (1, 1, 1), sent.err

    def joined() -> Any:
        return type_in(place.home, place.folder, "labels", "status", "flowers", "--json").json

    until = time.monotonic() + 200
    while joined()["matched"] < 4 and time.monotonic() < until:
        time.sleep(1)
    words = ["labels", "accuracy", "flowers", "--ripe-after", "0", "--json"]
    whole: Any = None
    while time.monotonic() < until:
        whole = type_in(place.home, place.folder, *words).json["versions"][0]["whole"]
        if whole is not None and whole["labelled"] == 4:
            break
        time.sleep(1)
    assert whole["labelled"] == 4 and whole["metrics"]["accuracy"]["value"] == 0.75


def test_a_key_tells_the_truth_about_its_own_models_only(place: Place) -> None:
    def key(name: str, *words: str) -> str:
        made = type_in(place.home, place.folder, "keys", "create", name, *words, "--json")
        return str(made.json["key"])

    predicting, labelling = key("shop"), key("truth", "--scope", "label", "--models", "flowers")
    serving = Serving(place, "flowers", "line", "--keys", "--production")
    try:
        label = {"prediction_id": "a", "label": "setosa"}
        assert ask(f"{serving.url}/models/flowers/labels", label)[0] == 401
        assert ask(f"{serving.url}/models/flowers/labels", label, authorization=f"Bearer {predicting}")[0] == 403
        assert ask(f"{serving.url}/models/flowers/labels", label, authorization=f"Bearer {labelling}")[0] == 200
        assert ask(f"{serving.url}/labels", label, authorization=f"Bearer {labelling}")[0] == 200  # its only model
        status, _ = ask(f"{serving.url}/models/line/labels", {**label, "label": 3}, authorization=f"Bearer {labelling}")
        assert status in (403, 404)
        (place.folder / "labels.csv").write_text(csv_of([("b", "oak"), ("c", "setosa"), ("", "setosa")]))
        words = ["labels", "send", "flowers", "labels.csv", "--url", serving.url, "--key", labelling, "--json"]
        sent = type_in(place.home, place.folder, *words)
        assert (sent.json["new"], sent.json["rejected"]) == (1, 2), sent.err
        assert "the server takes no such label" in (place.folder / "labels.csv.rejected.csv").read_text()
    finally:
        serving.end()
