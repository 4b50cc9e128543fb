"""Environments beside our own: a Python with the very packages that a bundle's lock names.

They lie in ``environments/`` of the home folder, one for each lock, and are made beforehand by ``build``: what a
server loads is never fetched while it serves.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import modelyard
from modelyard.bundle.environment import OURSELVES, differences, requirements
from modelyard.bundle.manifest import Environment, digest_of
from modelyard.errors import RemoteFailed

#: What a model process imports of its own accord; added to a lock that does not have them.
NEEDED = ("msgspec", "numpy")


def satisfies(environment: Environment) -> bool:
    """Whether the model may be brought to life here: see ``environment.differences``."""
    return not any(difference.severity == "refuse" for difference in differences(environment))


def place_of(environment: Environment, home: Path) -> Path:
    """The folder of the environment for a lock."""
    minor = ".".join(environment.python.split(".")[:2])
    text = f"python {minor} {sys.platform}\n{requirements(environment)}"
    return home / "environments" / digest_of(text.encode()).removeprefix("sha256:")[:32]


def interpreter(environment: Environment, home: Path) -> Path | None:
    """The Python that can load what was packed with ``environment``: our own where it satisfies, else that of the
    environment made for it; None where there is none yet.
    """
    if satisfies(environment):
        return Path(sys.executable)
    python = _python_in(place_of(environment, home))
    return python if python.exists() else None


def build(environment: Environment, home: Path, progress: Callable[[str], None] = lambda text: None) -> Path:
    """Make the environment for a lock, unless it is there, and return its Python.

    Uses ``uv`` where it is installed, else ``venv`` and ``pip``; both fetch packages as they are configured to. The
    folder appears as a whole. Raises RemoteFailed with the last words of what failed.
    """
    place = place_of(environment, home)
    if _python_in(place).exists():
        progress("it is there already")
        return _python_in(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix="making-", dir=place.parent))
    try:
        _fill(stage, environment, progress)
        try:
            stage.rename(place)
        except OSError:  # somebody else was faster
            if not _python_in(place).exists():
                raise
    except OSError as error:
        raise RemoteFailed(f"cannot make an environment in {place.parent}: {error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return _python_in(place)


def _fill(stage: Path, environment: Environment, progress: Callable[[str], None]) -> None:
    names = {one.name for one in environment.distributions}
    listed = stage / "requirements.txt"
    missing = "".join(f"{name}\n" for name in NEEDED if name not in names)
    # Without hashes: those of a lock are of the files that were installed there, and another machine needs others.
    plain = re.sub(r" --hash=\S+", "", requirements(environment))
    listed.write_text(plain + missing, encoding="utf-8")
    uv = shutil.which("uv")
    chosen = _python_like(environment, with_uv=uv is not None)
    python = str(_python_in(stage))
    progress(f"making an environment with {len(names)} packages for Python {environment.python}")
    if uv is not None:
        _run([uv, "venv", "--quiet", "--allow-existing", "--relocatable", "--python", chosen, str(stage)])
        _run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "-r", str(listed)])
    else:
        _run([chosen, "-m", "venv", str(stage)])
        _run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(listed)])
    progress("trying it")
    _run([python, "-c", "import msgspec, numpy"])


def _python_like(environment: Environment, *, with_uv: bool) -> str:
    """A Python of the minor version that the lock names; ours where there is none: golden rows will tell."""
    minor = ".".join(environment.python.split(".")[:2])
    if environment.python.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}."):
        return sys.executable
    return minor if with_uv else shutil.which(f"python{minor}") or sys.executable


def _run(words: list[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RemoteFailed(f"cannot run {words[0]}: {error.strerror}") from error
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        raise RemoteFailed(
            f"{Path(words[0]).name} could not make the environment (exit {done.returncode}): "
            + " ".join(" ".join(said[-6:]).split())
        )


def _python_in(folder: Path) -> Path:
    return folder / "bin" / "python"


def ourselves(folder: Path) -> Path:
    """``folder``, with links to this very Modelyard in it and to nothing else that is installed here."""
    folder.mkdir(parents=True, exist_ok=True)
    package = Path(modelyard.__file__).parent
    links = {OURSELVES: package}
    for file in metadata.distribution(OURSELVES).files or ():
        if file.name == "entry_points.txt":  # runtimes are found by it
            known = Path(os.fspath(file.locate())).parent
            links[known.name] = known
    for name, target in links.items():
        with contextlib.suppress(FileExistsError):
            (folder / name).symlink_to(target)
    return folder
