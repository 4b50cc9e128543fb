"""Looking at pickles runs nothing, sees everything, and loading allows no more than looking concluded."""

from __future__ import annotations

import builtins
import bz2
import collections
import copyreg
import functools
import gzip
import io
import lzma
import os
import pickle
import subprocess
import tempfile
import timeit
import zlib
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelyard.bundle import allowed, dtypes, pickles


class Calls:
    """Pickles as a call of ``function`` with ``args``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def touch(path):
    return f"touch {path}"


def python(path):
    return f"open({str(path)!r}, 'w').close()"


def joblib_bytes(thing, **options):
    buffer = io.BytesIO()
    joblib.dump(thing, buffer, **options)
    return buffer.getvalue()


def hand_made(*parts):
    return b"".join(parts)


def text(value):
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def attacks(canary):
    """Name -> bytes of a file that writes the canary (or would, given the right reader)."""
    shell = Calls(os.system, touch(canary))
    evil = pickle.dumps(shell)
    second = canary.parent / "second.pkl"
    second.write_bytes(evil)
    second_npy = canary.parent / "second.npy"
    np.save(second_npy, np.array([shell], dtype=object), allow_pickle=True)
    system = b"c" + os.system.__module__.encode() + b"\nsystem\n"
    command = touch(canary)
    found = {f"os.system, protocol {p}": pickle.dumps(shell, protocol=p) for p in range(6)}
    found |= {
        "eval": pickle.dumps(Calls(builtins.eval, python(canary))),
        "exec": pickle.dumps(Calls(builtins.exec, python(canary))),
        "eval under its name of Python 2": b"c__builtin__\neval\n(V" + python(canary).encode() + b"\ntR.",
        "timeit": pickle.dumps(Calls(timeit.timeit, python(canary), "pass", timeit.default_timer, 1)),
        "subprocess": pickle.dumps(Calls(subprocess.Popen, ["touch", str(canary)])),
        "second stage: numpy.load": pickle.dumps(Calls(np.load, str(second_npy), None, True)),
        "second stage: joblib.load": pickle.dumps(Calls(joblib.load, str(second))),
        "getattr": hand_made(
            b"\x80\x04cbuiltins\ngetattr\n(cimportlib\nimport_module\n",
            text("os"), b"\x85R", text("system"), b"tR", text(command), b"\x85R.",
        ),
        "operator": hand_made(
            b"\x80\x04coperator\nmethodcaller\n(", text("system"), text(command),
            b"tRcimportlib\nimport_module\n", text("os"), b"\x85R\x85R.",
        ),
        "partial": pickle.dumps(functools.partial(os.system, command)),
        "map": hand_made(b"\x80\x04cbuiltins\nlist\ncbuiltins\nmap\n", system, b"]", text(command), b"a\x86R\x85R."),
        "STACK_GLOBAL": hand_made(
            b"\x80\x04", text(os.system.__module__), text("system"), b"\x93", text(command), b"\x85R."
        ),
        "STACK_GLOBAL from the memo": hand_made(
            b"\x80\x04", text("system"), b"\x940", text(os.system.__module__), b"h\x00\x93", text(command), b"\x85R."
        ),
        "STACK_GLOBAL of a computed name": hand_made(
            b"\x80\x04", text(os.system.__module__), b"cbuiltins\nstr\n", text("system"), b"\x85R\x93",
            text(command), b"\x85R.",
        ),
        "a dotted name": hand_made(
            b"\x80\x04", text("sklearn.base"), text("os.system"), b"\x93", text(command), b"\x85R."
        ),
        "a dotted name whose parts read as one allowed": hand_made(
            b"\x80\x04", text("sklearn"), text("linear_model._base.LinearRegression"), b"\x93)\x81."
        ),
        "INST": b"(V" + command.encode() + b"\ni" + os.system.__module__.encode() + b"\nsystem\n.",
        "OBJ": hand_made(b"(", system, b"V", command.encode(), b"\no."),
        "NEWOBJ": hand_made(b"\x80\x04csubprocess\nPopen\n]", text("touch"), b"a", text(str(canary)), b"a\x85\x81."),
        "NEWOBJ_EX": hand_made(
            b"\x80\x04csubprocess\nPopen\n]", text("touch"), b"a", text(str(canary)), b"a\x85}\x92."
        ),
        "an allowed function that calls": hand_made(
            b"\x80\x04cnumpy.random._pickle\n__randomstate_ctor\n", text(command), system, b"\x86R."
        ),
        "an allowed class that calls later": hand_made(
            b"\x80\x04ccollections\ndefaultdict\n", system, b"\x85R."
        ),
        "copyreg": hand_made(b"ccopyreg\n_reconstructor\n(csubprocess\nPopen\nc__builtin__\nobject\nNtR."),
        "a persistent id": b"P" + command.encode() + b"\n.",
        "a binary persistent id": hand_made(b"\x80\x04", text(command), b"Q."),
        "an extension code": hand_made(b"\x80\x04\x82\xf0", text(command), b"\x85R."),
        "a second pickle": pickle.dumps([1, 2]) + evil,
        "state set on a class": hand_made(
            b"\x80\x04csklearn.linear_model._base\nLinearRegression\nN}", text("predict"),
            b"cbuiltins\nlist\ns\x86b.",
        ),
        "joblib": joblib_bytes(shell),
        "in an array of objects, pickled": pickle.dumps(np.array([shell, 1], dtype=object)),
        "in an array of objects, joblib": joblib_bytes(np.array([shell, 1], dtype=object)),
        "in an array inside an array, joblib": joblib_bytes(
            {"a": np.array([np.array([shell], dtype=object), np.arange(3)], dtype=object), "b": np.arange(5)}
        ),
        "after an honest array, joblib": joblib_bytes([np.arange(1000.0), shell]),
        "gzip": gzip.compress(evil),
        "two gzip members": gzip.compress(pickle.dumps(1)) + gzip.compress(evil),
        "bz2": bz2.compress(evil),
        "xz": lzma.compress(evil),
        "lzma": lzma.compress(evil, format=lzma.FORMAT_ALONE),
        "zlib": zlib.compress(evil),
        "cut off after the call": evil[:-1],
    }  # fmt: skip
    for method in ("zlib", "gzip", "bz2", "lzma", "xz"):
        found[f"joblib {method}"] = joblib_bytes([np.arange(9.0), shell], compress=(method, 3))
    return found


with tempfile.TemporaryDirectory() as scratch:
    NAMES = sorted(attacks(Path(scratch) / "canary"))


@contextmanager
def extension():
    """While this lasts, extension code 0xF0 means os.system in this process."""
    copyreg.add_extension(os.system.__module__, "system", 0xF0)
    try:
        yield
    finally:
        copyreg.remove_extension(os.system.__module__, "system", 0xF0)


@pytest.mark.parametrize("name", NAMES)
def test_attacks_are_seen_and_stopped_twice(name, tmp_path):
    canary = tmp_path / "canary"
    path = tmp_path / "model.pkl"
    path.write_bytes(attacks(canary)[name])
    with extension():
        seen = pickles.look(path)
    # What the look cannot see is stopped by the loader: setting state on what was imported.
    assert not seen.harmless or name == "state set on a class"
    if name not in ("a second pickle", "two gzip members"):  # of which only the first is ever loaded
        with extension(), pytest.raises(pickles.FAULTS):
            pickles.load(path)
    assert not canary.exists()


def test_the_attacks_would_work(tmp_path):
    """Without which the test above would show nothing."""
    for name in (
        "os.system, protocol 4",
        "timeit",
        "STACK_GLOBAL",
        "INST",
        "OBJ",
        "an extension code",
        "getattr",
        "map",
    ):
        canary = tmp_path / name.replace(" ", "")
        data = attacks(canary)[name]
        with extension():
            pickle.loads(data)
        assert canary.exists(), name


def test_the_names_are_listed(tmp_path):
    path = tmp_path / "m.pkl"
    path.write_bytes(attacks(tmp_path / "canary")["os.system, protocol 4"])
    assert pickles.look(path).unknown == ("posix.system",)


HONEST = {
    "numbers": [1, 2.5, "x", b"y", None, True, {"a": (1,)}, {3}, frozenset([4]), bytearray(b"z"), 2**80, 1j],
    "arrays": {
        "c": np.arange(12.0).reshape(3, 4),
        "f": np.asfortranarray(np.arange(12).reshape(3, 4)),
        "texts": np.array(["a", "bb"]),
        "objects": np.array(["a", None, 3], dtype=object),
        "structured": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        "aligned": np.zeros(2, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        "empty": np.empty((0, 3)),
        "scalar": np.float64(2.5),
        "zero-dimensional": np.array(7),
        "bool": np.array([True, False]),
    },
    "containers": [collections.OrderedDict(a=1), collections.defaultdict(list, b=[1]), collections.Counter("aab")],
}  # fmt: skip


def same(a, b):
    if isinstance(a, dict):
        return type(a) is type(b) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("name", sorted(HONEST))
@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_honest_pickles_come_back_whole(name, protocol, tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(HONEST[name], protocol=protocol))
    seen = pickles.look(path)
    assert seen.harmless, (seen.unknown, seen.reason)
    assert same(pickles.load(path), HONEST[name])


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_honest_joblib_files_come_back_whole(compress, tmp_path):
    path = tmp_path / "x.joblib"
    joblib.dump(HONEST["arrays"], path, compress=compress)
    seen = pickles.look(path)
    assert seen.harmless, (seen.unknown, seen.reason)
    assert seen.uses_joblib
    assert same(pickles.load(path), HONEST["arrays"])


def test_foreign_byte_order_becomes_native(tmp_path):
    joblib.dump(np.arange(3, dtype=">i4"), tmp_path / "x.joblib")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(np.arange(3, dtype=">i4")))
    for path in tmp_path.iterdir():
        assert pickles.look(path).harmless
        assert same(pickles.load(path), np.arange(3, dtype="i4"))


def models():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(60, 3)), np.array(["no", "yes"] * 30)
    return rows, {
        "linear": LinearRegression().fit(rows, rows[:, 0]),
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels),
        "forest": RandomForestClassifier(5, random_state=np.random.RandomState(1)).fit(rows, labels),
    }


@pytest.mark.parametrize("writer", ["pickle", "joblib", "joblib lzma"])
@pytest.mark.parametrize("name", ["linear", "pipeline", "forest"])
def test_plain_models_load_without_asking(name, writer, tmp_path):
    rows, fitted = models()
    path = tmp_path / "model"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(fitted[name]))
    else:
        joblib.dump(fitted[name], path, compress=("lzma", 1) if "lzma" in writer else 0)
    seen = pickles.look(path)
    assert seen.harmless, (seen.unknown, seen.reason)
    assert seen.versions["scikit-learn"] == (sklearn.__version__,)
    assert pickles.load(path).predict(rows).tolist() == fitted[name].predict(rows).tolist()


def test_boosters_of_xgboost_and_lightgbm_load_without_asking(tmp_path):
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    rng = np.random.default_rng(0)
    rows, target = rng.normal(size=(60, 3)), rng.normal(size=60)
    for model in (
        xgboost.XGBRegressor(n_estimators=3).fit(rows, target),
        lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(rows, target),
    ):
        path = tmp_path / "model.pkl"
        path.write_bytes(pickle.dumps(model))
        assert pickles.look(path).harmless, pickles.look(path)
        assert pickles.load(path).predict(rows).tolist() == model.predict(rows).tolist()


#: Names that scikit-learn had once, from 1.6 on.
OLDER = ("_RemainderColsList",)


def test_every_name_on_the_list_that_is_installed_exists():
    import importlib
    import warnings

    for module, names in allowed._names().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = importlib.import_module(module)
            except ImportError:
                continue
            gone = [name for name in names if not hasattr(found, name) and name not in OLDER]
        assert not gone, (module, gone)


def test_nothing_dangerous_is_on_the_list():
    forbidden = {
        "builtins": ("eval", "exec", "getattr", "open", "__import__", "compile", "map", "type", "setattr", "range"),
        "numpy": ("load", "fromfile", "save", "memmap", "loadtxt", "genfromtxt", "vectorize"),
        "joblib": ("load",), "functools": ("partial", "reduce"), "operator": ("attrgetter", "methodcaller"),
        "os": ("system",), "copyreg": ("add_extension",), "pickle": ("loads", "load"),
    }  # fmt: skip
    assert not [(m, n) for m, names in forbidden.items() for n in names if allowed.is_allowed(m, n)]


def test_a_file_cut_anywhere_is_never_harmless(tmp_path):
    path = tmp_path / "model.joblib"
    joblib.dump(models()[1]["forest"], path)
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        path.write_bytes(whole[:cut])
        assert not pickles.look(path).complete, cut


def test_what_is_too_much_is_not_followed(tmp_path, monkeypatch):
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(list(range(5000))))
    monkeypatch.setattr(pickles, "MOST_OPERATIONS", 1000)
    assert "more than 1000 operations" in pickles.look(path).reason
    monkeypatch.undo()
    monkeypatch.setattr("modelyard.bundle.streams.LARGEST", 1000)
    path.write_bytes(zlib.compress(pickle.dumps("x" * 10**6)))
    assert "unpacks to more than" in pickles.look(path).reason


def test_pickles_nested_too_deep_are_not_followed(tmp_path):
    thing = np.array([1], dtype=object)
    for _ in range(12):
        outer = np.empty(1, dtype=object)
        outer[0] = thing
        thing = outer
    path = tmp_path / "m.joblib"
    joblib.dump(thing, path)
    assert pickles.look(path).harmless  # nested in one pickle, which is no depth
    data = path.read_bytes()
    inner = data[: data.rindex(b"\x80")]
    path.write_bytes(inner * 20)
    assert not pickles.look(path).harmless


def test_a_huge_declared_length_allocates_nothing(tmp_path):
    path = tmp_path / "m.pkl"
    for opcode in (b"\x96", b"\x8e", b"\x8d", b"\x95"):
        path.write_bytes(b"\x80\x05" + opcode + (2**62).to_bytes(8, "little") + b"abc.")
        assert not pickles.look(path).complete


@pytest.mark.parametrize(
    "state",
    [
        (3, "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0),  # objects, but the flags deny it
        (3, "<", None, ("a",), {"a": (np.dtype("f8"), 100)}, 8, 1, 0),  # outside the record
        (3, "<", None, None, None, 64, 1, 0),  # another size
        (3, "<", (np.dtype("O"), (4,)), None, None, -1, -1, 0),
        (3, "<", None, ("a",), None, 8, 1, 0),
        (2, "<", None, None, None, -1, -1, 0),
        "nonsense",
    ],
)
def test_a_dtype_that_lies_is_refused(state):
    with pytest.raises(dtypes.Dishonest):
        dtypes.checked(np.dtype("V8"), state)


def test_a_dtype_that_lies_does_not_load(tmp_path):
    honest = pickle.dumps(np.zeros(1, dtype=[("a", "O")]), protocol=2)
    lying = honest.replace(b"K?t", b"K\x00t")  # the flags of a record that holds objects: 63
    assert lying != honest
    path = tmp_path / "m.pkl"
    path.write_bytes(lying)
    with pytest.raises(pickles.FAULTS):
        pickles.load(path)


class Made:
    """Pickles as a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


RAW = [(1,), np.dtype("O"), b"A" * 8]


@pytest.mark.parametrize("protocol", [0, 4])
@pytest.mark.parametrize("kind", ["call", "new", "new with words", "instance"])
def test_arrays_of_raw_memory_are_not_made(tmp_path, kind, protocol):
    path = tmp_path / "model.pkl"
    args = pickle.dumps(tuple(RAW), protocol)[:-1]
    words = pickle.dumps({}, protocol)[:-1]
    start = b"cnumpy\nndarray\n"
    path.write_bytes(
        {
            "call": pickle.dumps(Made(np.ndarray, *RAW), protocol),
            "new": start + args + pickle.NEWOBJ + b".",
            "new with words": start + args + words + pickle.NEWOBJ_EX + b".",
            "instance": b"(" + start + b"".join(pickle.dumps(v, protocol)[:-1] for v in RAW) + pickle.OBJ + b".",
        }[kind]
    )
    with pytest.raises(pickles.NotFollowed, match="raw memory"):
        pickles.load(path)  # which ended the process
