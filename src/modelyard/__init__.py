"""Modelyard: from a trained model or a table to a versioned, safe, live endpoint, and healthy there.

    import modelyard as my

    my.train("data.csv", target="y", name="churn")
    my.package(model, sample=frame, name="churn")
    my.load("churn@production").predict(rows)

Names are resolved when first used: ``import modelyard`` loads no machine-learning library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.api import (
        Model,
        Trained,
        abort_rollout,
        accuracy,
        clear_route,
        delete,
        end_rollout,
        find_rollout,
        find_route,
        history,
        join_labels,
        load,
        models,
        monitor,
        package,
        pause_rollout,
        predict,
        promote,
        register,
        resume_rollout,
        rollback,
        send_labels,
        serve,
        set_route,
        start_rollout,
        tag,
        train,
        versions,
    )

__version__ = "0.1.0"

__all__ = [
    "Model",
    "Trained",
    "__version__",
    "abort_rollout",
    "accuracy",
    "clear_route",
    "delete",
    "end_rollout",
    "find_rollout",
    "find_route",
    "history",
    "join_labels",
    "load",
    "models",
    "monitor",
    "package",
    "pause_rollout",
    "predict",
    "promote",
    "register",
    "resume_rollout",
    "rollback",
    "send_labels",
    "serve",
    "set_route",
    "start_rollout",
    "tag",
    "train",
    "versions",
]


#: Rooms of the package that are used by their names without an import of their own.
_MODULES = ("asgi", "django", "fastapi", "flask", "wsgi")


def __getattr__(name: str) -> Any:
    if name in __all__:
        from modelyard import api

        return getattr(api, name)
    if name in _MODULES:
        import importlib

        return importlib.import_module(f"modelyard.{name}")
    raise AttributeError(f"module 'modelyard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
