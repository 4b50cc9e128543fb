"""Packing: whole or not at all, the same digest for the same model, and served as the original answers."""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelyard.bundle import Bundle, Trust, origin, pack, packing, read_model, rehearsal, signing
from modelyard.bundle.manifest import Environment
from modelyard.errors import Conflict, InvalidInput, ModelFailed, NotFound, Refused, RemoteFailed
from modelyard.schema import Field, Signature
from receivers import waited


def sample_of(count=120, seed=0):
    rng = np.random.default_rng(seed)
    return {"x1": rng.normal(size=count), "x2": rng.integers(0, 9, size=count), "x3": rng.normal(size=count)}


def matrix(sample):
    return np.stack(list(sample.values()), axis=1).astype("float64")


SAMPLE = sample_of()
MATRIX = matrix(SAMPLE)
LABELS = np.where(MATRIX[:, 0] + MATRIX[:, 2] > 0, "yes", "no")
LINEAR = LinearRegression().fit(MATRIX, MATRIX @ [1.0, 2.0, 3.0])


@pytest.fixture
def no_rehearsal(monkeypatch):
    """Spares the fresh process where it is not what is tested."""
    lock = Environment(python="3.11.0", implementation="CPython", platform=sys.platform, machine="any")
    monkeypatch.setattr(rehearsal, "rehearse", lambda *args: lock)


def frame(sample):
    import pandas as pd

    return pd.DataFrame(sample)


# -- what comes out ----------------------------------------------------------------------------------------------


def test_a_classifier_answers_as_it_did_with_labels_and_probabilities(tmp_path):
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(MATRIX, LABELS)
    bundle = pack(model, tmp_path / "b", sample=SAMPLE)
    assert (bundle.manifest.task, bundle.manifest.model.runtime) == ("classification", "onnx")
    prediction, probabilities = bundle.signature.outputs
    assert (prediction.dtype, prediction.categories) == ("string", ("no", "yes"))
    assert (probabilities.shape, probabilities.categories) == ((2,), ("no", "yes"))
    answer = bundle.load()(bundle.signature.input_layout.from_arrays(sample_of(50, seed=9)))
    fresh = matrix(sample_of(50, seed=9))
    assert answer["prediction"].tolist() == model.predict(fresh).tolist()
    assert np.allclose(answer["probabilities"], model.predict_proba(fresh), atol=1e-9)
    assert [part.name for part in bundle.profile().outputs] == [
        "prediction", "probabilities[no]", "probabilities[yes]",
    ]  # fmt: skip
    assert sum(bundle.profile().outputs[0].counts) == 120


def test_the_columns_are_in_the_models_order_and_the_rest_is_left_out(tmp_path):
    names = ["x3", "x1", "x2"]
    model = LinearRegression().fit(frame(SAMPLE)[names], MATRIX[:, 0])
    told = []
    bundle = pack(model, tmp_path / "b", sample={**SAMPLE, "y": MATRIX[:, 0]}, progress=told.append)
    assert [field.name for field in bundle.signature.inputs] == names
    assert any("left out: y" in text for text in told)


def test_whole_numbers_in_a_sample_become_float64(tmp_path):
    bundle = pack(LINEAR, tmp_path / "b", sample=SAMPLE)
    assert {field.dtype for field in bundle.signature.inputs} == {"float64"}
    assert bundle.signature.input("x2").maximum == 8


def test_reference_rows_describe_the_signature_and_the_profile(tmp_path):
    reference = sample_of(3000, seed=1)
    reference["x1"][5] = np.nan
    model = make_pipeline(SimpleImputer(), LinearRegression()).fit(MATRIX, MATRIX[:, 0])
    bundle = pack(model, tmp_path / "b", sample=SAMPLE, reference=reference)
    assert bundle.signature.input("x1").nullable
    assert not bundle.signature.input("x2").nullable
    assert (bundle.profile().rows, bundle.profile().inputs[0].missing) == (3000, 1)


