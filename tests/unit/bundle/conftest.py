"""Bundles to open, copy and damage: packed once per session."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from modelyard.bundle import Bundle, pack


def rows(count=200, seed=0):
    rng = np.random.default_rng(seed)
    return {"x1": rng.normal(size=count), "x2": rng.integers(0, 9, size=count)}


def matrix(columns):
    return np.stack(list(columns.values()), axis=1)


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> Bundle:
    """A linear model, served as ONNX, with provenance and a report beside."""
    sample = rows()
    model = LinearRegression().fit(matrix(sample), 2 * sample["x1"] + sample["x2"])
    folder = tmp_path_factory.mktemp("packed") / "churn"
    return pack(model, folder, sample=sample, metrics={"r2": 1.0}, report="<p>fine</p>")


@pytest.fixture
def copy(packed, tmp_path):
    """A copy of the packed bundle's folder, to be damaged."""
    return shutil.copytree(packed.folder, tmp_path / "churn")
