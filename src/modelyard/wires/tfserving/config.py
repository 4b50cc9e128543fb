"""A configuration of TensorFlow Serving, as references to what is to be served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard.errors import Conflict, InvalidInput
from modelyard.interfaces import Catalog


def references(config: Any, catalog: Catalog) -> list[str]:
    """What a ``ModelServerConfig`` declares. Raises InvalidInput, or Conflict for a label.

    A model's ``base_path`` is a bundle, or it is empty or ``registry``: then the model is the registry's of that name,
    with its version policy. It may be a reference, too: ``churn@production`` for the model ``churn``.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise InvalidInput.at("config", "a model_config_list", config.WhichOneof("config") or "nothing")
    found: list[str] = []
    for i, one in enumerate(config.model_config_list.config):
        path = f"config.model_config_list.config[{i}]"
        if not one.name:
            raise InvalidInput.at(f"{path}.name", "the name of a model", "nothing")
        _check_labels(one, catalog, path)
        found += _references(one, path)
    return found


def _references(one: Any, path: str) -> Sequence[str]:
    policy = one.model_version_policy.WhichOneof("policy_choice")
    place = one.base_path.removeprefix("file://")
    if place in ("", "registry"):
        if policy == "all":
            return [f"{one.name}:all"]
        if policy == "specific":
            versions = one.model_version_policy.specific.versions
            if not versions:
                raise InvalidInput.at(f"{path}.model_version_policy.specific.versions", "at least one", "none")
            return [f"{one.name}:{version}" for version in versions]
        newest = one.model_version_policy.latest.num_versions
        if policy is None:  # what the registry's alias production means, else the newest
            return [one.name]
        return [f"{one.name}:latest-{newest}" if newest > 1 else f"{one.name}:latest"]
    if policy in ("all", "specific") or one.model_version_policy.latest.num_versions > 1:
        raise InvalidInput.at(
            f"{path}.model_version_policy", "none where base_path names one version", policy,
            hint="leave base_path empty to serve the registry's versions of that name",
        )  # fmt: skip
    if place.startswith((f"{one.name}:", f"{one.name}@")):
        return [place]
    return [f"{one.name}={place}"]


def _check_labels(one: Any, catalog: Catalog, path: str) -> None:
    """Labels are the registry's aliases, so a configuration can only confirm them, for versions that are served."""
    for label, version in sorted(one.version_labels.items()):
        served = [v for v in catalog.models() if v.name == one.name and v.version == str(version)]
        if not served:
            raise Conflict(
                f"{path}.version_labels.{label}: version {version} of {one.name} is not served yet",
                hint="load the version first; its label can follow",
            )
        if label not in served[0].aliases:
            raise Conflict(
                f"{path}.version_labels.{label}: labels are the registry's aliases, and {label} is not one of "
                f"version {version} of {one.name}",
                hint=f"modelyard promote {one.name} {version} --alias {label}",
            )