def test_a_signature_that_is_given_is_kept(tmp_path):
    signature = Signature(
        inputs=tuple(Field(name=name, dtype="float64", nullable=False) for name in SAMPLE),
        outputs=(Field(name="prediction", dtype="float64"),),
    )
    assert pack(LINEAR, tmp_path / "b", sample=SAMPLE, signature=signature).signature == signature


def test_datetimes_and_missing_values_in_the_sample(tmp_path):
    from modelyard.preprocessing import DateParts

    days = np.array(["2024-01-01", "2024-06-15T12:30", "NaT", "2023-03-03"] * 20, dtype="datetime64[s]")
    seconds = np.where(np.isnat(days), np.nan, days.astype("int64").astype("float64"))
    model = make_pipeline(DateParts(), SimpleImputer(), LinearRegression()).fit(seconds[:, None], np.arange(80.0))
    bundle = pack(model, tmp_path / "b", sample={"day": days})
    field = bundle.signature.input("day")
    assert (field.dtype, field.nullable) == ("datetime", True)
    inputs, outputs = bundle.golden()
    assert np.isnan(inputs["day"]).any()
    assert np.allclose(outputs["prediction"], model.predict(inputs["day"][:, None]))
    bundle.check_golden(bundle.load())


def test_a_model_that_is_neither_keeps_its_own_output(tmp_path, no_rehearsal):
    model = KMeans(3, random_state=0, n_init=1).fit(MATRIX)
    bundle = pack(model, tmp_path / "b", sample=SAMPLE, convert=False)
    assert bundle.manifest.task == "other"
    assert bundle.signature.outputs[0].dtype == "int64"
    bundle.check_golden(bundle.load())


def test_native_files_of_boosters_and_foreign_graphs(tmp_path):
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBRegressor(n_estimators=3).fit(MATRIX, MATRIX[:, 0])
    model.save_model(tmp_path / "m.json")
    bundle = pack(read_model(tmp_path / "m.json"), tmp_path / "b", sample=SAMPLE)
    answer = bundle.load()(bundle.signature.input_layout.from_arrays(SAMPLE))
    assert np.allclose(answer["prediction"], model.predict(MATRIX), rtol=1e-4)
    assert bundle.provenance["source_digest"].startswith("sha256:")
    foreign = bundle.folder / "model" / bundle.manifest.model.options["file"]
    if foreign.suffix == ".onnx":
        again = pack(foreign, tmp_path / "again", sample=SAMPLE)
        assert again.manifest.conversion.method == "as given"
        assert [field.name for field in again.signature.inputs] == list(SAMPLE)
        again.check_golden(again.load())


def test_a_conversion_that_does_not_reproduce_the_golden_rows_is_not_served(tmp_path, monkeypatch, no_rehearsal):
    convert = importlib.import_module("modelyard.bundle.convert")
    honest = convert.convert

    def wrong(model, source, facts, signature, sample, original, folder):
        other = LinearRegression().fit(MATRIX, MATRIX[:, 1])
        spec, done = honest(
            other, source, facts, signature, sample, lambda c: other_predict(other, c, signature), folder
        )
        assert done.accepted
        return spec, done

    def other_predict(model, columns, signature):
        return signature.output_layout.from_arrays({"prediction": model.predict(matrix(columns))})

    monkeypatch.setattr(convert, "convert", wrong)
    monkeypatch.setitem(packing._environments, "onnx", rehearsal.rehearse())
    bundle = pack(LINEAR, tmp_path / "b", sample=SAMPLE)
    assert bundle.manifest.model.runtime == "sklearn"
    assert not bundle.manifest.conversion.accepted
    assert "golden row" in bundle.manifest.conversion.reason
    assert not (bundle.folder / "model" / "model.onnx").exists()


# -- the same again ----------------------------------------------------------------------------------------------


