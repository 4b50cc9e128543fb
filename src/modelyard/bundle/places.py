"""Which references mean a bundle on disk. The one rule for the command line, the Python face and the server."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path

from modelyard.bundle.manifest import NAME


def is_path(reference: str | Path, registered: Callable[[], Container[str]]) -> bool:
    """Whether a reference is the path of a bundle rather than a registered name.

    What is written like a path is one: ``./folder``, ``some/folder``, ``churn.zip``. The bare name of a folder that
    holds a bundle is one too, unless a model is called so; ``registered`` is asked for the models' names only then.
    """
    text = str(reference)
    if isinstance(reference, Path) or text.endswith(".zip") or "/" in text or "\\" in text or text[:1] in (".", "~"):
        return True
    return (Path(text) / NAME).is_file() and text not in registered()
