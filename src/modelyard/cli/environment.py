"""environment: the packages that a model needs, and a Python that has them."""

from __future__ import annotations

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, command
from modelyard.cli.references import REFERENCE


@command(
    "environment",
    examples="""
    modelyard environment show churn@production
    modelyard environment build churn@production     # before serving a model of another scikit-learn
    modelyard environment build churn.zip
    """,
)
@click.argument("action", type=click.Choice(["show", "build"]))
@click.argument("ref", type=REFERENCE)
def environment(action: str, ref: str) -> Answer:
    """Show or make the environment of a model.

    A model that was packed with another version of its framework is served by a Python of its own. `build` makes it,
    from the package index that pip or uv is set up to use, in environments/ of the home folder; it is shared by all
    models with the same lock.
    """
    from modelyard import api, settings
    from modelyard.bundle import environments

    bundle, _ = api.open_bundle(ref)
    lock, home = bundle.manifest.environment, settings.get("home")
    fits = environments.satisfies(lock)
    if action == "build" and not fits:
        with screen.progress("making the environment:") as tell:
            environments.build(lock, home, lambda text: tell(0, None, text))
    python = environments.interpreter(lock, home)
    packages = {one.name: one.version for one in lock.distributions}
    differences = [str(difference) for difference in bundle.differences()]

    def show() -> None:
        screen.pairs([("python", lock.python), ("runs with", python or "nothing yet")])
        screen.say()
        screen.table(("package", "version"), list(packages.items()))
        screen.say()
        if fits:
            screen.say("the model can be served by this very Python")
        elif python is None:
            screen.say(f"next: modelyard environment build {ref}")
        else:
            screen.say(f"next: modelyard serve {ref}")

    told = {"python": lock.python, "packages": packages, "differences": differences, "fits": fits}
    return Answer({**told, "interpreter": None if python is None else str(python)}, show)
