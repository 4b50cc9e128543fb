"""Two versions of scikit-learn side by side: each model in the Python that was made for its lock."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="models are packed")

import sklearn
from sklearn.linear_model import LinearRegression

from commands import type_in
from modelyard.bundle import Bundle, environments, pack
from modelyard.errors import RemoteFailed
from modelyard.serving.server import Server

OTHER = "1.7.2" if not sklearn.__version__.startswith("1.7.") else "1.8.0"

PACK = """
import sys
sys.path[:0] = [sys.argv[1]]
import numpy as np, sklearn
from pathlib import Path
from sklearn.linear_model import LinearRegression
from modelyard.bundle import pack
rows = {"x1": np.arange(20.0), "x2": np.arange(20.0)[::-1]}
model = LinearRegression().fit(np.column_stack(list(rows.values())), 3 * rows["x1"])
print(pack(model, Path(sys.argv[2]), sample=rows, convert=False).manifest.model.options["versions"]["scikit-learn"])
"""


def rows() -> dict[str, Any]:
    return {"x1": np.arange(20.0), "x2": np.arange(20.0)[::-1]}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    model = LinearRegression().fit(np.column_stack(list(rows().values())), 2 * rows()["x1"])
    return pack(model, tmp_path_factory.mktemp("ours") / "ours", sample=rows(), convert=False)


@pytest.fixture(scope="module")
def theirs(ours: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Packed where another scikit-learn is installed."""
    folder = tmp_path_factory.mktemp("theirs")
    lock = ours.manifest.environment
    changed = tuple(
        msgspec.structs.replace(one, version=OTHER) if one.name == "scikit-learn" else one for one in lock.distributions
    )
    try:
        python = environments.build(msgspec.structs.replace(lock, distributions=changed), folder)
    except RemoteFailed as error:
        if any(word in error.message for word in ("onnect", "esolve", "etwork", "fetch", "No matching distribution")):
            pytest.skip(f"no package index can be reached: {error.message}")
        raise
    own = environments.ourselves(folder / "ourselves")
    words = [str(python), "-c", PACK, str(own), str(folder / "theirs")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == OTHER
    return Bundle.open(folder / "theirs")


@pytest.mark.slow
def test_both_versions_serve_side_by_side(
    ours: Bundle, theirs: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    told = type_in(tmp_path, tmp_path, "environment", "show", str(theirs.path), "--json").json
    assert (told["fits"], told["interpreter"]) == (False, None)
    done = type_in(tmp_path, tmp_path, "serve", str(theirs.path), "--port", "0", "--json")
    error = done.error
    assert done.code != 0
    assert f"the model needs scikit-learn {OTHER}, {sklearn.__version__} is installed" in error["message"]
    assert error["hint"] == f"modelyard environment build {theirs.path}"
    built = type_in(tmp_path, tmp_path, *error["hint"].split()[1:], "--json").json
    assert Path(built["interpreter"]).is_relative_to(tmp_path / "environments")
    again = type_in(tmp_path, tmp_path, *error["hint"].split()[1:], "--json").json
    assert again["interpreter"] == built["interpreter"]

    with Server([str(ours.path), str(theirs.path)], port=0, log_stream=io.StringIO()) as server:
        from urllib.request import Request, urlopen

        found = {}
        for name in ("ours", "theirs"):
            asked = Request(f"{server.url}/models/{name}/predict", json.dumps({"x1": 5.0, "x2": 14.0}).encode())
            with urlopen(asked) as answer:
                found[name] = json.loads(answer.read())["prediction"]
        assert found == {"ours": pytest.approx(10.0), "theirs": pytest.approx(15.0)}
        loaded = server.catalog.find("theirs", None, None)
        assert loaded.remote is not None
        (process,) = loaded.remote.processes
        if sys.platform == "linux":
            command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0].decode()
            assert command == built["interpreter"]
            libraries = Path(f"/proc/{process}/maps").read_text()
            assert os.fspath(tmp_path / "environments") in libraries
            assert f"{Path(np.__file__).parent}/" not in libraries
