"""What an import costs: heavy libraries are loaded by those who use them and by nobody else."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "cryptography", "duckdb", "lightgbm", "matplotlib", "onnx", "onnxmltools", "onnxruntime", "pandas", "psycopg",
    "pyarrow", "scipy", "skl2onnx", "sklearn", "skops", "xgboost",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import modelyard",
        "import modelyard.api",
        "import modelyard.bundle",
        "import modelyard.conformance",
        "import modelyard.recording.recorder",
        "import modelyard.registry",
        "import modelyard.rollouts.controller",
        "import modelyard.serving.server",
        "import modelyard.training",
        "import modelyard.scoring",
        "import modelyard.statistics.streaming, modelyard.statistics.effects, modelyard.statistics.expected",
        "import modelyard.testing",
        "from modelyard.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_no_heavy_library_is_loaded_before_it_is_used(code: str) -> None:
    assert not modules_after(code) & HEAVY


def test_the_package_itself_loads_not_even_numpy() -> None:
    assert not modules_after("import modelyard") & {"numpy", "msgspec", "click", "rich"}


def test_the_base_install_stays_small() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) < 15
    assert not [line for line in project["dependencies"] if line.split(">")[0].split("[")[0] in HEAVY - {"onnxruntime"}]
