"""One home with models, made once through the command line, and a copy of it for each test that changes it; and servers
under which versions are rolled out.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import Done, Place, type_in
from postgres import Wire
from registries import new_schema


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


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Callable[..., Any]]:
    """Begins to serve models from which versions can be rolled out, with a registry of their own in PostgreSQL."""
    pytest.importorskip("onnx", reason="the versions are graphs")
    from rolling import Rolling

    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())

        def begun(*models: str) -> Rolling:
            folder = tmp_path_factory.mktemp("rolling")
            patch.setenv("MODELYARD_HOME", str(folder / "home"))
            wire = Wire(stack.enter_context(new_schema(postgres_url)), tmp_path_factory.mktemp("wire"))
            made = Rolling(folder, wire.url, models=models or ("m",))
            stack.callback(made.close)
            made.wire = wire
            return made

        yield begun