def test_packing_again_is_the_same_bundle_and_another_is_a_conflict(tmp_path):
    first = pack(LINEAR, tmp_path / "b", sample=SAMPLE)
    assert pack(LINEAR, tmp_path / "b", sample=SAMPLE).digest == first.digest
    with pytest.raises(Conflict, match="something else"):
        pack(LINEAR, tmp_path / "b", sample=sample_of(seed=5))
    assert Bundle.open(tmp_path / "b").digest == first.digest
    (tmp_path / "file").write_text("x")
    with pytest.raises(Conflict, match="a file already"):
        pack(LINEAR, tmp_path / "file", sample=SAMPLE)
    (tmp_path / "empty").mkdir()
    assert pack(LINEAR, tmp_path / "empty", sample=SAMPLE).digest == first.digest
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(Conflict):
        pack(LINEAR, tmp_path / "full", sample=SAMPLE)
    assert (tmp_path / "full" / "mine").read_text() == "x"


SCRIPT = """
import sys
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
import pandas as pd
from modelyard.bundle import pack
sys.path.insert(0, sys.argv[2])
from mine import Odd
rng = np.random.default_rng(0)
frame = pd.DataFrame({"a": rng.normal(size=90), "b": rng.normal(size=90), "c": rng.choice(["u", "v", None], 90)})
labels = np.where(frame["a"] > 0, "yes", "no")
parts = make_column_transformer((StandardScaler(), ["a", "b"]), (OneHotEncoder(), ["c"]))
sample = {name: frame[name].to_numpy() for name in frame}
numbers = {name: sample[name] for name in "ab"}
def forest():
    return RandomForestClassifier(20, n_jobs=2, random_state=0)
models = {
    "onnx": (make_pipeline(parts, forest()).fit(frame, labels), sample, True),
    "skops": (forest().fit(frame[["a", "b"]], labels), numbers, False),
    "pickle": (Odd(["z", "y", "x"]).fit(frame[["a", "b"]], labels), numbers, False),
}
for name in sys.argv[3:]:
    model, rows, convert = models[name]
    print(name, pack(model, f"{sys.argv[1]}/{name}", sample=rows, convert=convert).digest)
"""

