"""Arguments and options that several commands share; names are completed from the registry in the shell."""

from __future__ import annotations

from typing import Any

import click


class Reference(click.ParamType[str]):
    """``churn``, ``churn:4``, ``churn@production``, ``churn@sha256:…``, or a bundle's path."""

    name = "reference"

    def __init__(self, *, whole: bool = True) -> None:
        #: Whether versions and aliases are offered too, or model names only.
        self.whole = whole

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(text) for text in self._known(incomplete) if text.startswith(incomplete)]

    def _known(self, incomplete: str) -> list[str]:
        from modelyard import settings
        from modelyard.errors import ModelyardError

        if not settings.get("registry") and not settings.get("home").is_dir():
            return []  # asking must not make a registry
        from modelyard.api import open_registry

        try:
            registry = open_registry()
            names = registry.models()
            stem = incomplete.partition(":")[0].partition("@")[0]
            if not self.whole or stem == incomplete or stem not in names:
                return names
            versions = registry.versions(stem)
            aliases = sorted({alias for version in versions for alias in version.aliases})
            return [*(f"{stem}@{alias}" for alias in aliases), *(version.ref for version in reversed(versions))]
        except ModelyardError:
            return []


REFERENCE = Reference()
MODEL = Reference(whole=False)

why_option = click.option("--why", default="", show_default=False, help="The reason, kept in the history.")

#: Adds --trust; the function gets ``trust``, a tuple.
trusted = click.option(
    "--trust", multiple=True, metavar="DIGEST|KEY", help="What may be loaded although it is a pickle; may be repeated."
)


def new_version(function: Any) -> Any:
    """Add --alias, --tag and --why, for a command that makes a version."""
    function = why_option(function)
    function = click.option(
        "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag for the new version; may be repeated."
    )(function)
    return click.option("--alias", default=None, help="An alias to point at the new version.")(function)


def tags_of(words: tuple[str, ...]) -> dict[str, str]:
    """``key=value`` words as a mapping. Raises BadParameter for a word without ``=``."""
    tags = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"expected KEY=VALUE, got {word!r}")
        tags[key] = value
    return tags
