"""Model files: recognised by what is in them, and read without running code from them.

=========  ==========================================================================================================
pickle     pickles and joblib files, compressed or not: looked at first, see ``pickles``
skops      types that are known to be harmless load; others are listed
onnx       standard operators, data inside its folder
xgboost    JSON and UBJSON
lightgbm   text
=========  ==========================================================================================================
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

from modelyard import plugins
from modelyard.bundle import pickles
from modelyard.bundle.environment import installed
from modelyard.bundle.manifest import NAME, digest_of
from modelyard.bundle.pickles import Look
from modelyard.bundle.streams import compression_of
from modelyard.bundle.trust import Trust
from modelyard.errors import BadBundle, InvalidInput, MissingDependency, ModelyardError, NotFound, Refused

#: Which extra brings the library of a module that a model imports.
EXTRAS = {"sklearn": "sklearn", "scipy": "sklearn", "joblib": "sklearn", "xgboost": "xgboost", "lightgbm": "lightgbm"}

READABLE = "pickle, joblib, skops, ONNX, XGBoost (JSON, UBJSON) and LightGBM (text)"


def recognise(path: Path) -> str:
    """``pickle``, ``skops``, ``onnx``, ``xgboost`` or ``lightgbm``, by the content of the file.

    Raises NotFound; InvalidInput saying what the file seems to be instead.
    """
    if not path.exists():
        raise NotFound(f"no such model file: {path}")
    if path.is_dir():
        kind = "it is a bundle already" if (path / NAME).is_file() else "it is a folder"
        raise InvalidInput(f"not a model file, {kind}: {path}", hint=f"Modelyard reads {READABLE}")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise InvalidInput(f"the model file is empty: {path}")
    if start[:2] == b"PK":
        return _recognise_zip(path)
    if start[:1] == b"{":
        if b"learner" in start or b"version" in start or start[1:2] in b"LlUuIi#$":
            return "xgboost"
        raise InvalidInput(f"not a model file, it is JSON of another kind: {path}", hint=f"Modelyard reads {READABLE}")
    if start.startswith((b"tree\n", b"tree\r\n")):
        return "lightgbm"
    if is_pickle(path):
        return "pickle"
    if start[0] == 0x08 and plugins.find("runtimes", "onnx").claims(path):
        return "onnx"
    raise InvalidInput(
        f"not a model file that Modelyard reads, {_guess(start)}: {path}", hint=f"Modelyard reads {READABLE}"
    )


def _recognise_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, EOFError) as error:
        raise InvalidInput(f"the model file is damaged or truncated: {path} ({error})") from None
    if "schema.json" in names:
        return "skops"
    kinds = {
        NAME: "it is a bundle already",
        "metadata.json": "it seems to be a Keras model",
        "mimetype": "it is a document",
    }
    seen = next((words for name, words in kinds.items() if name in names), "it is a zip of another kind")
    if any(name.endswith("data.pkl") for name in names):
        seen = "it seems to be a PyTorch file"
    elif names and all(name.endswith(".npy") for name in names):
        seen = "it holds numpy arrays"
    raise InvalidInput(f"not a model file that Modelyard reads, {seen}: {path}", hint=f"Modelyard reads {READABLE}")


#: How pickles of protocols 0 and 1 start: a global's module and name on lines of their own, or a container.
_TEXT_PICKLE = re.compile(rb"\(?[ci][A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n|\([ldt][pq0-9)]|[\]}][q)]|\([VIFSKX]")


def _guess(start: bytes) -> str:
    for magic, words in (
        (b"\x89HDF", "it seems to be a Keras file (HDF5)"),
        (b"<?xml", "it seems to be PMML or other XML"),
        (b"<PMML", "it seems to be PMML"),
        (b"CBM1", "it seems to be a CatBoost model"),
        (b"binf", "it seems to be XGBoost's old binary form: load it there and save_model('model.ubj')"),
        (b"PAR1", "it is a Parquet table"),
        (b"\x93NUMPY", "it is a numpy array"),
    ):
        if start.startswith(magic):
            return words
    return "it is text" if start.isascii() else "it is of another kind"


def read_model(path: Path, trust: Trust | None = None) -> Any:
    """What ``pack`` takes for the model file at ``path``: a live object, or the path itself for ONNX and boosters.

    Runs no code from the file unless it is trusted. Raises NotFound, InvalidInput where it is no model file or is
    damaged; Refused for a pickle or skops file with unknown names that nobody trusts, for another scikit-learn
    version, and for an ONNX graph that reaches outside its folder; MissingDependency.
    """
    path = Path(path).expanduser()
    kind = recognise(path)
    if kind == "pickle":
        return _read_pickle(path, trust or Trust())
    if kind == "skops":
        return _read_skops(path, trust or Trust())
    plugins.find("runtimes", kind).read(path)  # the checks are the runtime's own
    return path


def look(path: Path) -> Look:
    """What loading a pickle or joblib file would import, and the library versions it names. Runs nothing.

    Raises NotFound, and InvalidInput where it is neither.
    """
    if recognise(path) != "pickle":
        raise InvalidInput(f"neither a pickle nor a joblib file: {path}")
    return pickles.look(path)


def is_pickle(path: Path) -> bool:
    """Whether the file at ``path`` starts as a pickle does, compressed or not."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(512)
        file.seek(max(0, path.stat().st_size - 1))
        end = file.read(1)
    if start[:1] == b"\x80" or compression_of(start):
        return True
    return end == pickle.STOP and _TEXT_PICKLE.match(start) is not None


# -- pickles -----------------------------------------------------------------------------------------------------


