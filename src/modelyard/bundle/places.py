"""Which references mean a bundle on disk. The one rule for the command line, the Python face and the server."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from pathlib import Path

from modelyard.bundle.manifest import NAME
from modelyard.errors import BadBundle


def is_path(reference: str | Path, registered: Callable[[], Container[str]]) -> bool:
    """Whether a reference is the path of a bundle rather than a registered name.

    What is written like a path is one: ``./folder``, ``some/folder``, ``churn.zip``. The bare name of a folder that
    holds a bundle is one too, unless a model is called so; ``registered`` is asked for the models' names only then.
    """
    text = str(reference)
    if isinstance(reference, Path) or text.endswith(".zip") or "/" in text or "\\" in text or text[:1] in (".", "~"):
        return True
    return (Path(text) / NAME).is_file() and text not in registered()


#: Folders between the one that a cloud names and the bundle that it put there.
_DEPTH = 3


def bundle_at(path: Path) -> Path:
    """``path``, or the one bundle inside it: clouds unpack and mount models in folders of their own making.

    Raises BadBundle where there are several.
    """
    if not path.is_dir() or (path / NAME).is_file():
        return path
    found = list(_bundles(path, _DEPTH))
    if len(found) > 1:
        named = ", ".join(str(one.relative_to(path)) for one in found[:5])
        raise BadBundle(f"several bundles lie in one folder: {path} ({named})", hint=f"serve one of them: {found[0]}")
    return found[0] if found else path


def _bundles(folder: Path, depth: int) -> Iterator[Path]:
    for inside in sorted(folder.iterdir()):
        if (inside / NAME).is_file() or (inside.is_file() and inside.suffix == ".zip"):
            yield inside
        elif depth > 1 and inside.is_dir():
            yield from _bundles(inside, depth - 1)
