"""Model files: recognised by content, read by the rules, refused with what to do."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression

from modelyard.bundle import Trust, formats, look, pickles, read_model, signing
from modelyard.errors import InvalidInput, MissingDependency, NotFound, Refused

ROWS = np.random.default_rng(0).normal(size=(60, 3))
LINEAR = LinearRegression().fit(ROWS, ROWS[:, 0])


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def dump(path, thing):
    path.write_bytes(pickle.dumps(thing))
    return path


def test_a_plain_model_needs_no_trust(tmp_path):
    for name in ("model.pkl", "model", "model.onnx"):  # the name tells nothing
        assert read_model(dump(tmp_path / name, LINEAR)).predict(ROWS[:2]).tolist() == LINEAR.predict(ROWS[:2]).tolist()


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_recognised(tmp_path, protocol):
    for thing in (LINEAR, [LINEAR], {"a": LINEAR}, (LINEAR,)):
        path = tmp_path / "model"
        path.write_bytes(pickle.dumps(thing, protocol=protocol))
        assert formats.recognise(path) == "pickle", path.read_bytes()[:20]
        read_model(path)


def test_a_stranger_is_refused_with_its_imports_and_its_digest(tmp_path):
    path = dump(tmp_path / "model.pkl", [LINEAR, Touch(tmp_path / "canary")])
    with pytest.raises(Refused) as caught:
        read_model(path, Trust.of("sha256:" + "0" * 64))
    digest = look(path).digest
    assert caught.value.details["unknown"] == ["posix.system"]
    assert "posix.system" in caught.value.message
    assert f"--trust {digest}" in caught.value.hint
    assert "numpy._core.multiarray._reconstruct" in caught.value.details["imports"]
    assert not (tmp_path / "canary").exists()


def test_a_compression_that_cannot_be_read_here_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    path = tmp_path / "model.joblib"
    path.write_bytes(b"\x04\x22\x4d\x18" + bytes(20))
    assert "lz4" in look(path).reason
    with pytest.raises(Refused, match="lz4"):
        read_model(path)


def test_a_trusted_digest_loads_anything_and_only_that_file(tmp_path):
    path = dump(tmp_path / "model.pkl", Touch(tmp_path / "canary"))
    trust = Trust.of(look(path).digest.upper().replace("SHA256", "sha256"))
    assert read_model(path, trust) == 0
    assert (tmp_path / "canary").exists()
    (tmp_path / "canary").unlink()
    other = dump(tmp_path / "other.pkl", Touch(f"{tmp_path}/canary "))
    with pytest.raises(Refused):
        read_model(other, trust)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("compress", [0, ("lzma", 1)])
def test_trusted_joblib_files_load_too(tmp_path, compress):
    path = tmp_path / "model.joblib"
    joblib.dump([np.arange(3), subprocess.CompletedProcess("a", 0)], path, compress=compress)
    with pytest.raises(Refused, match=r"subprocess\.CompletedProcess"):
        read_model(path)
    assert read_model(path, Trust.of(look(path).digest))[1].args == "a"


@pytest.mark.parametrize("trusted", [False, True])
def test_what_was_looked_at_is_what_is_loaded(tmp_path, monkeypatch, trusted):
    path = dump(tmp_path / "model.pkl", subprocess.CompletedProcess("a", 0) if trusted else LINEAR)
    trust = Trust.of(look(path).digest) if trusted else None
    honest = pickles.look

    def swapped(source):
        seen = honest(source)
        dump(path, Touch(tmp_path / "canary"))  # as somebody else might, right after the look
        return seen

    monkeypatch.setattr(pickles, "look", swapped)
    assert type(read_model(path, trust)) is (subprocess.CompletedProcess if trusted else LinearRegression)
    assert not (tmp_path / "canary").exists()


def test_arrays_beside_a_trusted_file_are_not_read(tmp_path, monkeypatch):
    from joblib.numpy_pickle import NDArrayWrapper

    monkeypatch.chdir(tmp_path)
    np.save("arrays.npy", np.array([Touch(tmp_path / "canary")], dtype=object), allow_pickle=True)
    path = dump(tmp_path / "model.joblib", NDArrayWrapper("arrays.npy", np.ndarray, True))
    with pytest.raises(InvalidInput, match="files beside it"):
        read_model(path, Trust.of(look(path).digest))
    assert not (tmp_path / "canary").exists()


def test_a_publishers_key_is_trust(tmp_path):
    private, public = signing.keygen(tmp_path / "key")
    _, stranger = signing.keygen(tmp_path / "stranger")
    path = dump(tmp_path / "model.pkl", subprocess.CompletedProcess("a", 0))
    with pytest.raises(Refused):
        read_model(path, Trust.of(str(public)))
    signing.sign(path, private)
    assert read_model(path, Trust.of(str(stranger), str(public))).args == "a"
    with pytest.raises(Refused):
        read_model(path, Trust.of(str(stranger)))
    dump(path, subprocess.CompletedProcess("b", 0))
    with pytest.raises(Refused):
        read_model(path, Trust.of(str(public)))


@pytest.mark.parametrize("version", ["1.3.2", "0.9.1", "9.9.9"])
@pytest.mark.parametrize("trusted", [False, True])
def test_another_scikit_learn_is_refused_before_loading(tmp_path, version, trusted):
    forest = RandomForestClassifier(2).fit(ROWS, ROWS[:, 0] > 0)
    data = pickle.dumps([forest, Touch(tmp_path / "canary")]) if trusted else pickle.dumps(forest)
    assert len(sklearn.__version__) == len(version)
    path = tmp_path / "model.pkl"
    path.write_bytes(data.replace(sklearn.__version__.encode(), version.encode()))
    with pytest.raises(Refused, match=f"saved by scikit-learn {version}") as caught:
        read_model(path, Trust.of(look(path).digest) if trusted else None)
    assert f"scikit-learn=={version[:3]}.*" in caught.value.hint
    assert "wrongly" in caught.value.message
    assert not (tmp_path / "canary").exists()


def test_another_patch_of_scikit_learn_is_fine(tmp_path):
    patch = ".".join([*sklearn.__version__.split(".")[:2], "7"])
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(LINEAR).replace(sklearn.__version__.encode(), patch.encode()))
    with pytest.warns(UserWarning):
        read_model(path)


def test_a_library_that_is_not_installed_is_named(tmp_path, monkeypatch):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04clightgbm.basic\nBooster\n)\x81.")
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "lightgbm" else find(name))
    with pytest.raises(MissingDependency, match="lightgbm") as caught:
        read_model(path)
    assert "modelyard[lightgbm]" in caught.value.hint
    path.write_bytes(b"\x80\x04cnot_there.at_all\nThing\n)\x81.")
    with pytest.raises(MissingDependency, match="not_there") as caught:
        read_model(path, Trust.of(look(path).digest))


def test_a_trusted_pickle_that_fails_is_explained(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04csklearn.linear_model\nNoSuchThing\n)\x81.")
    with pytest.raises(InvalidInput, match="NoSuchThing"):
        read_model(path, Trust.of(look(path).digest))


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_truncated_pickle_is_explained(tmp_path, cut):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(LINEAR)[:cut])
    with pytest.raises((InvalidInput, Refused), match=r"damaged or truncated|could not be looked through"):
        read_model(path)


def test_skops_with_known_types_loads_and_others_are_listed(tmp_path):
    skops = pytest.importorskip("skops.io")
    skops.dump(LINEAR, tmp_path / "model.skops")
    assert read_model(tmp_path / "model.skops").coef_.tolist() == LINEAR.coef_.tolist()
    skops.dump([LINEAR, Path("a")], tmp_path / "other.skops")
    with pytest.raises(Refused, match=r"pathlib\.") as caught:
        read_model(tmp_path / "other.skops")
    assert read_model(tmp_path / "other.skops", Trust.of(caught.value.details["digest"]))[1] == Path("a")
    with zipfile.ZipFile(tmp_path / "model.skops") as old, zipfile.ZipFile(tmp_path / "old.skops", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(sklearn.__version__.encode(), b"1.3.2"))
    with pytest.raises(Refused, match=r"saved by scikit-learn 1\.3\.2"):
        read_model(tmp_path / "old.skops")


def test_boosters_come_back_as_paths(tmp_path):
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    trees = xgboost.XGBRegressor(n_estimators=2).fit(ROWS, ROWS[:, 0])
    for name in ("a.json", "a.ubj"):
        trees.save_model(tmp_path / name)
        (tmp_path / name).rename(tmp_path / "renamed")
        assert formats.recognise(tmp_path / "renamed") == "xgboost"
        (tmp_path / "renamed").rename(tmp_path / name)
        assert read_model(tmp_path / name) == tmp_path / name
    path = tmp_path / "b.txt"
    lightgbm.LGBMRegressor(n_estimators=2, verbose=-1).fit(ROWS, ROWS[:, 0]).booster_.save_model(path)
    assert (formats.recognise(path), read_model(path)) == ("lightgbm", path)


def graph(domain="", operator="Identity", location=None):
    from onnx import TensorProto, helper

    tensors = []
    if location is not None:
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", location), ("length", "4")):
            tensor.external_data.add(key=key, value=value)
        tensors = [tensor]
    node = (
        helper.make_node("Add", ["x", "w"], ["y"])
        if tensors
        else helper.make_node(operator, ["x"], ["y"], domain=domain)
    )
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 1]) for n in "xy"]
    body = helper.make_graph([node], "g", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(body, opset_imports=opsets, ir_version=8).SerializeToString()


def test_onnx_loads_and_what_reaches_outside_is_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "model"
    path.write_bytes(graph())
    assert read_model(path) == path
    path.write_bytes(graph(domain="ai.onnx.contrib", operator="PyOp"))
    with pytest.raises(Refused, match="PyOp"):
        read_model(path)
    (tmp_path / "secret").write_bytes(bytes(4))
    for location in ("../secret", str(tmp_path / "secret")):
        path.write_bytes(graph(location=location))
        with pytest.raises(Refused, match="outside"):
            read_model(path)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("m.pkl", b"", "empty"),
        ("m.h5", b"\x89HDF\r\n", "Keras"),
        ("m.pmml", b"<?xml version='1.0'?><PMML/>", "PMML"),
        ("m.cbm", b"CBM1....", "CatBoost"),
        ("m.model", b"binf....", "ubj"),
        ("m.csv", b"a,b\n1,2\n", "text"),
        ("churn.csv", b"churn,b\nc,2.", "text"),
        ("m.json", b'{"a": 1}', "JSON"),
        ("m.npy", b"\x93NUMPY\x01", "numpy array"),
        ("m.parquet", b"PAR1....", "Parquet"),
        ("m.bin", b"\xff\xfe\xfd", "another kind"),
        ("m.zip", b"PK\x03\x04....", "damaged"),
    ],
)
def test_other_files_are_explained(tmp_path, name, data, words):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=words):
        read_model(path)


def test_other_zips_and_folders_are_explained(tmp_path, packed):
    for entry, words in (("archive/data.pkl", "PyTorch"), ("metadata.json", "Keras"), ("a.npy", "numpy"), ("x", "zip")):
        with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
            archive.writestr(entry, "x")
        with pytest.raises(InvalidInput, match=words):
            read_model(tmp_path / "m.zip")
    with pytest.raises(InvalidInput, match="a bundle already"):
        read_model(packed.folder)
    with pytest.raises(InvalidInput, match="a bundle already"):
        read_model(packed.write_file(tmp_path / "b.zip"))
    with pytest.raises(InvalidInput, match="a folder"):
        read_model(tmp_path)
    with pytest.raises(NotFound, match="no such model file"):
        read_model(tmp_path / "nowhere.pkl")


def test_looking_lists_what_an_honest_model_imports(tmp_path):
    path = tmp_path / "m.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(LINEAR)))
    seen = look(path)
    assert seen.harmless
    assert seen.compression == "gzip"
    assert "sklearn.linear_model._base.LinearRegression" in seen.imports
    assert seen.versions == {"scikit-learn": (sklearn.__version__,)}
    with pytest.raises(InvalidInput, match="neither"):
        (tmp_path / "m.json").write_text(json.dumps({"learner": {}}))
        look(tmp_path / "m.json")


def test_looking_imports_no_library(tmp_path):
    path = dump(tmp_path / "m.pkl", LINEAR)
    script = (
        "import sys; from modelyard.bundle import look; from pathlib import Path; "
        f"assert look(Path({str(path)!r})).harmless; "
        "print(sorted({'sklearn', 'scipy', 'joblib', 'pandas', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_class_of_a_notebook_is_told_where_it_belongs(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04c__main__\nRatio\n)R.")
    with pytest.raises(InvalidInput, match=r"cannot be loaded: AttributeError: .*Ratio") as caught:
        read_model(path, Trust.of(look(path).digest))
    assert "notebook or a script" in caught.value.hint
    assert "put Ratio in a module, import it from there and pickle again" in caught.value.hint
