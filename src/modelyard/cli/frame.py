"""What every command shares: loading when asked for, --json, --debug, examples, errors and exit numbers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from textwrap import dedent
from typing import Any, NamedTuple

import click

from modelyard.cli import exits

#: Section -> command -> (module, purpose). The help page is made from this, so that no command is imported for it.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Make a model": {
        "train": ("train", "Train models on a table and register the best."),
        "package": ("package", "Package a trained model and register it."),
        "register": ("package", "Register a bundle: a folder or a one-file bundle."),
    },
    "Use a model": {
        "serve": ("serve", "Serve models over HTTP and gRPC, on one port."),
        "predict": ("predict", "Score a file of any size."),
    },
    "Move a model": {
        "promote": ("registry", "Point an alias at a version."),
        "rollback": ("registry", "Point an alias back at the version before."),
        "rollout": ("rollout", "Let a version take over by and by, and back if it does harm."),
        "route": ("route", "Part the requests of an alias among versions."),
        "history": ("registry", "Show who changed what, when and why."),
        "models": ("registry", "List the models."),
        "versions": ("registry", "List the versions of a model."),
        "aliases": ("registry", "List the aliases of a model."),
        "show": ("registry", "Show one version."),
        "tag": ("registry", "Put tags on a version."),
        "untag": ("registry", "Take tags off a version."),
        "delete": ("registry", "Delete a version that no alias names."),
        "collect": ("registry", "Free the space of what no version names."),
    },
    "Look inside": {
        "inspect": ("bundles", "Show what a bundle or a model file holds; runs nothing."),
        "verify": ("bundles", "Check a bundle's digests and reproduce its golden rows."),
        "export": ("bundles", "Write a bundle as a folder or as one file."),
        "look": ("trust", "List what a model file would import; runs nothing."),
        "keygen": ("trust", "Make a key pair for signing."),
        "sign": ("trust", "Sign a model file, a bundle or a registered version."),
        "environment": ("environment", "Show or make the environment of a model."),
    },
    "Operate a model": {
        "console": ("console", "Show models, traffic, drift, rollouts and alerts in a browser, and act there."),
        "records": ("records", "Search, follow and redact what was predicted."),
        "monitor": ("monitor", "Show drift, data quality, latency and findings of a model."),
        "labels": ("labels", "Send the truth about predictions, and see what it says of a model."),
        "alerts": ("alerts", "List, acknowledge and silence alerts, and try the sinks."),
        "watch": ("watch", "Record what servers predict, and make findings, alerts and decisions of it."),
        "metrics": ("watch", "Print what is watched as Prometheus' text."),
    },
    "Guard a server": {
        "keys": ("keys", "Make, list and revoke the API keys of a registry."),
        "explain-batching": ("explain_batching", "Show why a running server joined the requests it joined."),
    },
    "Around": {
        "conformance": ("conformance", "Ask any server whether it keeps the rules of an inference protocol."),
        "demo": ("demo", "Train on real data, register, serve, and show predictions from the live server."),
        "settings": ("settings", "List the settings and where each value comes from."),
        "completion": ("settings", "Print the shell's completion script."),
        "version": ("settings", "Show the versions of Modelyard and its libraries."),
        "help": ("settings", "Explain a subject: exit-codes, references."),
    },
}

COMMANDS: dict[str, tuple[str, str]] = {name: row for section in SECTIONS.values() for name, row in section.items()}

#: Words that people try first, and ours.
SYNONYMS = {
    "list": "models", "ls": "models", "info": "show", "score": "predict", "rm": "delete", "remove": "delete",
    "gc": "collect", "import": "register", "add": "register", "pack": "package", "log": "history", "fit": "train",
    "run": "serve", "check": "verify", "config": "settings", "alias": "promote", "scan": "look",
    "canary": "rollout", "traffic": "route",
}  # fmt: skip


class Answer(NamedTuple):
    """What a command has to say: ``data`` for machines, ``show`` prints the same for people; how it ends."""

    data: Any
    show: Callable[[], None]
    exit: int = 0


class Group(click.Group):
    """Commands that are imported when they are invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        found: click.Command = getattr(import_module(f"modelyard.cli.{row[0]}"), cmd_name.replace("-", "_"))
        return found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(n, help=purpose) for n, (_, purpose) in COMMANDS.items() if n.startswith(incomplete)]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            word = SYNONYMS.get(name) or (near[0] if near else "")
            hint = f"did you mean `modelyard {word}`?" if word else "`modelyard --help` lists the commands"
            raise Usage(f"no such command: {name}", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, purpose) for name, (_, purpose) in commands.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(number), meaning) for number, (_, meaning) in exits.EXITS.items()])
        _write_examples(
            formatter,
            """
            modelyard train data.csv --target y --name churn
            modelyard package model.pkl --sample rows.csv --name churn
            modelyard serve churn@production
            modelyard predict churn@production --input rows.csv --output out.parquet
            """,
        )