MINE = """
from sklearn.linear_model import LogisticRegression


class Odd(LogisticRegression):
    def __init__(self, extra=()):
        super().__init__()
        self.extra = extra
"""


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Models, fitted and packed in two processes whose hashes of texts differ; the folder and both outputs."""
    folder = tmp_path_factory.mktemp("twice")
    (folder / "mine.py").write_text(MINE)
    said = []
    for seed, names in (("1", ("onnx", "pickle", "skops")), ("2", ("onnx", "pickle"))):
        out = folder / seed
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(out), str(folder), *names],
            env={**os.environ, "PYTHONHASHSEED": seed, "USER": f"user{seed}"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    return folder, said


def test_the_same_model_has_one_digest_in_any_process(twice):
    _, (first, second) = twice
    assert second.count("sha256:") == 2
    assert first.startswith(second)


def test_a_native_bundle_locks_what_it_needs_and_records_local_modules(twice):
    folder, _ = twice
    bundle = Bundle.open(folder / "1" / "pickle")
    assert bundle.manifest.model.options["file"] == "model.pkl"
    names = {one.name: one.role for one in bundle.manifest.environment.distributions}
    assert names["scikit-learn"] == "framework"
    assert "onnxruntime" not in names
    assert list(bundle.manifest.environment.local) == ["mine"]


def test_a_pickle_in_a_bundle_wants_trust(twice, tmp_path, monkeypatch):
    folder, _ = twice
    bundle = Bundle.open(folder / "1" / "pickle")
    with pytest.raises(Refused, match=r"mine\.Odd") as caught:
        bundle.load()
    monkeypatch.syspath_prepend(str(folder))
    assert caught.value.details["digest"] == bundle.manifest.files["model/model.pkl"].digest
    for name in (bundle.digest, caught.value.details["digest"]):
        bundle.check_golden(bundle.load(trust=Trust.of(name)))
    with pytest.raises(Refused):
        bundle.load(trust=Trust.of("sha256:" + "0" * 64))
    private, public = signing.keygen(tmp_path / "key")
    with pytest.raises(Refused):
        bundle.load(trust=Trust.of(str(public)))
    signing.sign(bundle.folder, private)
    bundle.check_golden(bundle.load(trust=Trust.of(str(public))))
    one_file = Bundle.open(bundle.write_file(tmp_path / "b.zip"))
    one_file.check_golden(one_file.load(trust=Trust.of(str(public))))


def test_skops_in_a_bundle_wants_none_and_another_scikit_learn_is_refused(twice):
    folder, _ = twice
    bundle = Bundle.open(folder / "1" / "skops")
    assert bundle.manifest.model.options["file"] == "model.skops"
    bundle.check_golden(bundle.load())
    environment = bundle.manifest.environment
    older = tuple(
        msgspec.structs.replace(one, version="1.3.2") if one.name == "scikit-learn" else one
        for one in environment.distributions
    )
    bundle.manifest.environment = msgspec.structs.replace(environment, distributions=older)
    with pytest.raises(Refused, match=r"scikit-learn 1\.3\.2") as caught:
        bundle.load()
    assert "scikit-learn==1.3.2" in caught.value.hint


# -- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_sample_that_is_not_what_the_model_takes(tmp_path):
    named = LinearRegression().fit(frame(SAMPLE), MATRIX[:, 0])
    with pytest.raises(InvalidInput, match="x3: expected a column of the sample") as caught:
        pack(named, tmp_path / "b", sample={"x1": SAMPLE["x1"], "x2": SAMPLE["x2"], "z": SAMPLE["x3"]})
    assert "the model takes x1, x2, x3; the sample has x1, x2, z" in caught.value.hint
    with pytest.raises(InvalidInput, match="takes 3 columns and the sample has 4: x1, x2, x3, y") as caught:
        pack(LINEAR, tmp_path / "b", sample={**SAMPLE, "y": SAMPLE["x1"]})
    assert "leave the target out" in caught.value.hint
    with pytest.raises(InvalidInput, match="no rows"):
        pack(LINEAR, tmp_path / "b", sample={name: values[:0] for name, values in SAMPLE.items()})
    with pytest.raises(InvalidInput, match="no rows"):
        pack(LINEAR, tmp_path / "b", sample={})
    with pytest.raises(InvalidInput, match="equally long"):
        pack(LINEAR, tmp_path / "b", sample={**SAMPLE, "x1": SAMPLE["x1"][:5]})
    with pytest.raises(ModelFailed):
        pack(LINEAR, tmp_path / "b", sample={**SAMPLE, "x1": np.full(120, np.nan)})
    assert not list(tmp_path.iterdir())


def test_what_is_no_model(tmp_path):
    with pytest.raises(InvalidInput, match=r"no runtime knows this model: int"):
        pack(3, tmp_path / "b", sample=SAMPLE)
    with pytest.raises(NotFound, match="no such model file"):
        pack("nowhere.onnx", tmp_path / "b", sample=SAMPLE)
    with pytest.raises(InvalidInput, match="not been fitted"):
        pack(LinearRegression(), tmp_path / "b", sample=SAMPLE)


class Local(LinearRegression):
    """Cannot be imported where this test module is not."""


def test_a_model_that_a_fresh_process_cannot_load_is_refused(tmp_path):
    model = Local().fit(MATRIX, MATRIX[:, 0])
    Local.__module__ = "__main__"
    sys.modules["__main__"].Local = Local
    try:
        with pytest.raises(ModelFailed, match=r"fresh process: .*Local") as caught:
            pack(model, tmp_path / "b", sample=SAMPLE, convert=False)
    finally:
        del sys.modules["__main__"].Local
    assert "importable from a module" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_failure_at_any_write_leaves_nothing(tmp_path, monkeypatch, packed):
    real, calls = Path.write_bytes, []

    def failing(at):
        def write(path, data):
            calls.append(path)
            if len(calls) == at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(path, data)

        return write

    at = 1
    while True:
        calls.clear()
        monkeypatch.setattr(Path, "write_bytes", failing(at))
        try:
            pack(LINEAR, tmp_path / "b", sample=SAMPLE)
            break
        except RemoteFailed as error:
            assert "No space left" in error.message
            assert not list(tmp_path.iterdir())
        at += 1
    assert at > 4
    assert Bundle.open(tmp_path / "b")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RemoteFailed, match="cannot write"):
        pack(LINEAR, tmp_path / "file" / "b", sample=SAMPLE)


def test_killed_at_any_moment_it_leaves_no_half_bundle(tmp_path):
    script = (
        "import sys, numpy as np\n"
        "from sklearn.linear_model import LinearRegression\n"
        "from modelyard.bundle import pack\n"
        "x = np.arange(90.0).reshape(30, 3); m = LinearRegression().fit(x, x[:, 0])\n"
        "pack(m, sys.argv[1] + '/warm', sample={n: x[:, i] for i, n in enumerate('abc')})\n"
        "print('go', flush=True)\n"
        "for i in range(10**6): pack(m, f'{sys.argv[1]}/{i}', sample={n: x[:, i] + i for i, n in enumerate('abc')})\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"go\n"
        assert waited(lambda: len(whole(tmp_path)) > 1)
        time.sleep(0.2 * random.random())
        child.kill()
    for path in whole(tmp_path):
        Bundle.open(path)


def whole(folder):
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


# -- beside the digest -------------------------------------------------------------------------------------------


def test_provenance_says_where_it_came_from(tmp_path):
    bundle = pack(LINEAR, tmp_path / "b", sample=SAMPLE, provenance={"source": "m.pkl", "user": "ada"})
    said = bundle.provenance
    assert (said["source"], said["user"]) == ("m.pkl", "ada")
    assert said["data"] == origin.data_digest(bundle.signature.input_layout.from_arrays(SAMPLE))
    assert {"time", "machine", "command", "python", "modelyard"} <= said.keys()
    text = (bundle.folder / "manifest.json").read_text()
    assert not any(said[key] in text for key in ("time", "command"))


def test_commands_lose_their_secrets():
    words = ["train", "a.csv", "--token", "abc", "--password=def", "postgresql://u:ghi@host/db", "--name", "k"]
    assert origin.without_secrets(words) == "train a.csv --token *** --password=*** postgresql://***@host/db --name k"


def test_forests_add_up_alike_with_and_without_threads():
    model = RandomForestClassifier(30, n_jobs=4, random_state=0).fit(MATRIX, LABELS)
    predict = packing._steady(model.predict_proba)
    first = predict(MATRIX)
    assert all((predict(MATRIX) == first).all() for _ in range(5))


def test_packing_asks_the_model_on_one_thread():
    from threadpoolctl import threadpool_info

    def threads(_):
        return {pool["num_threads"] for pool in threadpool_info()}

    assert packing._steady(threads)(None) == {1}


def test_an_honest_pickle_of_a_model_packs_by_its_file(tmp_path):
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(LINEAR))
    model = read_model(tmp_path / "model.pkl")
    bundle = pack(model, tmp_path / "b", sample=SAMPLE)
    row = bundle.signature.input_layout.from_arrays({"x1": [1.5], "x2": [2], "x3": [0.5]})
    assert bundle.load()(row)["prediction"][0] == pytest.approx(LINEAR.predict([[1.5, 2, 0.5]])[0], abs=1e-6)


# -- models that know no column names ----------------------------------------------------------------------------


class Ratio(TransformerMixin, BaseEstimator):
    """A step as people write it: made for data frames, and silent about their columns."""

    def fit(self, table, target=None):
        return self

    def transform(self, table):
        return table.assign(ratio=table.x1 / (1 + table.x2.abs()))


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """Ratio in a module that a fresh process can import."""
    (tmp_path / "ratios.py").write_text(
        "from sklearn.base import BaseEstimator, TransformerMixin\n\n" + inspect.getsource(Ratio)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("ratios").Ratio
    del sys.modules["ratios"]


def test_a_hand_written_step_gets_the_data_frame_that_it_was_fitted_on(tmp_path, importable):
    table = frame(SAMPLE)
    model = make_pipeline(importable(), LinearRegression()).fit(table, table.x1)
    bundle = pack(model, tmp_path / "b", sample=SAMPLE)
    assert bundle.manifest.model.options["takes"] == "frame"
    columns = bundle.signature.input_layout.from_arrays(SAMPLE)
    answer = bundle.load(trust=Trust.of(bundle.digest))(columns)["prediction"]
    assert np.allclose(answer, model.predict(table), rtol=1e-12)


def test_a_model_without_names_says_in_which_order_it_takes_the_columns(tmp_path, no_rehearsal):
    told = []
    bundle = pack(LINEAR, tmp_path / "a", sample=SAMPLE, convert=False, progress=told.append)
    assert "note: the model knows no column names: it takes x1, x2, x3 in this order" in told
    assert bundle.manifest.model.options["takes"] == "array"
    told.clear()
    pack(LinearRegression().fit(frame(SAMPLE), LABELS == "yes"), tmp_path / "b", sample=SAMPLE, progress=told.append)
    assert not [line for line in told if "column names" in line]


def test_a_step_that_finds_its_column_in_neither_form_is_told_with_both(tmp_path):
    table = frame(SAMPLE)
    model = make_pipeline(Ratio(), LinearRegression()).fit(table, table.x1)
    with pytest.raises(
        ModelFailed, match=r"has no attribute 'x1' \(given a data frame; given an array: Attr"
    ) as caught:
        pack(model, tmp_path / "b", sample={"a": SAMPLE["x1"], "x2": SAMPLE["x2"], "x3": SAMPLE["x3"]})
    assert "a, x2, x3?" in caught.value.hint


# -- what is no model, and what is no number ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "kind", "hint"),
    [
        (
            {"model": LINEAR, "columns": ["x1"]},
            "dict",
            "the fitted model itself: ['model'], a sklearn.linear_model.Lin",
        ),
        ([1, LINEAR], "list", "the fitted model itself: [1], a sklearn.linear_model.LinearRegression"),
        (StandardScaler().fit(MATRIX), r"sklearn\.preprocessing\.StandardScaler", "a Pipeline of this step"),
        (LinearRegression, r"the class sklearn\.linear_model\.LinearRegression", "not its class"),
        ({}, "dict", "save the fitted model of one of"),
    ],
)
def test_what_is_no_model_is_told_what_to_save_instead(tmp_path, thing, kind, hint):
    with pytest.raises(InvalidInput, match=f"no runtime knows this model: {kind}\n") as caught:
        pack(thing, tmp_path / "b", sample=SAMPLE)
    assert hint in caught.value.hint


def test_a_text_in_a_column_of_numbers_is_the_samples_fault(tmp_path):
    numbers = np.array(["1", "2", "two", "4"], dtype=object)
    model = LinearRegression().fit(frame(SAMPLE)[["x1", "x2"]], SAMPLE["x3"])
    with pytest.raises(InvalidInput, match=r"column x2 of the sample, row 3: expected a number, .* got 'two'"):
        pack(model, tmp_path / "b", sample={"x1": np.arange(4.0), "x2": numbers})


def test_a_folder_elsewhere_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def fail(*args):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/file")

    monkeypatch.setattr(rehearsal, "rehearse", fail)
    with pytest.raises(RemoteFailed, match="/elsewhere/file: Permission denied"):
        pack(LINEAR, tmp_path / "b", sample=SAMPLE, convert=False)


def test_a_fresh_process_that_cannot_be_started_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(RemoteFailed, match=r"fresh process .* cannot be started: .*no-python: No such file"):
        pack(LINEAR, tmp_path / "b", sample=SAMPLE, convert=False)
