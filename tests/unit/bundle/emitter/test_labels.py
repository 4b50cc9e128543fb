"""Labels keep their own type, large graphs keep to their portion of rows, equal models give equal bytes."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from modelyard.bundle.emitter import forests

from .tables import assert_exact, frame, numeric, proved, target

LABELS = {
    "string": ["no", "yes", "嗨"],
    "int64": [3, 1, 7],
    "float64": [0.0, 1.0, 2.0],
    "bool": [False, True],
}


@pytest.mark.parametrize("dtype", LABELS)
@pytest.mark.parametrize("model", [LogisticRegression(), LinearSVC(), RandomForestClassifier(5, random_state=0)])
def test_labels_of_every_type(model, dtype):
    labels = LABELS[dtype]
    model.fit(frame(numeric()), target(numeric(), len(labels), labels))
    spec = assert_exact(model, numeric(1, 60), 1e-9)
    assert next(entry["field"] for entry in spec.options["outputs"]) == "prediction"


def test_a_label_of_each_leaf_of_a_large_forest_keeps_to_its_portion(monkeypatch):
    monkeypatch.setattr(forests, "LEAF_BYTES", 8 * 3 * 5 * 20)
    model = RandomForestClassifier(5, random_state=0).fit(frame(numeric()), target(numeric(), 3))
    spec = assert_exact(model, numeric(1, 60))
    assert spec.options["max_rows"] == 20


def test_neighbours_of_many_rows_keep_to_their_portion():
    model = KNeighborsClassifier().fit(frame(numeric()), target(numeric(), 3))
    spec = assert_exact(model, numeric(1, 60))
    assert spec.options["max_rows"] == 64 * 2**20 // (8 * 200)


def test_clusters():
    model = KMeans(3, n_init=2, random_state=0).fit(frame(numeric()))
    conversion, _ = proved(model, numeric(1, 60))
    assert conversion.accepted, conversion.reason
    assert conversion.label_flips == 0


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from hashlib import sha256
from emitter.tables import frame, mixed, prepare, target
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from modelyard.bundle.emitter import emit
from modelyard.schema import Signature, infer_fields
model = make_pipeline(prepare(), RandomForestClassifier(4, random_state=0))
model.fit(frame(mixed()), target(mixed(), 3, ["a", "b", "c"]))
made = emit(model, Signature(inputs=infer_fields(mixed()))).model
print(sha256(made.SerializeToString(deterministic=True)).hexdigest())
"""


def test_equal_models_give_equal_bytes_in_every_process():
    from pathlib import Path

    here = str(Path(__file__).parent.parent)
    digests = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT, here],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_a_tie_goes_to_the_first_class():
    rows = {"x": np.array([0.0, 0.0, 1.0, 1.0] * 5)}
    model = RandomForestClassifier(2, random_state=0).fit(frame(rows), np.array(["b", "a"] * 10))
    assert_exact(model, rows)