class Usage(click.UsageError):
    """A mistake on the command line, with a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Command(click.Command):
    """A command with --json and --debug, and examples that can be pasted. It returns an Answer."""

    def __init__(self, *args: Any, examples: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = examples
        self.params.append(
            click.Option(
                ["--json", "as_json"], is_flag=True, expose_value=False, callback=_remember("json"),
                help="Answer with one JSON document.",
            )
        )  # fmt: skip
        self.params.append(
            click.Option(
                ["--debug"], is_flag=True, expose_value=False, callback=_remember("debug"),
                help="Log more, and show the trace of an error.",
            )
        )  # fmt: skip

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(formatter, self.examples)

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.meta.get("debug"):
            os.environ["MODELYARD_LOG_LEVEL"] = "debug"
        _quieten(bool(ctx.meta.get("debug")))
        answer = super().invoke(ctx)
        if isinstance(answer, Answer):
            if ctx.meta.get("json"):
                print_json(answer.data)
            else:
                answer.show()
        return answer


class Family(click.Group):
    """A command that is several: ``modelyard keys create``."""

    def __init__(self, *args: Any, examples: str = "", **options: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, **options})
        self.examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(formatter, self.examples)


def command(name: str, *, examples: str, **options: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command; the first line of its docstring is its purpose in the table above."""
    settings = {"show_default": True, "max_content_width": 100}
    return click.command(name, cls=Command, examples=examples, context_settings=settings, **options)


def wants_json() -> bool:
    """Whether the running command was asked for JSON."""
    return bool(click.get_current_context().meta.get("json"))


def print_json(data: Any) -> None:
    """One JSON document on stdout. Structs, paths, tuples and numpy numbers are written as plain values."""
    import msgspec

    plain = msgspec.to_builtins(data, str_keys=True, enc_hook=_plain)
    text = json.dumps(_finite(plain), ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)
    click.echo(text)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    return str(value)


def _finite(value: Any) -> Any:
    """JSON knows no NaN: missing numbers become null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def _remember(name: str) -> Callable[[click.Context, click.Parameter, bool], bool]:
    def keep(ctx: click.Context, _parameter: click.Parameter, value: bool) -> bool:
        ctx.meta[name] = value
        return value

    return keep


def _write_examples(formatter: click.HelpFormatter, examples: str) -> None:
    with formatter.section("Examples"):
        for line in dedent(examples).strip().splitlines():
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def _quieten(debug: bool) -> None:
    """Warnings of libraries as one line each, once; those meant for programmers only with --debug."""
    import warnings

    if debug:
        return
    told: set[str] = set()

    def show(message: Any, category: type[Warning], *_rest: Any, **_more: Any) -> None:
        text = str(message).strip().splitlines()[0] if str(message).strip() else category.__name__
        if text not in told and not issubclass(category, (DeprecationWarning, FutureWarning, ResourceWarning)):
            told.add(text)
            sys.stderr.write(f"warning: {text}\n")

    warnings.showwarning = show


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="From a trained model or a table to a versioned, safe, live endpoint.",
)
@click.version_option(package_name="modelyard", message="modelyard %(version)s")
def modelyard() -> None:
    pass


def run(arguments: Sequence[str] | None = None) -> int:
    """Parse and run ``arguments`` (``sys.argv`` when None); every outcome becomes an exit number."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    debug = "--debug" in given or os.environ.get("MODELYARD_LOG_LEVEL", "").lower() == "debug"
    try:
        outcome = modelyard.main(given or ["--help"], prog_name="modelyard", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        return exits.print_error("interrupted", "stopped", as_json=as_json)
    except click.ClickException as error:
        return _tell_usage(error, as_json)
    except SystemExit:
        # click ends so in two cases: completion, and a reader of stdout that went away.
        if "_MODELYARD_COMPLETE" in os.environ:
            raise
        # What is left in the buffer has no reader: without this, Python complains when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.NUMBERS["broken_pipe"]
    except Exception as error:
        return _tell(error, as_json=as_json, debug=debug)
    if isinstance(outcome, Answer):
        return outcome.exit
    return outcome if isinstance(outcome, int) else 0


def _tell_usage(error: click.ClickException, as_json: bool) -> int:
    hint = getattr(error, "hint", "")
    if isinstance(error, click.UsageError) and error.ctx is not None and not hint:
        hint = f"`{error.ctx.command_path} --help` shows how"
    message = error.format_message().rstrip(".")
    if isinstance(error, click.MissingParameter) and error.param and isinstance(error.param.type, click.Choice):
        name = error.param.opts[0] if isinstance(error.param, click.Option) else error.param.name
        message = f"which {name}: expected one of {', '.join(error.param.type.choices)}"
    return exits.print_error("invalid_input", message[:1].lower() + message[1:], hint=hint, as_json=as_json)


def _tell(error: Exception, *, as_json: bool, debug: bool) -> int:
    from modelyard.errors import ModelyardError

    if debug:
        import traceback

        traceback.print_exc()
    if isinstance(error, OSError):
        error = exits.of_os_error(error)
    if isinstance(error, ModelyardError):
        problems = getattr(error, "problems", ())
        return exits.print_error(error.code, error.message, hint=error.hint, problems=problems, as_json=as_json)
    message = f"this is a bug in Modelyard: {type(error).__name__}: {error}"
    return exits.print_error("bug", message, hint="run it again with --debug to see the trace", as_json=as_json)
