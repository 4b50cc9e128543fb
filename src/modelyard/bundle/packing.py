"""Packing: from a model and a sample of its inputs to a bundle on disk, whole or not at all."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from modelyard import __version__, plugins
from modelyard.bundle import rehearsal
from modelyard.bundle.contents import BESIDE, check_folder, file_entries
from modelyard.bundle.golden import Golden, choose_rows, native_tolerance
from modelyard.bundle.manifest import FORMAT, NAME, Conversion, Environment, Manifest, canonical, digest_of
from modelyard.bundle.opening import Bundle
from modelyard.bundle.origin import origin
from modelyard.bundle.signatures import graph_signature, signature_of, text_among_numbers
from modelyard.errors import Conflict, InvalidInput, ModelFailed, ModelyardError, NotFound, RemoteFailed
from modelyard.interfaces import ModelSpec, Predict, Runtime, Settles
from modelyard.profile import Profile
from modelyard.schema import Array, Columns, Signature, check_outputs

#: Rows from which golden rows are chosen, rows whose predictions are profiled, and rows predicted at once.
CANDIDATES, PREDICTED, AT_ONCE = 5_000, 20_000, 4_096


def pack(
    model: Any,
    folder: str | Path,
    *,
    sample: Mapping[str, Array],
    signature: Signature | None = None,
    reference: Mapping[str, Array] | None = None,
    metrics: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    report: str | None = None,
    convert: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Bundle:
    """Package ``model`` as a bundle in ``folder``.

    ``model`` is a live object, or the Path of an ONNX graph or of a native booster file. ``sample`` maps each input
    column to an array of shape (rows, ...), without the target; ``reference`` are the rows to profile (the sample by
    default). ``metrics`` go into the manifest, ``provenance`` and ``report`` (HTML) beside the digest. With
    ``convert`` the model is served as ONNX where that is proved to agree; otherwise, and where it does not agree, in
    its own format. ``progress`` is told each step.

    The same model packed again into the same folder is the same bundle. Raises InvalidInput where the sample is not
    what the model takes; ModelFailed where the model fails on it; Conflict where the folder holds something else;
    RemoteFailed where it cannot be written.
    """
    note = progress or (lambda text: None)
    target = Path(folder).expanduser()
    runtime, live = _recognised(model)
    _check_rows(sample, "sample")
    _check_rows(reference or {"": np.empty(1)}, "reference")
    facts = runtime.describe(live)
    given: ModelSpec | None = None
    inferred = signature is None
    if signature is None and runtime.name == "onnx":
        given, signature = graph_signature(live, facts, sample, note)
    elif signature is None:
        signature = signature_of(facts, sample, reference or sample, note)
    columns = _columns(sample, signature)
    profiled = _columns(reference, signature) if reference is not None else columns
    settled = _settled(runtime, live, signature, columns)
    if inferred and facts.feature_names is None and len(signature.inputs) > 1 and settled.get("takes") != "frame":
        note(f"note: the model knows no column names: it takes {_listed(signature)} in this order")
    original = _steady(rehearsal.predictor_of(runtime, live, signature, settled))
    try:
        outputs = _predict(original, columns, CANDIDATES)
    except ModelFailed as error:
        raise text_among_numbers(error, columns) or error from error.__cause__
    inputs = columns.take(_even(columns.rows, CANDIDATES))
    inputs = inputs.take(choose_rows(inputs, outputs))
    golden = Golden(inputs, original(inputs), native_tolerance(signature))
    note("profiling the reference rows")
    profile = Profile.of(profiled, signature.inputs, _predict(original, profiled, PREDICTED), signature.outputs)

    with _staging(target) as stage:
        (stage / "profile.json").write_bytes(profile.to_json())
        spec, conversion, environment = None, None, None
        if convert and runtime.name != "onnx":
            from modelyard.bundle.convert import convert as to_onnx

            note("converting to ONNX and comparing")
            spec, conversion = to_onnx(live, runtime.name, facts, signature, columns, original, stage / "model")
        if spec is not None and conversion is not None:
            golden.tolerance = conversion.tolerance
            try:
                environment = _try_out(stage, spec, signature, golden)
            except ModelyardError as error:
                shutil.rmtree(stage / "model")
                conversion.accepted, conversion.target = False, runtime.name
                conversion.reason, spec = f"golden rows: {error.message}", None
        if spec is None or environment is None:
            if conversion is not None and not conversion.accepted:
                note(f"kept as {runtime.name}: {conversion.step}: {conversion.reason}")
            (stage / "model").mkdir(exist_ok=True)
            options = runtime.save(live, stage / "model")
            spec = ModelSpec(runtime=runtime.name, options={**options, **settled, **(given.options if given else {})})
            golden.tolerance = native_tolerance(signature)
            note("trying it in a fresh process")
            environment = _try_out(stage, spec, signature, golden)
        if runtime.name == "onnx":
            conversion = Conversion(source="onnx", target="onnx", accepted=True, method="as given")
        manifest = Manifest(
            format=FORMAT,
            modelyard=__version__,
            task=facts.task,
            signature=signature,
            model=spec,
            environment=environment,
            conversion=conversion,
            metrics=metrics or {},
            files=file_entries(stage),
        )
        (stage / NAME).write_bytes(manifest.to_json())
        source = {"source_digest": digest_of(model)} if isinstance(model, Path) else {}
        _write_beside(stage, origin(profiled, {**source, **(provenance or {})}), report)
        manifest, digest = check_folder(stage)
        _publish(stage, target, digest)
    return Bundle(target, manifest, digest, target)


# -- the model and its rows --------------------------------------------------------------------------------------


def _recognised(model: Any) -> tuple[Runtime, Any]:
    """The runtime that claims ``model``, and the live model."""
    if isinstance(model, str):
        model = Path(model)
    if isinstance(model, Path) and not model.exists():
        raise NotFound(f"no such model file: {model}")
    for name in plugins.names("runtimes"):
        runtime: Runtime = plugins.find("runtimes", name)
        if runtime.claims(model):
            return runtime, runtime.read(model) if isinstance(model, Path) else model
    raise InvalidInput(f"no runtime knows this model: {_kind(model)}", hint=_hint_instead(model))


def _kind(thing: Any) -> str:
    if isinstance(thing, Path):
        return f"file {thing}"
    kind = thing if isinstance(thing, type) else type(thing)
    public = itertools.takewhile(lambda part: not part.startswith("_"), kind.__module__.split("."))
    named = ".".join([*public, kind.__qualname__]).removeprefix("builtins.")
    return f"the class {named}" if isinstance(thing, type) else named


def _hint_instead(thing: Any) -> str:
    """What to give instead of a thing that is no model."""
    known = f"the fitted model of one of {', '.join(plugins.names('runtimes'))}"
    if isinstance(thing, Path):
        return f"give {known}; modelyard package and modelyard.package also read pickles"
    if isinstance(thing, type):
        return "save the fitted model itself, not its class"
    if isinstance(thing, (dict, list, tuple)):
        parts = thing.items() if isinstance(thing, dict) else enumerate(thing)
        models = [f"[{key!r}], a {_kind(part)}" for key, part in parts if callable(getattr(part, "predict", None))]
        return f"save the fitted model itself: {'; '.join(models[:5])}" if models else f"save {known}"
    if callable(getattr(thing, "transform", None)):
        return "it transforms and predicts nothing: save the fitted model itself, a Pipeline of this step and the model"
    return f"save {known}"


#: Rows on which a runtime tries how a model wants to be called.
TRIED = 100


def _settled(runtime: Runtime, live: Any, signature: Signature, columns: Columns) -> dict[str, Any]:
    """The options that the runtime finds out by trying; {} for one that knows."""
    if not isinstance(runtime, Settles):
        return {}
    return runtime.settle(live, signature, columns.slice(0, min(columns.rows, TRIED)))


def _listed(signature: Signature) -> str:
    names = [field.name for field in signature.inputs]
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def _check_rows(rows: Mapping[str, Array], what: str) -> None:
    lengths = {name: len(values) for name, values in rows.items()}
    if not lengths or not min(lengths.values()):
        raise InvalidInput(f"the {what} has no rows", hint="golden rows and the profile are made from it")
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise InvalidInput(f"the columns of the {what} are not equally long: {shown}")


def _columns(rows: Mapping[str, Array], signature: Signature) -> Columns:
    """``rows`` as columns of the inputs; a column that is no input is left out, one that is missing is named."""
    layout = signature.input_layout
    return layout.from_arrays({name: values for name, values in rows.items() if name in layout.places})


def _even(rows: int, most: int) -> Array:
    """At most ``most`` row numbers at even distances."""
    return np.arange(rows) if rows <= most else np.arange(most) * rows // most


def _predict(predict: Predict, columns: Columns, most: int) -> Columns:
    """The predictions for at most ``most`` rows, some thousands at a time."""
    if columns.rows > most:
        columns = columns.take(_even(columns.rows, most))
    starts = range(0, columns.rows, AT_ONCE)
    pieces = [columns.slice(start, min(start + AT_ONCE, columns.rows)) for start in starts]
    parts = [check_outputs(predict(piece), piece.rows) for piece in pieces]
    return parts[0].layout.concatenate(parts)


def _steady(predict: Predict) -> Predict:
    """``predict`` on one thread where scikit-learn is in play: forests add up their trees in the order in which
    threads finish, and the last bits of the sums with it; and on a busy machine the threads of OpenMP, which wait for
    each other at each of many small steps, take a hundred times as long as one.
    """

    def steady(columns: Columns) -> Columns:
        joblib = sys.modules.get("joblib")
        if joblib is None:
            return predict(columns)
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

        with joblib.parallel_config(backend="sequential"), threadpool_limits(1):
            return predict(columns)

    return steady


# -- trying it ---------------------------------------------------------------------------------------------------

#: What an ONNX bundle imports does not depend on the graph: found out once per process.
_environments: dict[str, Environment] = {}


def _try_out(stage: Path, spec: ModelSpec, signature: Signature, golden: Golden) -> Environment:
    """Write the golden rows, see that the saved model reproduces them, and return the environment it needs."""
    (stage / "golden.json").write_bytes(golden.to_json())
    if spec.runtime == "onnx" and "onnx" in _environments:
        predict = plugins.find("runtimes", "onnx").load(stage / "model", spec, signature)
        golden.check(predict)
        return _environments["onnx"]
    environment = rehearsal.rehearse(stage, spec, signature)
    if spec.runtime == "onnx":
        _environments["onnx"] = environment
    return environment


# -- on disk -----------------------------------------------------------------------------------------------------


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` to build in; gone afterwards unless it was renamed."""
    if target.exists() and not target.is_dir():
        raise Conflict(f"there is a file already: {target}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise RemoteFailed(f"cannot write the bundle {target}: {error.strerror or error}") from error
    try:
        (stage / "model").mkdir()
        yield stage
    except OSError as error:
        foreign = error.filename and not Path(str(error.filename)).is_relative_to(target.parent)
        where = f"{error.filename}: " if foreign else ""  # the bundle's folder may not be the one at fault
        raise RemoteFailed(f"cannot write the bundle {target}: {where}{error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _write_beside(stage: Path, facts: dict[str, Any], report: str | None) -> None:
    beside = stage / BESIDE
    beside.mkdir()
    (beside / "provenance.json").write_bytes(canonical(facts))
    if report is not None:
        (beside / "report.html").write_text(report, encoding="utf-8")


def _publish(stage: Path, target: Path, digest: str) -> None:
    """Rename the finished folder to its place. A folder with the same bundle stays as it is."""
    if target.is_dir() and any(target.iterdir()):
        try:
            same = Bundle.open(target).digest == digest
        except ModelyardError:
            same = False
        if same:
            return
        raise Conflict(
            f"the folder holds something else already: {target}",
            hint="choose another folder, or remove that one first",
        )
    stage.chmod(0o755)
    for path in stage.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    stage.replace(target)
