"""The demo: the main job on real data, with the very commands that a person would type; then traffic, to be broken."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from modelyard import settings
from modelyard.cli import demo_data, frame, screen
from modelyard.cli.demo_data import MODEL, TARGET
from modelyard.errors import Conflict

#: The demo's processes close windows and look at them every few seconds rather than every minute.
_QUICK = {"MODELYARD_WINDOW_SECONDS": "5"}
_RULES = {
    "drift.seconds": "10", "drift.rows": "300", "latency.seconds": "10", "accuracy.hours": "0",
}  # fmt: skip


@frame.command(
    "demo",
    examples="""
    modelyard demo
    modelyard demo --break drift           # in another terminal: a column comes in another unit
    modelyard demo --break canary          # in another terminal: a bad version is rolled out
    modelyard demo --once --folder /tmp/demo
    """,
)
@click.option("--folder", type=click.Path(path_type=Path), default=".demo", help="Where the demo keeps everything.")
@click.option("--once", is_flag=True, help="Stop after the predictions instead of serving on.")
@click.option("--port", type=int, default=None, help="Port to serve on; a free one where it is taken.")
@click.option(
    "--break", "broken", is_flag=False, flag_value="canary", type=click.Choice(["canary", "drift"]),
    help="Break a demo that runs in another terminal, and see it caught.  [canary]",
)  # fmt: skip
def demo(folder: Path, once: bool, port: int | None, broken: str | None) -> frame.Answer | None:
    """Train on real data, register, serve, and show predictions from the live server.

    The data are the breast cancer measurements that come with scikit-learn: 569 tumours, 30 measurements each, and
    whether the tumour was malignant. Then it sends itself gentle traffic, which is recorded and watched, until Ctrl-C.
    `--break`, in another terminal, lets out a version that is bad (canary) or changes the unit of a column (drift), and
    shows how that is found.
    """
    from modelyard.cli import demo_traffic

    os.environ["MODELYARD_HOME"] = str((folder / "home").absolute())
    os.environ.setdefault("MODELYARD_LOG_LEVEL", "error")  # the answers below are the story
    if broken is not None:
        from modelyard.cli import demo_break

        demo_traffic.find(folder)
        breaks = demo_break.break_drift if broken == "drift" else demo_break.break_canary
        with contextlib.redirect_stdout(sys.stderr if frame.wants_json() else sys.stdout):
            told = breaks(folder, type_in)
        return frame.Answer(told, lambda: None)
    if not once and demo_traffic.is_running(folder):
        raise Conflict(f"a demo is running in {folder} already", hint="modelyard demo --folder another")
    tumours = demo_data.write(folder)
    _train(tumours)
    return _serve(tumours, folder, once, port)


def _train(tumours: demo_data.Tumours) -> None:
    if frame.wants_json():
        from modelyard import api

        api.train(tumours.table, TARGET, name=MODEL)
        return
    screen.say(f"Real data: {tumours.table} (569 tumours, of which {len(tumours.held_back)} are held back)\n")
    type_in("train", str(tumours.table), "--target", TARGET, "--name", MODEL)
    screen.say()
    type_in("history", MODEL)


def _serve(tumours: demo_data.Tumours, folder: Path, once: bool, port: int | None) -> frame.Answer | None:
    from modelyard import api
    from modelyard.monitoring import rules

    os.environ.update({name: value for name, value in _QUICK.items() if name not in os.environ})
    if not once:
        rules.edit(api.open_registry().database, put=_RULES)
    port = _free(settings.get("port", port))
    server: Any = api.serve(f"{MODEL}@production", block=False, port=port, record=not once)
    try:
        questions = tumours.questions
        answers = [_ask(server.url, row) for row in questions]
        if not frame.wants_json():
            _show(server.url, questions, answers)
        if once:
            return frame.Answer({"url": server.url, "answers": answers}, lambda: None)
        _go_on(server.url, tumours, folder)
    except KeyboardInterrupt:
        screen.say("\nstopped")
    finally:
        server.stop()
    return None


def _go_on(url: str, tumours: demo_data.Tumours, folder: Path) -> None:
    """Send traffic until Ctrl-C."""
    from modelyard.cli import demo_traffic

    traffic = demo_traffic.Traffic(url, tumours.held_back, folder)
    with _console() as console:
        _tell(url, console, folder)
        traffic.start()
        _follow(url, traffic, folder)


def _follow(url: str, traffic: Any, folder: Path) -> None:
    """Tell of alerts and of how much was sent, until Ctrl-C."""
    from modelyard import api
    from modelyard.cli import demo_traffic

    alerts = api.open_registry().alerts
    told = max((alert.id for alert in alerts.find(MODEL)), default=0)
    try:
        with demo_traffic.told(folder, url):
            while True:
                time.sleep(1.0)
                for alert in reversed([each for each in alerts.find(MODEL) if each.id > told]):
                    told = alert.id
                    screen.say(f"\ralert {alert.id}: {alert.title}")
                if not screen.plain():
                    failed = f", {traffic.failed:,} failed" if traffic.failed else ""
                    click.echo(f"\r{traffic.sent:,} answered, {traffic.labelled:,} labelled{failed} ", nl=False)
    finally:
        traffic.stop()


@contextlib.contextmanager
def _console() -> Iterator[str]:
    """The console of the demo's home, in a process of its own; yields where, or "" where the extra is not installed."""
    if not importlib.util.find_spec("nicegui"):
        yield ""
        return
    port = _free(settings.get("console_port"))
    command = [sys.executable, "-m", "modelyard", "console", "--beside", "--port", f"{port}", "--json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:  # its input ends when we do, however that comes
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield json.loads(line)["url"] if line else ""
        finally:
            process.terminate()


def _tell(url: str, console: str, folder: Path) -> None:
    """What goes on, and what to do next."""
    from modelyard.cli.demo_traffic import LABEL_SECONDS, NOISE, RATE

    screen.say(
        f"\nThe server goes on at {url} until Ctrl-C. So that there is something to watch, it gets {RATE} requests"
    )
    screen.say(
        f"a second: tumours that were held back, drawn again and again, each value moved by about {NOISE * 100:g} %,"
    )
    screen.say(f"and {LABEL_SECONDS:g} s later what they really were.")
    if console:
        screen.say(f"\nOpen {console} in a browser to see all of it. In another terminal:\n")
    else:
        screen.say("\nIn another terminal:\n")
    for line in _next(folder, console):
        screen.say(f"  {line}")
    screen.say()
    if importlib.util.find_spec("duckdb") is None:
        screen.say("Labels are kept, and joined with predictions once there is pip install 'modelyard[records]'.\n")


def _next(folder: Path, console: str) -> Iterator[str]:
    """What to type next, in columns."""
    modelyard, where = _command(), "" if folder == Path(".demo") else f" --folder {shlex.quote(str(folder))}"
    lines = [(f"export MODELYARD_HOME={shlex.quote(os.environ['MODELYARD_HOME'])}", "")]
    if not console:
        lines.append(("pip install 'modelyard[console]'", f"then {modelyard} console: all of it in a browser"))
    lines += [
        (f"{modelyard} monitor {MODEL}", "how it fares; after a minute"),
        (f"{modelyard} demo --break{where}", "let out a bad version, and see the guard take it back"),
        (f"{modelyard} demo --break drift{where}", "change the unit of a column, and see it found"),
    ]
    width = max(len(command) for command, told in lines if told)
    return (f"{command.ljust(width)}  # {told}" if told else command for command, told in lines)


def _command() -> str:
    """How to call Modelyard in another terminal: as it was called here."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m modelyard"
    found = shutil.which("modelyard")
    is_found = found is not None and called.exists() and Path(found).samefile(called)
    return "modelyard" if is_found else shlex.quote(str(called))


def type_in(*words: str) -> None:
    """Run a command as if it had been typed."""
    screen.say(f"$ modelyard {' '.join(words)}")
    number = frame.run(words)
    if number:
        raise click.exceptions.Exit(number)


def _free(port: int) -> int:
    """``port`` where nothing listens there, else 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.get("host"), port))
        except OSError:
            return 0
    return port


def _ask(url: str, row: dict[str, Any]) -> dict[str, Any]:
    """What the live server answers for one row."""
    import urllib.request

    body = json.dumps({name: value for name, value in row.items() if name != TARGET}).encode()
    with urllib.request.urlopen(f"{url}/predict", body, timeout=30) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def _show(url: str, rows: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    first = dict(list(rows[0].items())[:2])
    screen.say(f"\n$ curl -d '{json.dumps(first)[:-1]}, ...}}' {url}/predict")
    screen.say(json.dumps(answers[0]))
    screen.say("\nFive tumours that the model has never seen, asked of the live server:")
    screen.table(
        ["truth", "prediction", "probability"],
        [[r[TARGET], a["prediction"], max(a["probabilities"].values())] for r, a in zip(rows, answers, strict=True)],
    )
