"""Every block of the page on mounting runs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="a model is packed")
sys.path.insert(0, str(Path(__file__).parent))
from blocks import blocks, reader

PAGE = Path(__file__).parents[2] / "docs/mounting.md"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page takes for granted: a registered model, and a Django project."""
    from sklearn.linear_model import LinearRegression

    from modelyard.bundle import pack
    from modelyard.registry import Registry

    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    sample = {"x1": rng.normal(size=30), "x2": rng.normal(size=30)}
    model = LinearRegression().fit(np.stack(list(sample.values()), axis=1), sample["x1"])
    registry = Registry.open(folder / "home")
    registry.register(pack(model, folder / "bundle", sample=sample), "churn", alias="production")
    registry.close()
    (folder / "shop").mkdir()
    (folder / "shop/settings.py").write_text('SECRET_KEY = "test"\nROOT_URLCONF = "shop.urls"\n')
    return folder


@pytest.mark.parametrize("number", range(len(blocks(PAGE))))
def test_a_block_runs(number: int, home: Path) -> None:
    with reader(home) as somebody:
        somebody.run(*blocks(PAGE)[number])
