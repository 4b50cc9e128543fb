"""The environment of a bundle: locked when it is packed, compared when it is loaded.

The lock lists what a fresh process really imported while it loaded the model and predicted (see ``rehearsal``), and
what those distributions require in turn. Names, versions and hashes only: no addresses of where they came from.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import re
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec

from modelyard.bundle.manifest import Distribution, Environment, digest_of

#: Distributions that bring a native model back to life, by runtime. Their major.minor must be the packed one.
FRAMEWORKS = {"sklearn": ("scikit-learn",)}

#: Not part of what a model needs: the manifest names the Modelyard that wrote it by itself.
OURSELVES = "modelyard"


class Difference(msgspec.Struct, frozen=True):
    """One difference between a lock and what is installed. ``severity``: ``refuse`` or ``warn``."""

    severity: str
    name: str
    locked: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}: packed with {self.locked}, found {self.found or 'nothing'}"


def capture(modules: Iterable[str], runtime: str = "") -> Environment:
    """The lock of the distributions that provide ``modules`` (names as in ``sys.modules``), in this process.

    ``runtime`` names the runtime that loads the model natively, whose framework must match later; "" for none.
    """
    roots, local = _providers(modules)
    needed = _closure(roots)
    frameworks = FRAMEWORKS.get(runtime, ())
    distributions = []
    for name in sorted(needed):
        role = "framework" if name in frameworks else "imported" if name in roots else "required"
        distributions.append(_describe(name, role))
    return Environment(
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        platform=sys.platform,
        machine=platform.machine(),
        distributions=tuple(distributions),
        local=local,
    )


def differences(environment: Environment) -> list[Difference]:
    """How what is installed here differs from the lock, the grave ones first.

    A framework that brings the model to life refuses where major.minor differ: scikit-learn's forests load across
    versions without an error and predict wrongly. All else is told and tried: golden rows decide.
    """
    found: list[Difference] = []
    python = platform.python_version()
    if _minor(python) != _minor(environment.python):
        found.append(Difference("warn", "python", environment.python, python))
    machine = f"{sys.platform} {platform.machine()}"
    if machine != f"{environment.platform} {environment.machine}":
        found.append(Difference("warn", "platform", f"{environment.platform} {environment.machine}", machine))
    for locked in environment.distributions:
        here = installed(locked.name)
        if here == locked.version:
            continue
        grave = locked.role == "framework" and _minor(here) != _minor(locked.version)
        found.append(Difference("refuse" if grave else "warn", locked.name, locked.version, here))
    for name, digest in environment.local.items():
        here = _local_digest(name)
        if here != digest:
            found.append(Difference("warn", f"module {name}", digest, here))
    return sorted(found, key=lambda difference: difference.severity != "refuse")


def requirements(environment: Environment) -> str:
    """The lock as lines of a requirements file: ``name==version``, with ``--hash`` where the archive's is known."""
    lines = []
    for one in environment.distributions:
        suffix = f" --hash={one.archive}" if one.archive else ""
        lines.append(f"{one.name}=={one.version}{suffix}\n")
    return "".join(lines)


def installed(name: str) -> str:
    """The version of a distribution that is installed here, "" where it is not."""
    try:
        return _version(name)
    except (metadata.PackageNotFoundError, ValueError):  # ValueError: no name at all
        return ""


@functools.cache
def _version(name: str) -> str:
    """Kept, for reading it takes half a millisecond in which nothing else runs, and a server asks at every load."""
    return metadata.version(name)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _canonical_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# -- from modules to distributions -------------------------------------------------------------------------------


