"""Modelyard as one more server for a side-by-side harness that reads a file of ``add(...)`` lines.

    PEERS_EXTRA=benchmarks/peer.py python run.py modelyard bare-batch nginx-static

The harness runs this file with its own names in scope. The ONNX graphs that it makes, the ones its prototypes serve
too, are packaged and served with the project's environment (``MODELYARD_PYTHON`` names another).
"""

import json as _json
import os as _os
import subprocess as _subprocess
from pathlib import Path as _Path

_PROJECT = _Path(_os.environ["PEERS_EXTRA"]).resolve().parents[1]
_PYTHON = _os.environ.get("MODELYARD_PYTHON", str(_PROJECT / ".venv" / "bin" / "python"))

_PACK = """
import json, sys
from pathlib import Path
import numpy as np
from modelyard.bundle import pack
models, model, folder = sys.argv[1:]
jobs = json.loads(Path(models, "jobs.json").read_text())
job = jobs["trees1000" if model == "trees" else model]
sample = dict(zip(job["columns"], np.array(job["rows"], dtype="float32").T))
pack(Path(models, f"{model}.onnx"), folder, sample=sample)
"""

_SERVE = """
import sys
from modelyard.serving.server import serve
serve(['m=' + sys.argv[1]], port=int(sys.argv[2]), workers=int(sys.argv[3]))
"""


def _prepare(model, work):
    folder = _Path(work) / "bundle"
    if not folder.exists():
        _subprocess.run([_PYTHON, "-c", _PACK, MODELS, model, str(folder)], check=True)


def _serve(port, workers=1):
    return lambda model, work: [_PYTHON, "-c", _SERVE, f"{work}/bundle", str(port), str(workers)]


def _request(job, spec):
    """One record, or for many rows columns: what the native wire reads fastest."""
    if len(spec["rows"]) == 1:
        return "/predict", {}, _json.dumps(dict(zip(spec["columns"], spec["rows"][0], strict=True))).encode()
    columns = zip(*spec["rows"], strict=True)
    return "/predict", {}, _json.dumps(dict(zip(spec["columns"], columns, strict=True))).encode()


def _answer(body):
    found = _json.loads(body)["prediction"]
    return found if isinstance(found, list) else [found]


# Answers in bytes are compared by their last bytes, so only the predictions are asked for.


def _binary(job, spec):
    path, headers, body = v2_binary("FP32", "input")(job, spec)
    size = int(headers["Inference-Header-Content-Length"])
    asked = {"name": "prediction", "parameters": {"binary_data": True}}
    head = _json.dumps({**_json.loads(body[:size]), "outputs": [asked]}).encode()
    return path, {**headers, "Inference-Header-Content-Length": str(len(head))}, head + body[size:]


def _message(job, spec):
    path, headers, body = v2_grpc("FP32", "input")(job, spec)
    name = b"\x0a\x0aprediction"
    return path, headers, body + b"\x32" + bytes([len(name)]) + name


_one, _two, _grpc = _serve(PORT), _serve(PORT, 2), _serve(PORT + 1)  # gRPC is asked one port further on

# ruff: noqa: F821
add("modelyard", "none", _one, _request, _answer, prepare=_prepare)
add("modelyard-2w", "none", _two, _request, _answer, prepare=_prepare, multi=True)
add("modelyard-oip", "none", _one, v2("FP32", "input"), v2_out, prepare=_prepare)
add("modelyard-oip-binary", "none", _one, _binary, no_check, prepare=_prepare)
add("modelyard-oip-grpc", "none", _grpc, _message, no_check, prepare=_prepare, protocol="grpc")
