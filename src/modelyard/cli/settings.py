"""settings, completion, version, help: what is around the commands."""

from __future__ import annotations

import click

from modelyard.cli import exits, screen
from modelyard.cli.frame import Answer, command

REFERENCES = (
    ("churn", "what the alias production names; the newest version while there is none"),
    ("churn:4", "version 4"),
    ("churn@production", "the version that the alias names"),
    ("churn@sha256:1f0c…", "the version with this digest, of which 12 digits are enough"),
    ("churn:latest, churn:latest-3", "to serve: the newest version, the newest three; followed as more are registered"),
    ("churn:all", "to serve: every version"),
    ("./folder, churn.zip", "a bundle that is not registered"),
    ("folder", "the same, for a folder here that holds a bundle, unless a model is called so"),
)


@command("settings", examples="modelyard settings\nmodelyard settings --json\nMODELYARD_PORT=9000 modelyard settings")
def settings() -> Answer:
    """List the settings and where each value comes from.

    A command's option wins over the environment, the environment over the default.
    """
    from modelyard.admin.settings import every_setting

    found = every_setting()
    rows = [
        {"name": s.name, "variable": s.variable, "value": s.value, "from": s.origin, "purpose": s.purpose}
        for s in found
    ]

    def show() -> None:
        screen.table(
            ("variable", "value", "from", "purpose"), [(s.variable, s.value, s.origin, s.purpose) for s in found]
        )

    return Answer(rows, show)


@command(
    "completion",
    examples="""
    eval "$(modelyard completion bash)"            # in ~/.bashrc
    eval "$(modelyard completion zsh)"             # in ~/.zshrc
    modelyard completion fish > ~/.config/fish/completions/modelyard.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> Answer:
    """Print the shell's completion script."""
    from click.shell_completion import get_completion_class

    from modelyard.cli.frame import modelyard

    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three shells"
    script = kind(modelyard, {}, "modelyard", "_MODELYARD_COMPLETE").source()
    return Answer({"shell": shell, "script": script}, lambda: screen.say(script))


@command("version", examples="modelyard version\nmodelyard version --json")
def version() -> Answer:
    """Show the versions of Modelyard and its libraries."""
    import platform
    from importlib import metadata

    found: dict[str, str | None] = {"modelyard": metadata.version("modelyard"), "python": platform.python_version()}
    for name in (
        "numpy",
        "onnxruntime",
        "pyarrow",
        "scikit-learn",
        "onnx",
        "skl2onnx",
        "xgboost-cpu",
        "lightgbm",
        "duckdb",
    ):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    found["platform"] = platform.platform()
    return Answer(found, lambda: screen.pairs([(k, v or "not installed") for k, v in found.items()]))


@command("help", examples="modelyard help exit-codes\nmodelyard help references")
@click.argument("subject", type=click.Choice(["exit-codes", "references"]))
def help(subject: str) -> Answer:
    """Explain a subject: exit-codes, references."""
    if subject == "references":
        return Answer(dict(REFERENCES), lambda: screen.table(("reference", "means"), REFERENCES))
    rows = [{"exit": n, "codes": list(words), "meaning": meaning} for n, (words, meaning) in exits.EXITS.items()]

    def show() -> None:
        screen.table(("exit", "code", "meaning"), [(r["exit"], r["codes"], r["meaning"]) for r in rows])
        screen.say("\nWith --json, an error is one JSON document on stderr: "
                   '{"error": {"code", "exit", "message", "hint", "problems"}}; stdout stays empty.')  # fmt: skip

    return Answer(rows, show)
