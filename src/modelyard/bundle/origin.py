"""Where a bundle came from: kept beside its digest, because it differs each time the same model is packed."""

from __future__ import annotations

import datetime as dt
import hashlib
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from modelyard import __version__, settings
from modelyard.bundle.manifest import canonical
from modelyard.schema import Array

_SECRET = re.compile(r"(?i)(pass|secret|token|key|credential)")


def origin(data: Mapping[str, Array], given: Mapping[str, Any]) -> dict[str, Any]:
    """Time, user, machine, command, git commit and the digest of the data; ``given`` wins over all of it."""
    found: dict[str, Any] = {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "user": settings.who(),
        "machine": platform.node(),
        "python": platform.python_version(),
        "modelyard": __version__,
        "command": without_secrets(sys.argv),
        "data": data_digest(data),
        **_git(),
    }
    return {**found, **given}


def without_secrets(words: list[str]) -> str:
    """A command line with passwords in addresses, and values of options named like secrets, taken out."""
    kept: list[str] = []
    hide = False
    for word in words:
        name, equals, _ = word.partition("=")
        if hide:
            word = "***"
        elif equals and _SECRET.search(name):
            word = f"{name}=***"
        hide = word.startswith("-") and not equals and bool(_SECRET.search(word))
        kept.append(re.sub(r"://[^@/\s]+@", "://***@", word))
    return " ".join(kept)


def data_digest(columns: Mapping[str, Array]) -> str:
    """The sha256 over names, dtypes, shapes and values of columns, in the order of their names."""
    sums = hashlib.sha256()
    for name in sorted(columns):
        array = columns[name]
        sums.update(canonical([name, array.dtype.str, list(array.shape)]))
        if array.dtype == object:
            sums.update(canonical([None if v is None or v != v else str(v) for v in array.ravel().tolist()]))
        else:
            sums.update(array.tobytes())
    return "sha256:" + sums.hexdigest()


def _git() -> dict[str, Any]:
    commit = _run_git("rev-parse", "HEAD")
    if not commit:
        return {}
    changed = _run_git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit, "git_dirty": bool(changed)}


def _run_git(*words: str) -> str:
    """What git says, "" where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
