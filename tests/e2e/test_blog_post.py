"""The case of the blog posts: a pickled LinearRegression becomes an endpoint, through the command line alone."""

import json
import os
import pickle
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression


def test_a_pickle_becomes_an_endpoint(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    rows = pd.DataFrame(rng.normal(size=(50, 2)), columns=["x1", "x2"])
    model = LinearRegression().fit(rows, 3 * rows.x1 - 2 * rows.x2 + rng.normal(size=50))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    rows.to_csv(tmp_path / "rows.csv", index=False)
    tool = [sys.executable, "-m", "modelyard"]
    place = {"cwd": tmp_path, "env": {**os.environ, "MODELYARD_HOME": str(tmp_path / "home")}}

    looked = subprocess.run([*tool, "look", "model.pkl", "--json"], **place, capture_output=True, check=True)
    digest = json.loads(looked.stdout)["digest"]
    package = [*tool, "package", "model.pkl", "--sample", "rows.csv", "--name", "blog", "--trust", digest]
    subprocess.run(package, **place, check=True)
    server = subprocess.Popen(
        [*tool, "serve", "blog@production", "--port", "0", "--json"], **place, stdout=subprocess.PIPE
    )
    try:
        url = json.loads(server.stdout.readline())["url"]
        for x1, x2 in [(1.5, 2.0), (-3.25, 0.0), (1e6, -1e-6)]:
            body = json.dumps({"x1": x1, "x2": x2}).encode()
            with urllib.request.urlopen(f"{url}/predict", body, timeout=60) as answer:
                told = json.load(answer)
            expected = model.predict(pd.DataFrame({"x1": [x1], "x2": [x2]}))[0]
            assert told["prediction"] == pytest.approx(expected, abs=1e-6)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=120) == 0
        server.stdout.close()
