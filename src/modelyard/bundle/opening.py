"""Bundle: a packaged model, opened and verified."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from modelyard.bundle.contents import BESIDE, check_folder, extract_archive, write_archive
from modelyard.bundle.environment import Difference, differences
from modelyard.bundle.golden import Golden
from modelyard.bundle.manifest import Manifest
from modelyard.bundle.rehearsal import load_model
from modelyard.bundle.trust import Trust
from modelyard.errors import BadBundle, NotFound, Refused, RemoteFailed
from modelyard.interfaces import Predict
from modelyard.profile import Profile
from modelyard.schema import Columns, Signature

_ROOM = "set TMPDIR to a folder with room that you may write to"


class Bundle:
    """The immutable packaged artefact, known by ``digest``: sha256 of its manifest, which names every file's own.

    ``path`` is what was opened; ``folder`` holds the files. For a one-file bundle that is a private folder which
    lives as long as this object.
    """

    def __init__(self, folder: Path, manifest: Manifest, digest: str, path: Path) -> None:
        self.folder = folder
        self.manifest = manifest
        self.digest = digest
        self.path = path

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, {self.digest[:19]})"

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """The bundle at ``path``, a folder or a one-file bundle, with every file verified. Runs nothing.

        Raises NotFound; BadBundle naming what is missing, extra, truncated or changed, or the Modelyard needed.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            return cls(path, *check_folder(path), path)
        return cls.private(lambda folder: extract_archive(path, folder), path)

    @classmethod
    def private(cls, fill: Callable[[Path], object], path: Path | None = None) -> Bundle:
        """The bundle that ``fill`` writes into a private folder, verified. The folder goes when this object does, or
        with the process. ``path`` is what the bundle was made from, the folder by default.

        Raises what ``fill`` and ``open`` do, RemoteFailed where there is no room for temporary files.
        """
        try:
            outer = Path(tempfile.mkdtemp(prefix="modelyard-bundle-"))
        except OSError as error:
            raise RemoteFailed(f"cannot make a temporary folder: {error.strerror or error}", hint=_ROOM) from error
        try:
            folder = outer / "bundle"
            fill(folder)
            bundle = cls(folder, *check_folder(folder), path or folder)
        except BaseException as error:
            shutil.rmtree(outer, ignore_errors=True)
            if isinstance(error, OSError):
                message = f"cannot unpack the bundle {path or ''} into {outer.parent}: {error.strerror or error}"
                raise RemoteFailed(message, hint=_ROOM) from error
            raise
        weakref.finalize(bundle, _remove, outer, os.getpid())
        return bundle

    @property
    def signature(self) -> Signature:
        return self.manifest.signature

    def load(self, *, trust: Trust | None = None, device: str = "cpu") -> Predict:
        """The model as a function from the columns of the inputs to the columns of the outputs.

        Looks before it loads: a framework of another version and a pickle that is neither on the allow list nor
        trusted raise Refused; files that would lead outside raise BadBundle.
        """
        self.check_environment()
        known = trust or Trust()
        if known.allows(self.digest, self.path) or known.allows(self.digest, self.folder):
            # Every file has been verified against the digest that is trusted.
            known = Trust((*known.names, *(entry.digest for entry in self.manifest.files.values())))
        return load_model(self.folder / "model", self.manifest.model, self.signature, device, known)

    def differences(self) -> list[Difference]:
        """How what is installed here differs from what the model was packed with, the grave ones first."""
        return differences(self.manifest.environment)

    def check_environment(self) -> None:
        """Raises Refused where a framework that brings the model to life has another major.minor here."""
        grave = [difference for difference in self.differences() if difference.severity == "refuse"]
        if grave:
            first = grave[0]
            raise Refused(
                f"the model needs {first.name} {first.locked} and {first.found or 'none'} is installed: "
                "across versions such models load without an error and can predict wrongly",
                hint=f"pip install '{first.name}=={first.locked}', or package it again as ONNX where that is installed",
                differences=[str(difference) for difference in grave],
            )

    def golden(self) -> tuple[Columns, Columns]:
        """Golden inputs, and the outputs that the original model gave for them."""
        rows = self._golden()
        return rows.inputs, rows.outputs

    def check_golden(self, predict: Predict) -> None:
        """Replay the golden rows. Raises ModelFailed naming row, output, expected and got."""
        self._golden().check(predict)

    def _golden(self) -> Golden:
        return Golden.from_json(self._read("golden.json"), self.signature)

    def profile(self) -> Profile:
        """The reference profile: of the rows it was trained or packaged with, and of the predictions for them."""
        return Profile.from_json(self._read("profile.json"))

    def _read(self, name: str) -> bytes:
        if name not in self.manifest.files:
            raise NotFound(f"bundle {self.path.name} holds no {name}")
        return (self.folder / name).read_bytes()

    @property
    def provenance(self) -> dict[str, Any]:
        """Where it came from: source, commit, data, command, time, machine, user. Not part of the digest, so
        nothing vouches for it but a signature. Empty where there is none.
        """
        path = self.folder / BESIDE / "provenance.json"
        if not path.is_file():
            return {}
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadBundle(f"provenance.json of {self.path.name} is damaged: {error}") from None

    @property
    def report(self) -> Path | None:
        """The training report, a page by itself, if there is one. Not part of the digest."""
        path = self.folder / BESIDE / "report.html"
        return path if path.is_file() else None

    def write_file(self, path: str | Path) -> Path:
        """Write the one-file form to ``path``: the same bytes for the same files. Returns the path."""
        return write_archive(self.folder, Path(path))


def _remove(folder: Path, process: int) -> None:
    """Remove a private folder, but not on behalf of a child that was forked meanwhile."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
