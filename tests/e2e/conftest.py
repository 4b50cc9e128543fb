"""One home with models, made once through the command line, and a copy of it for each test that changes it."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import Done, Place, type_in


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Never change what is in it: take ``place``."""
    pytest.importorskip("sklearn", reason="models are trained")
    import numpy as np
    import pandas as pd
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LinearRegression

    folder = tmp_path_factory.mktemp("cli")
    home = folder / "home"
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["x1", "x2"])
    rows.to_csv(folder / "rows.csv", index=False)
    rows.assign(y=0.0, note="extra").to_csv(folder / "more.csv", index=False)
    for number in (1, 2):
        model = LinearRegression().fit(rows, 3 * rows.x1 + number * rows.x2)
        (folder / f"model{number}.pkl").write_bytes(pickle.dumps(model))
        sample = ["--sample", "rows.csv", "--name", "line"]
        done = type_in(home, folder, "package", f"model{number}.pkl", *sample, "--json")
        assert done.code == 0, done.err
        assert done.json["version"]["number"] == number
    flowers = load_iris(as_frame=True)
    table = flowers.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    table["kind"] = flowers.target.map(dict(enumerate(flowers.target_names)))
    table.to_csv(folder / "flowers.csv", index=False)
    words = ["train", "flowers.csv", "--target", "kind", "--name", "flowers", "--candidates", "linear", "--json"]
    done = type_in(home, folder, *words)
    assert done.code == 0, done.err
    (folder / "trained.json").write_text(done.out)
    return Place(home, folder)


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    """A copy of the home and its inputs that a test may change."""
    shutil.copytree(made.folder, tmp_path / "copy", symlinks=True)
    return Place(tmp_path / "copy" / "home", tmp_path / "copy")


@pytest.fixture
def cli(place: Place) -> Callable[..., Done]:
    """Type a command in the copy."""
    return lambda *words: type_in(place.home, place.folder, *words)
