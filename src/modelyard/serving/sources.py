"""Where references are looked up: bundles on disk, and a registry."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

from modelyard.bundle.places import bundle_at, is_path
from modelyard.errors import InvalidInput
from modelyard.interfaces import Predict
from modelyard.profile import Profile
from modelyard.schema import Columns, Signature

if TYPE_CHECKING:
    from modelyard.registry.routes import Route


class LoadableBundle(Protocol):
    """What of a bundle the server needs."""

    @property
    def digest(self) -> str: ...
    @property
    def signature(self) -> Signature: ...
    @property
    def manifest(self) -> Any: ...
    def load(self, *, trust: Any) -> Predict: ...
    def golden(self) -> tuple[Columns, Columns]: ...
    def check_golden(self, predict: Predict) -> None: ...
    def profile(self) -> Profile: ...


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference means now."""

    model: str
    version: str
    digest: str
    aliases: tuple[str, ...]
    open: Callable[[], LoadableBundle]

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.model, self.version, self.digest)


class Source(Protocol):
    """Where references are looked up. Called from one thread only."""

    def marker(self) -> int:
        """A number that changes whenever a reference may mean something else."""

    def resolve(self, reference: str) -> Wanted:
        """What a reference that means one version means now. Raises NotFound."""

    def versions(self, model: str) -> Sequence[str]:
        """The versions of a model, newest first. Raises NotFound."""

    def forget(self, reference: str) -> None:
        """Look the reference up anew when it is next asked for, even where nothing tells that it changed."""


@runtime_checkable
class HasRoutes(Protocol):
    """What a source has beside the rest where several versions may share the requests of an alias."""

    def route(self, model: str, alias: str) -> Route | None:
        """The route in force of an alias, or None where the alias alone decides."""


@runtime_checkable
class HasWatch(Protocol):
    """What a source has beside the rest where somebody may watch what is predicted."""

    def is_watched(self) -> bool | None:
        """Whether somebody watches and decides at the moment; None where nobody could."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: ``churn:latest``, ``churn:latest-3``, ``churn:all``, and what was meant to be one of them.
_POLICY = re.compile(rf"(?P<model>{_NAME.pattern}):(?P<words>[A-Za-z].*)")
#: ``churn`` and ``churn@production``.
_ALIASED = re.compile(rf"(?P<model>{_NAME.pattern})(@(?P<alias>[A-Za-z][A-Za-z0-9._-]{{0,99}}))?")
_LATEST = re.compile(r"latest(-(?P<count>[1-9][0-9]{0,5}))?")


def resolve_all(source: Source, reference: str) -> list[Wanted]:
    """What a reference means now: one version, or as many as its policy says, newest first. Raises NotFound."""
    policy = _POLICY.fullmatch(reference)
    if policy is None:
        return [source.resolve(reference)]
    model, words = policy.group("model", "words")
    latest = _LATEST.fullmatch(words)
    if latest is None and words != "all":
        raise InvalidInput.at(
            "reference", "a number, latest, latest-2 (the newest two) or all after the colon", repr(words),
            hint=f"{model}:latest is the newest version, {model}@{words} is what an alias points to",
        )  # fmt: skip
    numbers = source.versions(model)
    if latest is not None:
        numbers = numbers[: int(latest["count"] or 1)]
    return [source.resolve(f"{model}:{number}") for number in numbers]


def route_of(source: Source, reference: str) -> Route | None:
    """The route of the alias that a reference means; None where it means a version, versions or a path."""
    named = _ALIASED.fullmatch(reference)
    if named is None or not isinstance(source, HasRoutes):
        return None
    return source.route(named["model"], named["alias"] or "production")


def model_of(reference: str) -> str:
    """The model whose versions a reference means, as far as its text tells."""
    name, equals, path = reference.rpartition("=")
    if equals:
        return name
    named = re.match(rf"({_NAME.pattern})(?=[:@]|$)", path)
    return named[1] if named else name_of(path)


def name_of(path: str) -> str:
    """The name under which a bundle at a path is served where none is given."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", Path(path).resolve().stem)


class FolderSource:
    """Bundles on disk, as they were when they were first asked for: a bundle never changes."""

    def __init__(self) -> None:
        self._known: dict[str, Wanted] = {}

    def marker(self) -> int:
        return 0

    def knows(self, reference: str) -> bool:
        """Whether a reference was asked for before: what it meant then it means for good."""
        return reference in self._known

    def resolve(self, reference: str) -> Wanted:
        found = self._known.get(reference)
        if found is None:
            found = self._known[reference] = self._open(reference)
        return found

    def forget(self, reference: str) -> None:
        self._known.pop(reference, None)

    def _open(self, reference: str) -> Wanted:
        from modelyard.bundle import Bundle

        name, _, path = reference.rpartition("=")
        bundle = Bundle.open(bundle_at(Path(path).expanduser()))
        name = name or name_of(path)
        if not _NAME.fullmatch(name):
            raise InvalidInput.at("model name", "letters, digits, '.', '_' or '-'", name, hint="serve NAME=PATH")
        return Wanted(model=name, version="", digest=bundle.digest, aliases=(), open=lambda: bundle)


class RegistrySource:
    """Names in a registry. ``where`` as for ``Registry.open``, or a registry."""

    def __init__(self, where: Any = None) -> None:
        from modelyard.registry import Registry
        from modelyard.registry.leases import CONTROL, Onlooker

        self._registry = where if isinstance(where, Registry) else Registry.open(where)
        self._control = Onlooker(self._registry.database, CONTROL)

    def is_watched(self) -> bool:
        return self._control.is_held()

    def marker(self) -> int:
        return self._registry.marker()

    def models(self) -> list[str]:
        return self._registry.models()

    def versions(self, model: str) -> Sequence[str]:
        return [str(version.number) for version in reversed(self._registry.versions(model))]

    def route(self, model: str, alias: str) -> Route | None:
        return self._registry.routes.present(model, alias)

    def forget(self, reference: str) -> None:
        """Names are looked up anew every time."""

    def resolve(self, reference: str) -> Wanted:
        version = self._registry.resolve(reference)
        return Wanted(
            model=version.model,
            version=str(version.number),
            digest=version.digest,
            aliases=tuple(version.aliases),
            open=lambda: self._registry.fetch(version),
        )


class MixedSource:
    """Paths from disk, names from a registry that is opened when the first name is asked for."""

    def __init__(self, where: Any = None) -> None:
        self._where = where
        self._folder = FolderSource()
        self._registry: RegistrySource | None = None

    def marker(self) -> int:
        return self._registry.marker() if self._registry is not None else 0

    def resolve(self, reference: str) -> Wanted:
        if self._folder.knows(reference) or self._is_path(reference):
            return self._folder.resolve(reference)
        return self._names().resolve(reference)

    def versions(self, model: str) -> Sequence[str]:
        return self._names().versions(model)

    def route(self, model: str, alias: str) -> Route | None:
        return self._registry.route(model, alias) if self._registry is not None else None

    def is_watched(self) -> bool | None:
        return self._registry.is_watched() if self._registry is not None else None

    def forget(self, reference: str) -> None:
        self._folder.forget(reference)

    def _is_path(self, reference: str) -> bool:
        return "=" in reference or is_path(reference, lambda: self._names().models())

    def _names(self) -> RegistrySource:
        if self._registry is None:
            self._registry = RegistrySource(self._where)
        return self._registry
