"""What the README and the tutorial say is what happens."""

import contextlib
import json
import pickle
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the pages train models")
sys.path.insert(0, str(Path(__file__).parent))
from blocks import blocks, check_answer, reader

ROOT = Path(__file__).parents[2]


def test_the_two_readmes_have_the_same_commands() -> None:
    assert blocks(ROOT / "README.md") == blocks(ROOT / "README.zh.md")


@pytest.mark.parametrize(
    "page", ["README.md", "README.zh.md", *[f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")]]
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8")):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


def test_every_block_of_the_tutorial_runs(tmp_path: Path) -> None:
    with reader(tmp_path) as somebody:
        for language, text in blocks(ROOT / "docs/tutorial.md"):
            somebody.run(language, text)
        assert (tmp_path / "predictions.parquet").stat().st_size > 0


VERSIONS = """
import numpy as np, pandas as pd
from sklearn.linear_model import LinearRegression
import modelyard as my

rows = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["x1", "x2"])
for i in range(3):
    my.package(LinearRegression().fit(rows, 3 * rows.x1 + rows.x2 + i), sample=rows, name="churn")
"""


def test_every_block_on_serving_runs(tmp_path: Path) -> None:
    printed = ""
    with reader(tmp_path) as somebody:
        somebody.run("python", VERSIONS)
        for language, text in blocks(ROOT / "docs/serving.md"):
            if language == "json":
                check_answer(printed, language, text)
            else:
                printed = somebody.run(language, text)
                assert '"error"' not in printed, printed


def test_every_block_on_rollouts_runs(tmp_path: Path) -> None:
    with reader(tmp_path) as somebody:
        somebody.run("python", VERSIONS)
        for language, text in blocks(ROOT / "docs/rollouts.md"):
            somebody.run(language, text)


def test_the_readme_does_what_it_says(tmp_path: Path) -> None:
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(120, 2)), columns=["x1", "x2"])
    y = 3 * rows.x1 + rows.x2
    rows.assign(y=y).to_csv(tmp_path / "data.csv", index=False)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(LinearRegression().fit(rows, y)))

    made, told = {"make demo", "make test"}, []
    with reader(tmp_path, MODELYARD_RECORD="on") as somebody:  # as it is where no test has turned it off
        for language, text in blocks(ROOT / "README.md"):
            if text.strip() in made or text.startswith("pip install") or language == "json":
                continue
            if "promote churn 4" in text:  # the reader has worked on it in the meantime
                for i in (2, 3, 4):
                    rows.assign(y=y + i).to_csv(tmp_path / "data.csv", index=False)
                    somebody.run("sh", "modelyard train data.csv --target y --name churn --candidates linear")
            if "sha256:..." in text:
                look = json.loads(somebody.run("sh", "modelyard look model.pkl --json"))
                text = text.replace("sha256:...", look["digest"])
            if "tritonclient" in text:
                with contextlib.suppress(pytest.skip.Exception):  # where the client is not installed, the rest goes on
                    assert float(somebody.run(language, text).strip("[]\n")) == pytest.approx(6.5, abs=1e-6)
                continue
            told.append(somebody.run(language, text))
            if text.startswith("curl"):
                answer = json.loads(told[-1])
                assert answer["prediction"] == pytest.approx(6.5, abs=1e-6)
                assert (answer["model"], answer["version"]) == ("churn", 1)
    assert float(told[-1].strip().strip("[]")) == pytest.approx(6.5, abs=4.5)
