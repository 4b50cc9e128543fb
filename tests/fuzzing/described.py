"""Schemathesis on the description of our own API: a server gets what that allows and what it forbids.

All of its checks are on: no status, header, content type or answer that is not described, none of a fault of ours, no
method that is not there, nothing refused that fits and nothing taken that does not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import schemathesis

from .target import Target

#: What is told where columns differ in length, or rows in their shape where that may vary: no JSON Schema forbids it.
SIZES = ("values, as in the other columns", "rows whose values have one shape")

#: Whole numbers that are written with a fraction of 0 are taken while each double is one whole number. JSON Schema
#: knows no difference between 9007199254740992.0, which stands for several, and 9007199254740992.
WRITTEN_AS_FLOAT = re.compile(r"-?(\d{16,}\.0|\d(\.\d+)?e\+?\d+)")


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Whether a failure counts: not where what fits the document was refused for what that cannot say."""
    if failure.code != "ST202":
        return True
    problems = response.json()["error"].get("problems", [])
    return not problems or not all(_is_beyond_schemas(**problem) for problem in problems)


def _is_beyond_schemas(path: str, expected: str, got: str) -> bool:
    is_whole = "a whole number" in expected
    return expected.endswith(SIZES) or (is_whole and WRITTEN_AS_FLOAT.fullmatch(got) is not None)


def examine(target: Target, folder: Path, *options: str) -> str:
    """Run schemathesis with these ``options``; what it found, with the requests to repeat it, or "" for nothing."""
    if target.key:
        options = ("--header", f"Authorization: Bearer {target.key}", *options)
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    program = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"http://127.0.0.1:{target.port}/openapi.json",
    ]
    ran = subprocess.run(
        [*program, "--continue-on-failure", "--no-color", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "SCHEMATHESIS_HOOKS": __name__, "COLUMNS": "200"},
    )  # fmt: skip
    return ran.stdout if ran.returncode else ""
