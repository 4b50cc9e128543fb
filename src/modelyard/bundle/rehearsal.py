"""The rehearsal: a fresh process loads what was just packed, reproduces the golden rows and tells what it imported.

It proves that the bundle works where nothing else is loaded, and its list of modules is what the environment lock is
made from: neither what happens to be installed nor what the packing process happens to have imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from modelyard import plugins
from modelyard.bundle import formats
from modelyard.bundle.contents import check_path
from modelyard.bundle.environment import capture
from modelyard.bundle.golden import Golden
from modelyard.bundle.manifest import Environment, digest_of
from modelyard.bundle.trust import Trust
from modelyard.errors import BadBundle, ModelFailed, ModelyardError, RemoteFailed
from modelyard.interfaces import ModelSpec, Predict, Runtime, Settles
from modelyard.schema import Signature

_SCRIPT = """\
import sys
before = set(sys.modules)
import json
task = json.loads(sys.stdin.buffer.read())
sys.path[:] = task["path"]
from modelyard.bundle.rehearsal import perform
perform(task["folder"], task["spec"], task["signature"], before)
"""

#: Seconds after which the fresh process is given up.
LONGEST = 600


class Outcome(msgspec.Struct):
    """What the fresh process answers: the lock, or what went wrong."""

    environment: Environment | None = None
    error: str = ""


def rehearse(folder: Path, spec: ModelSpec, signature: Signature) -> Environment:
    """Load the model of the bundle being packed in ``folder`` in a fresh process and replay its golden rows.

    Returns the environment that it needed. Raises ModelFailed where it cannot be loaded there or answers otherwise.
    """
    task = {"path": sys.path, "folder": str(folder), "spec": spec, "signature": signature}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            input=msgspec.json.encode(task),
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # as in packing: threads in each other's way are slow
            capture_output=True,
            timeout=LONGEST,
            check=False,
        )
    except OSError as error:
        raise RemoteFailed(
            f"a fresh process to try the model in cannot be started: {error.filename}: {error.strerror}"
        ) from error
    except subprocess.TimeoutExpired:
        raise ModelFailed(f"the packed model did not answer within {LONGEST} seconds in a fresh process") from None
    try:
        outcome = msgspec.json.decode(done.stdout, type=Outcome)
    except msgspec.MsgspecError:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise ModelFailed(
            f"the packed model cannot be tried in a fresh process (exit {done.returncode}): {said[0]}"
        ) from None
    if outcome.environment is None:
        raise ModelFailed(
            f"the packed model does not work in a fresh process: {outcome.error}",
            hint="classes and functions that it uses must be importable from a module, not defined in a script or "
            "a notebook",
        )
    return outcome.environment


def perform(folder: str, spec: Any, signature: Any, before: set[str]) -> None:
    """The fresh process: load, replay, answer on stdout. ``before`` are the modules that were there at its start."""
    # What libraries print goes to stderr, so that the answer stands alone.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    outcome = Outcome()
    try:
        known = msgspec.convert(spec, ModelSpec)
        described = msgspec.convert(signature, Signature)
        Golden.from_json((Path(folder) / "golden.json").read_bytes(), described).check(
            load_model(Path(folder) / "model", known, described, "cpu", _own(Path(folder) / "model"))
        )
        outcome.environment = capture(set(sys.modules) - before, known.runtime)
    except ModelyardError as error:
        outcome.error = error.message
    except Exception as error:  # the model's own code runs here, and may raise anything
        outcome.error = f"{type(error).__name__}: {error}"
    with answer:
        answer.write(msgspec.json.encode(outcome))


def _own(folder: Path) -> Trust:
    """Trust in what this very packing wrote from a live object."""
    return Trust.of(*(digest_of(path) for path in folder.rglob("*") if path.is_file()))


def predictor_of(runtime: Runtime, model: Any, signature: Signature, options: dict[str, Any]) -> Predict:
    """The live model as a function, called in the way that its runtime has settled, where runtimes do that."""
    if isinstance(runtime, Settles):
        return runtime.predictor_as(model, signature, options)
    return runtime.predictor(model, signature)


def load_model(folder: Path, spec: ModelSpec, signature: Signature, device: str, trust: Trust) -> Predict:
    """The model in ``folder`` as a function: by its runtime, or, where it is a pickle, under the rules for those."""
    if spec.runtime not in plugins.names("runtimes"):  # a ``module:thing`` would be imported, whatever it is
        raise BadBundle(
            f"the bundle names a runtime that is not installed here: {spec.runtime!r}",
            hint=f"runtimes: {', '.join(plugins.names('runtimes'))}",
        )
    runtime = plugins.find("runtimes", spec.runtime)
    name = spec.options.get("file", "")
    if not isinstance(name, str):
        raise BadBundle(f"the bundle's model file is no name: {name!r}")
    if name:
        check_path(name, "the bundle")
    try:
        if formats.is_pickle(folder / name):
            model = formats.read_model(folder / name, trust)
            predict: Predict = predictor_of(runtime, model, signature, spec.options)
        else:
            predict = runtime.load(folder, spec, signature, device)
    except ModelyardError:
        raise
    except Exception as error:  # options may hold anything, and each runtime stumbles over it in its own way
        raise BadBundle(f"the bundle's model cannot be loaded: {type(error).__name__}: {error}") from error
    return predict
