"""The demo: the main job on real data, with the very commands that a person would type."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import click

from modelyard import settings
from modelyard.cli import frame, screen


@frame.command(
    "demo",
    examples="""
    modelyard demo
    modelyard demo --once --folder /tmp/demo
    """,
)
@click.option("--folder", type=click.Path(path_type=Path), default=".demo", help="Where the demo keeps everything.")
@click.option("--once", is_flag=True, help="Stop after the predictions instead of serving on.")
@click.option("--port", type=int, default=None, help="Port to serve on; a free one where it is taken.")
def demo(folder: Path, once: bool, port: int | None) -> frame.Answer | None:
    """Train on real data, register, serve, and show predictions from the live server.

    The data are the breast cancer measurements that come with scikit-learn: 569 tumours, 30 measurements each, and
    whether the tumour was malignant.
    """
    from modelyard import api

    folder.mkdir(parents=True, exist_ok=True)
    os.environ["MODELYARD_HOME"] = str(folder / "home")
    os.environ.setdefault("MODELYARD_LOG_LEVEL", "warning")  # the answers below are the story
    table, held_back = _write_data(folder)
    quiet = frame.wants_json()
    if not quiet:
        screen.say(f"Real data: {table} (569 tumours; 5 are held back for the questions below)\n")
        _type("train", str(table), "--target", "diagnosis", "--name", "tumours")
        screen.say()
        _type("history", "tumours")
    else:
        api.train(table, "diagnosis", name="tumours")
    port = _free(settings.get("port", port))
    server: Any = api.serve("tumours@production", block=False, port=port)
    try:
        answers = [_ask(server.url, row) for row in held_back]
        if not quiet:
            _show(server.url, held_back, answers)
        if once:
            return frame.Answer({"url": server.url, "answers": answers}, lambda: None)
        screen.say(f"\nThe server goes on at {server.url} until Ctrl-C.")
        server.wait()
        return None
    except KeyboardInterrupt:
        screen.say("\nstopped")
        return None
    finally:
        server.stop()


def _type(*words: str) -> None:
    """Run a command as if it had been typed."""
    screen.say(f"$ modelyard {' '.join(words)}")
    number = frame.run(words)
    if number:
        raise click.exceptions.Exit(number)


def _write_data(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The table on disk, and five rows that are not in it."""
    from modelyard.errors import MissingDependency

    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        raise MissingDependency.extra("scikit-learn", "train", "the demo") from None
    data = load_breast_cancer(as_frame=True)
    rows = data.data.rename(columns=lambda name: name.replace(" ", "_"))
    rows["diagnosis"] = data.target.map({0: "malignant", 1: "benign"})
    held_back = rows.iloc[[5, 50, 150, 250, 350]]
    path = folder / "tumours.csv"
    rows.drop(index=held_back.index).to_csv(path, index=False)
    return path, held_back.to_dict(orient="records")


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

    body = json.dumps({name: value for name, value in row.items() if name != "diagnosis"}).encode()
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
        [
            [r["diagnosis"], a["prediction"], max(a["probabilities"].values())]
            for r, a in zip(rows, answers, strict=True)
        ],
    )
