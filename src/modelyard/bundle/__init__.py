"""Bundles: the immutable packaged artefact, made by ``pack``, opened and verified by ``Bundle.open``."""

from modelyard.bundle.formats import look, read_model
from modelyard.bundle.manifest import FORMAT, Conversion, FileEntry, Manifest
from modelyard.bundle.opening import Bundle
from modelyard.bundle.packing import pack
from modelyard.bundle.pickles import Look
from modelyard.bundle.trust import Trust

__all__ = [
    "FORMAT",
    "Bundle",
    "Conversion",
    "FileEntry",
    "Look",
    "Manifest",
    "Trust",
    "look",
    "pack",
    "read_model",
]
