"""What ``package`` tells people beside its answer."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
from click.testing import CliRunner
from sklearn.linear_model import LinearRegression

from modelyard.cli.package import package


def test_the_order_that_a_model_without_names_takes_is_noted_on_stderr(tmp_path):
    table = pd.DataFrame({"x2": np.arange(30.0), "x1": np.arange(30.0) ** 2})
    table.to_csv(tmp_path / "rows.csv", index=False)
    model = LinearRegression().fit(table.to_numpy(), table.x1)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    words = [tmp_path / "model.pkl", "--sample", tmp_path / "rows.csv", "--out", tmp_path / "bundle"]
    done = CliRunner().invoke(package, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    assert "note: the model knows no column names: it takes x2, x1 in this order\n" in done.stderr
    assert "note:" not in done.stdout