def _read_pickle(path: Path, trust: Trust) -> Any:
    data = path.read_bytes()  # once: what was looked at is what is loaded, whoever writes to the file meanwhile
    seen = pickles.look(data)
    check_sklearn(path, seen.versions.get("scikit-learn", ()))
    if seen.spreads:
        raise InvalidInput(
            f"{path.name} was written by joblib before 0.10: its arrays are in files beside it, which no digest covers",
            hint="load it where it was made and save it again with a newer joblib",
        )
    if trust.allows(seen.digest, path):
        return _load_trusted(path, seen, data)
    if not seen.harmless:
        raise _refusal(path, seen)
    _check_importable(path, seen)
    try:
        return pickles.load(data)
    except pickles.NotFollowed as error:
        raise Refused(f"{path.name} was not loaded: {error}", hint=_trust_hint(seen.digest)) from None
    except pickles.FAULTS as error:
        raise InvalidInput(f"{path.name} cannot be loaded: {type(error).__name__}: {error}") from error


def _refusal(path: Path, seen: Look) -> ModelyardError:
    listed = ", ".join(seen.unknown[:10]) + (", …" if len(seen.unknown) > 10 else "")
    if seen.reason.startswith("damaged") and not seen.unknown:
        return InvalidInput(f"{path.name} is {seen.reason}")
    what = f"it would import {listed}" if seen.unknown else "it could not be looked through"
    doubt = f" (not looked through to its end: {seen.reason})" if not seen.complete else ""
    return Refused(
        f"loading {path.name} could run code, and nobody vouched for it: {what}{doubt}",
        hint=_trust_hint(seen.digest),
        digest=seen.digest,
        imports=list(seen.imports),
        unknown=list(seen.unknown),
        complete=seen.complete,
    )


def _trust_hint(digest: str) -> str:
    return f"if you trust who made it: --trust {digest}"


def _load_trusted(path: Path, seen: Look, data: bytes) -> Any:
    """Load with pickle or joblib themselves: somebody vouched for these very bytes."""
    try:
        if seen.uses_joblib or seen.compression:
            try:
                import joblib
            except ImportError:
                raise MissingDependency.extra("joblib", "sklearn", f"reading {path.name}") from None
            return joblib.load(io.BytesIO(data))
        return pickle.loads(data)
    except MissingDependency:
        raise
    except ModuleNotFoundError as error:
        raise _missing(path, str(error.name)) from error
    except Exception as error:  # the file's own code runs here, and may raise anything
        message = f"{path.name} cannot be loaded: {type(error).__name__}: {error}"
        raise InvalidInput(message, hint=_main_hint(seen) if isinstance(error, AttributeError) else "") from error


def _main_hint(seen: Look) -> str:
    """What helps against classes of ``__main__``, which is another module in each process."""
    names = [name.partition(".")[2] for name in seen.imports if name.startswith("__main__.")]
    if not names:
        return ""
    listed = ", ".join(names)
    return (
        f"{listed}: defined in a notebook or a script, which is not there when the file is loaded; put {listed} in a "
        "module, import it from there and pickle again"
    )


def _check_importable(path: Path, seen: Look) -> None:
    from importlib.util import find_spec

    for top in sorted({name.partition(".")[0] for name in seen.imports}):
        if find_spec(top) is None:
            raise _missing(path, top)


def _missing(path: Path, module: str) -> MissingDependency:
    top = module.partition(".")[0]
    if top in EXTRAS:
        return MissingDependency.extra(top, EXTRAS[top], f"loading {path.name}")
    return MissingDependency(
        f"loading {path.name} needs a module that is not there: {module}",
        hint=f"install it, or name the folder where {top} is: PYTHONPATH=. modelyard ...",
    )


def check_sklearn(path: Path, versions: tuple[str, ...]) -> None:
    """Refuse a file written by another major.minor of scikit-learn than is installed, before anything is loaded."""
    here = installed("scikit-learn")
    for version in versions:
        if here and here.split(".")[:2] == version.split(".")[:2]:
            continue
        minor = ".".join(version.split(".")[:2])
        raise Refused(
            f"{path.name} was saved by scikit-learn {version} and {here or 'none'} is installed: across versions "
            "some models fail to load, and forests load without an error and predict wrongly",
            hint=f"package it in an environment of its own: python -m venv old && "
            f"old/bin/pip install 'scikit-learn=={minor}.*' 'modelyard[sklearn]', or export it to ONNX there",
            saved=version,
            installed=here,
        )


# -- skops -------------------------------------------------------------------------------------------------------


def _read_skops(path: Path, trust: Trust) -> Any:
    check_sklearn(path, _sklearn_versions(path))
    try:
        return plugins.find("runtimes", "sklearn").read(path)
    except BadBundle as error:
        raise InvalidInput(error.message) from error
    except Refused as refusal:
        data = path.read_bytes()
        digest = digest_of(data)
        if not trust.allows(digest, path):
            raise Refused(
                f"{path.name}: {refusal.message}", hint=_trust_hint(digest), digest=digest, **refusal.details
            ) from None
    import skops.io

    try:
        return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    except Exception as error:  # skops lets through whatever the types raise
        raise InvalidInput(f"{path.name} cannot be loaded: {type(error).__name__}: {error}") from error


def _sklearn_versions(path: Path) -> tuple[str, ...]:
    """The versions of scikit-learn that a skops file names, found in its schema."""
    try:
        with zipfile.ZipFile(path) as archive:
            schema = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError, EOFError) as error:
        raise InvalidInput(f"the model file is damaged or truncated: {path} ({error})") from None
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            version = node.get("_sklearn_version")
            if isinstance(version, dict) and isinstance(version.get("content"), str):
                found.add(version["content"].strip('"'))
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return tuple(sorted(found))
