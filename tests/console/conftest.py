"""A yard with traffic and a console over it, each a real process, and a real Chromium that looks at it.

``MODELYARD_SCREENSHOTS`` names a folder in which a test's ``look`` leaves pictures, for people to look at.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from commands import environment, type_in
from console.drifting import Drifting
from receivers import waited

pytest.importorskip("nicegui", reason="the console is an extra")
sync_api = pytest.importorskip("playwright.sync_api", reason="a browser is driven")
sync_api.expect.set_options(timeout=60_000)


class Yard(NamedTuple):
    """A home, its console's address, and how to type commands there."""

    home: Path
    folder: Path
    url: str
    serving: str

    def type(self, *words: str) -> Any:
        done = type_in(self.home, self.folder, *words, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out) if done.out.strip() else None


def start(home: Path, folder: Path, *words: str, log: Path) -> tuple[subprocess.Popen[str], str]:
    """A command that answers with its url, and goes on."""
    told = {**environment(home), "MODELYARD_WINDOW_SECONDS": "2"}
    with log.open("w") as writing:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard", *words, "--json"], cwd=folder, env=told, text=True,
            stdout=subprocess.PIPE, stderr=writing,
        )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, log.read_text()
    return process, json.loads(line)["url"]


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """``flowers``, versions 1 and 2, of which 1 is in production; 400 predictions, 200 of them labelled."""
    import pandas as pd
    from sklearn.datasets import load_iris

    folder = tmp_path_factory.mktemp("console")
    home = folder / "home"
    flowers = load_iris(as_frame=True)
    table = flowers.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    table["kind"] = flowers.target.map(dict(enumerate(flowers.target_names)))
    table.to_csv(folder / "flowers.csv", index=False)
    for candidates in ("linear", "tree"):
        words = ["train", "flowers.csv", "--target", "kind", "--name", "flowers", "--candidates", candidates, "--json"]
        done = type_in(home, folder, *words)
        assert done.code == 0, done.err
    server, serving = start(home, folder, "serve", "flowers@production", "--record", "--port", "0",
                            log=folder / "server.log")  # fmt: skip
    rows = table.sample(400, replace=True, random_state=0)
    ids = []
    for record in rows.drop(columns="kind").to_dict(orient="records"):
        with urllib.request.urlopen(f"{serving}/predict", json.dumps(record).encode()) as answer:
            ids.append(json.load(answer)["request_id"])
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{serving}/predict", b'{"petal_length": "long"}')
    labels = pd.DataFrame({"prediction_id": ids[:200], "label": rows.kind[:200].tolist()})
    labels.to_csv(folder / "labels.csv", index=False)
    console, url = start(home, folder, "console", "--port", "0", log=folder / "console.log")
    made = Yard(home, folder, url, serving)
    made.type("labels", "send", "flowers", "labels.csv")
    told = waited(lambda: ask(url, "/api/overview")["endpoints"][0]["traffic"]["requests"] >= 401)
    assert told, "the traffic was not recorded"
    yield made
    for process in (console, server):
        end(process)


class Garden(NamedTuple):
    """A registry with ``garden``, whose versions 1 and 2 take the same and 3 takes no colour, and ``odd``, a pickle;
    its console; and who acts there.
    """

    registry: Any
    url: str
    user: str


@pytest.fixture(scope="session")
def garden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Garden]:
    """Models to do with as one likes. A server is there for its loop, which decides about rollouts."""
    import faulty
    from console.plants import plants
    from modelyard import api

    folder = tmp_path_factory.mktemp("garden")
    home = folder / "home"
    registry = api.open_registry(str(home))
    for options in ({"candidates": ["linear"]}, {"candidates": ["tree"]}, {"exclude": ["colour"]}):
        given = {"candidates": ["linear"], "folds": 2, **options}
        api.train(plants(), "kind", name="garden", registry=registry, **given)
    api.package(faulty.Faulty().fit(), sample={"order": [0.0] * 30, "value": list(map(float, range(30)))}, name="odd",
                registry=registry)  # fmt: skip
    words = ("serve", "garden@production", "--record", "--port", "0")
    server, _ = start(home, folder, *words, log=folder / "server.log")
    console, url = start(home, folder, "console", "--port", "0", log=folder / "console.log")
    yield Garden(registry, url, getpass.getuser())
    for process in (console, server):
        end(process)
    registry.close()


@pytest.fixture
def lane(garden: Garden, request: pytest.FixtureRequest) -> str:
    """A model of a test's own, called after it, with the versions of ``garden``."""
    name: str = re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-").replace("_", "-")[:60]
    for number in (1, 2, 3):
        bundle = garden.registry.fetch(garden.registry.resolve(f"garden:{number}"))
        garden.registry.register(bundle, name)
    return name


def ask(url: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Any:
    """What the admin API answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers or {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture(scope="session")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Yard, Drifting]]:
    """A home whose models do badly, with its console, and what made it. It serves nothing."""
    folder = tmp_path_factory.mktemp("drifting")
    made = Drifting(folder / "home")
    console, url = start(folder / "home", folder, "console", "--port", "0", log=folder / "console.log")
    yield Yard(folder / "home", folder, url, ""), made
    end(console)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """A headless Chromium of the system's. What drives it runs an event loop in this thread, so that it has to end
    before other tests run theirs.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: apt-get install chromium")
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """A page of the browser. What its console complains about fails the test."""

    def __init__(self, page: Any, url: str, name: str) -> None:
        self.page = page
        self.url = url
        self._name = name
        self.faults: list[str] = []
        page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", self._look_at)

    def _look_at(self, request: Any) -> None:
        if not request.url.startswith((self.url, self.url.replace("http", "ws"), "data:", "blob:")):
            self.faults.append(f"asked elsewhere: {request.url}")

    def open(self, path: str) -> Any:
        self.page.goto(self.url + path)
        self.page.locator("main h1").first.wait_for()
        return self.page

    def look(self, name: str) -> None:
        """Leave a picture, where a folder for them is named."""
        folder = os.environ.get("MODELYARD_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}-{self._name}.png", full_page=True)

    def fits(self) -> bool:
        """Whether nothing but tables has to be moved sideways."""
        wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        return bool(self.page.evaluate(wide))


SIZES = {"wide": (1280, 900), "phone": (390, 844)}


@pytest.fixture
def tab(chromium: Any, yard: Yard) -> Iterator[Callable[..., Tab]]:
    """Opens tabs: ``tab()``, ``tab("phone")``, ``tab("wide", dark=True)``."""
    opened: list[tuple[Any, Tab]] = []

    def make(size: str = "wide", *, dark: bool = False, url: str = yard.url) -> Tab:
        width, height = SIZES[size]
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light",
            timezone_id="Asia/Tokyo", accept_downloads=True,
        )  # fmt: skip
        context.set_default_timeout(60_000)
        made = Tab(context.new_page(), url, f"{size}-dark" if dark else size)
        opened.append((context, made))
        return made

    yield make
    for context, _ in opened:
        context.close()
    faults = [fault for _, each in opened for fault in each.faults]
    assert not faults, faults


def table_of(page: Any, heading: str) -> list[list[str]]:
    """The cells of the table in the card with a heading."""
    card = page.locator("section", has=page.get_by_role("heading", name=heading, exact=True))
    card.locator("tbody tr").first.wait_for()
    rows = card.locator("tbody tr").all()
    return [[re.sub(r"\s+", " ", cell).strip() for cell in row.locator("td").all_inner_texts()] for row in rows]