def _providers(modules: Iterable[str]) -> tuple[set[str], dict[str, str]]:
    """The distributions that provide ``modules``, and the digests of those modules that none provides."""
    providers = metadata.packages_distributions()
    roots: set[str] = set()
    local: dict[str, str] = {}
    for module in modules:
        top = _top(module)
        if top in sys.stdlib_module_names or top in (OURSELVES, "__main__", ""):
            continue
        candidates = sorted({_canonical_name(name) for name in providers.get(top, ())})
        if len(candidates) > 1:  # a namespace, or two distributions that overlap: the file decides
            candidates = [name for name in candidates if _file_of(module) in _files_of(name)]
        roots.update(candidates)
        if top not in providers and top not in local and (digest := _local_digest(top)):
            local[top] = digest
    return roots, dict(sorted(local.items()))


def _top(module: str) -> str:
    """The first name of a module; by its file where that is installed, since compiled modules may call themselves
    as they like; "" for one of the standard library.
    """
    name = _file_of(module)
    if name:
        file = Path(name)
        for root in _roots("purelib", "platlib"):
            if file.is_relative_to(root):
                return file.relative_to(root).parts[0].partition(".")[0]
        if any(file.is_relative_to(root) for root in _roots("stdlib", "platstdlib")):
            return ""
    return module.partition(".")[0]


@cache
def _roots(*kinds: str) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(Path(sysconfig.get_path(kind)) for kind in kinds))


def _file_of(module: str) -> str:
    return str(getattr(sys.modules.get(module), "__file__", "") or "")


@cache
def _files_of(name: str) -> frozenset[str]:
    distribution = metadata.distribution(name)
    return frozenset(str(distribution.locate_file(file)) for file in distribution.files or ())


def _local_digest(top: str) -> str:
    """The digest over the Python source of a top-level module or package; "" for one that has no file."""
    from importlib.util import find_spec

    if not top.isidentifier():  # to find a.b Python imports a, and this name may be a stranger's
        return ""
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return ""
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return ""
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:
        return digest_of(origin)
    sources = sorted(origin.parent.rglob("*.py"))
    lines = [f"{path.relative_to(origin.parent).as_posix()} {digest_of(path)}\n" for path in sources]
    return digest_of("".join(lines).encode())


def _closure(roots: set[str]) -> set[str]:
    """``roots`` and what they require in turn, as far as it is installed. Extras are not followed."""
    needed: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in needed or name == OURSELVES or not installed(name):
            continue
        needed.add(name)
        for requirement in metadata.requires(name) or ():
            spec, _, marker = requirement.partition(";")
            if not re.search(r"\bextra\b", marker) and (match := re.match(r"\s*([A-Za-z0-9._-]+)", spec)):
                waiting.append(_canonical_name(match[1]))
    return needed


def _describe(name: str, role: str) -> Distribution:
    distribution = metadata.distribution(name)
    return Distribution(
        name=name,
        version=distribution.version,
        role=role,
        record=_record_digest(distribution.read_text("RECORD") or ""),
        archive=_archive_digest(distribution.read_text("direct_url.json") or ""),
    )


def _record_digest(record: str) -> str:
    """The digest over the files of a distribution as its RECORD lists them.

    Lines that installers add differ between them (INSTALLER, scripts, byte code) and are left out.
    """
    import csv

    kept = sorted(
        f"{row[0]},{row[1]}"
        for row in csv.reader(record.splitlines())
        if len(row) >= 2
        and row[1]
        and not row[0].startswith(("..", "/"))
        and not row[0].endswith(".pyc")
        and not re.search(r"\.dist-info/(INSTALLER|REQUESTED|direct_url\.json|uv_\w+\.json|RECORD)$", row[0])
    )
    return "sha256:" + hashlib.sha256("\n".join(kept).encode()).hexdigest() if kept else ""


def _archive_digest(direct_url: str) -> str:
    """The sha256 of the archive that was installed, which only a direct install tells."""
    if not direct_url:
        return ""
    try:
        info = msgspec.json.decode(direct_url)["archive_info"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""
    digest = (info.get("hashes") or {}).get("sha256") or str(info.get("hash", "")).removeprefix("sha256=")
    return f"sha256:{digest}" if re.fullmatch(r"[0-9a-f]{64}", digest) else ""
