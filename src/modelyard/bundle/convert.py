"""From a live model to a served ONNX graph, with the proof that both agree.

A conversion is accepted only on evidence: the graph is run beside the original on the sample rows and on rows made
to provoke differences, in batches of one, two and all. Otherwise the answer names the step that has no form, or what
differed, and the model stays in its own format.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.bundle.emitter import Emitted, NotConvertible, emit
from modelyard.bundle.emitter.graph import SINGLE
from modelyard.bundle.manifest import Conversion
from modelyard.bundle.parity import Parity, compare, versions
from modelyard.bundle.probes import join, sample_rows, strange_rows
from modelyard.errors import BadBundle, MissingDependency, ModelFailed
from modelyard.interfaces import ModelFacts, ModelSpec, Predict
from modelyard.schema import Columns, Signature

FILE = "model.onnx"


def convert(
    model: Any,
    source: str,
    facts: ModelFacts,
    signature: Signature,
    sample: Columns,
    original: Predict,
    folder: Path,
) -> tuple[ModelSpec | None, Conversion]:
    """Convert ``model`` to ``folder/model.onnx`` and prove it against ``original`` on ``sample``.

    Returns the spec to serve it with, or None, and what happened. Nothing is left in ``folder`` where the conversion
    is not accepted. Raises MissingDependency without onnx; what the original itself raises on sample rows passes
    through.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependency.extra("onnx", "sklearn", "converting a model to ONNX") from error
    kept = Conversion(source=source, target=source, accepted=False)
    kept.versions = versions("numpy", "onnx", "onnxruntime", *LIBRARIES.get(source, ()))
    try:
        made = emit(model, signature, facts.feature_names)
    except NotConvertible as error:
        kept.step, kept.reason = error.step or facts.kind.rsplit(".", 1)[-1], str(error)
        return None, kept
    kept.method, kept.tolerance = made.method, _tolerance(made, signature)
    kept.versions |= versions(*(name for name in made.method.split("+") if name != "emitter"))
    missing = [f.name for f in signature.outputs if f.name not in {str(o["field"]) for o in made.outputs}]
    if missing:
        kept.step, kept.reason = facts.kind.rsplit(".", 1)[-1], f"its ONNX form does not give {', '.join(missing)}"
        return None, kept
    if not sample.rows:
        kept.step, kept.reason = facts.kind.rsplit(".", 1)[-1], "there are no sample rows to prove it on"
        return None, kept
    spec = _spec(made, signature)
    data = made.model.SerializeToString(deterministic=True)
    parity, notes = _prove(data, spec, made, signature, sample, original, kept.tolerance)
    kept.rows, kept.label_flips = parity.rows, parity.label_flips
    kept.worst_absolute, kept.worst_relative = parity.worst_absolute, parity.worst_relative
    if parity.fault:
        kept.step = made.rounded or facts.kind.rsplit(".", 1)[-1]
        kept.reason = f"{parity.fault}; {_remedy(made)}"
        return None, kept
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(data)
    kept.target, kept.accepted, kept.reason = "onnx", True, "; ".join(notes)
    return spec, kept


#: The distributions behind each source, of which one or the other is installed.
LIBRARIES = {"sklearn": ("scikit-learn",), "xgboost": ("xgboost", "xgboost-cpu"), "lightgbm": ("lightgbm",)}


def _tolerance(made: Emitted, signature: Signature) -> float:
    """Numbers that come in float32 are also worked on in float32 by some of scikit-learn's steps."""
    narrow = any(field.dtype in ("float16", "float32") for field in signature.inputs)
    return max(made.tolerance, SINGLE) if narrow else made.tolerance


def _remedy(made: Emitted) -> str:
    if made.rounded:
        return "trees decide at the last digit of this step's results: leave it out, trees do not need it"
    if made.method == "emitter":
        return "it is served by its own library"
    return "an estimator that Modelyard converts in double would agree; it is served by its own library"


def _spec(made: Emitted, signature: Signature) -> ModelSpec:
    wanted = {field.name for field in signature.outputs}
    options: dict[str, Any] = {
        "file": FILE,
        "inputs": made.inputs,
        "outputs": [entry for entry in made.outputs if entry["field"] in wanted or not wanted],
    }
    if made.max_rows:
        options["max_rows"] = made.max_rows
    return ModelSpec(runtime="onnx", options=options)


def _prove(
    data: bytes,
    spec: ModelSpec,
    made: Emitted,
    signature: Signature,
    sample: Columns,
    original: Predict,
    tolerance: float,
) -> tuple[Parity, list[str]]:
    """Parity on the sample and the strange rows, and notes on the kinds of rows that could not be compared."""
    from modelyard.runtimes.onnx_session import open_session, predict_with

    try:
        converted = predict_with(open_session(data), spec.options, signature)
    except BadBundle as error:
        return Parity(rows=0, fault=error.message), []
    plain = sample_rows(sample)
    rows, expected, notes = _answers(plain, strange_rows(plain, made.thresholds), original)
    try:
        parity = compare(expected, converted(rows), tolerance)
        for start, stop in ((0, min(1, rows.rows)), (0, min(2, rows.rows)), (max(0, rows.rows - 1), rows.rows)):
            part = compare(expected.slice(start, stop), converted(rows.slice(start, stop)), tolerance)
            if part.fault:
                parity.note(f"in a batch of {stop - start}: {part.fault}")
        if parity.row >= 0:
            parity.fault += f", for instance for {_shown(rows, parity.row)}"
    except ModelFailed as error:
        return Parity(rows=rows.rows, fault=error.message), notes
    return parity, notes


def _answers(plain: Columns, strange: Any, original: Predict) -> tuple[Columns, Columns, list[str]]:
    """All rows to compare with what the original says of them; kinds of strange rows that it refuses are left out."""
    groups = list(strange)
    first = original(plain)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # strange rows overflow: that is what they are for
        return _answers_to(plain, first, groups, original)


def _answers_to(
    plain: Columns, first: Columns, groups: list[tuple[str, Columns]], original: Predict
) -> tuple[Columns, Columns, list[str]]:
    try:
        rows = join([plain, *(group for _, group in groups)], plain)
        return rows, original(rows), []
    except Exception:  # the original is anyone's code and may refuse a strange row in any way it likes
        pass
    kept, answers, refused = [plain], [first], []
    for kind, group in groups:
        try:
            answers.append(original(group))
            kept.append(group)
        except Exception as error:
            refused.append(f"not compared, because the original raises {_kind(error)}: {kind}")
    return join(kept, plain), first.layout.concatenate(answers), refused


def _shown(rows: Columns, at: int) -> str:
    """A row in few words, for people who want to try it."""
    text = json.dumps(rows.slice(at, at + 1).records()[0], ensure_ascii=False)
    return text if len(text) <= 300 else text[:297] + "..."


def _kind(error: Exception) -> str:
    cause = error.__cause__ or error
    return type(cause).__name__
