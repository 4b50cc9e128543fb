"""What is watched is told to whoever scrapes: at once, once, and also while the registry is away."""

from __future__ import annotations

import json
import os
import pickle
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from modelyard import scraping
from modelyard.errors import RemoteFailed
from modelyard.prometheus import Page
from modelyard.registry import Registry
from modelyard.scraping import Watched
from receivers import waited

UP = "modelyard_watched_up"


def values(page: Page) -> dict[str, float]:
    return {s.name: s.value for family in text_string_to_metric_families(page.text()) for s in family.samples}


class Rows:
    """A registry whose rows can be withheld."""

    def __init__(self, registry: Registry) -> None:
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None
        self.reads = 0
        self.watched = Watched(registry, make=self.make)

    def make(self, registry: Registry) -> Page:
        self.reads += 1
        self.open.wait(240)
        if self.error:
            raise self.error
        page = Page()
        page.single("reads", "gauge", "How often rows were read.", self.reads)
        return page


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:
    monkeypatch.setattr(scraping, "WAIT_SECONDS", 120.0)
    registry = Registry.open(tmp_path)
    made = Rows(registry)
    yield made
    made.open.set()
    registry.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are never told twice."""
    monkeypatch.setattr(scraping, "FRESH_SECONDS", 0.0)


def test_who_asks_again_soon_is_told_the_same(rows: Rows) -> None:
    assert values(rows.watched()) == values(rows.watched()) == {UP: 1, "reads": 1}
    assert rows.reads == 1


@pytest.mark.usefixtures("hurried")
def test_each_page_is_new_where_the_one_before_is_old(rows: Rows) -> None:
    assert [values(rows.watched())["reads"] for _ in range(3)] == [1, 2, 3]


@pytest.mark.usefixtures("hurried")
def test_a_registry_that_hangs_holds_up_one_scrape_for_a_moment_and_is_told(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert values(rows.watched()) == {UP: 1, "reads": 1}
    rows.open.clear()
    monkeypatch.setattr(scraping, "WAIT_SECONDS", 0.5)
    assert values(rows.watched()) == {UP: 1, "reads": 1}
    monkeypatch.setattr(scraping, "WAIT_SECONDS", 3600.0)  # nobody waits a second time
    assert values(rows.watched()) == {UP: 1, "reads": 1}
    monkeypatch.setattr(scraping, "STUCK_SECONDS", 0.0)
    for _ in range(5):
        assert values(rows.watched()) == {UP: 0, "reads": 1}
    assert rows.reads == 2
    rows.open.set()
    assert waited(lambda: values(rows.watched())[UP] == 1)
    assert values(rows.watched())["reads"] >= 3


@pytest.mark.usefixtures("hurried")
def test_what_is_old_is_not_told_and_a_failure_is_logged_once(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert values(rows.watched()) == {UP: 1, "reads": 1}
    rows.error = RemoteFailed("the registry is away")
    monkeypatch.setattr(scraping, "OLD_SECONDS", 0.0)
    assert waited(lambda: values(rows.watched()) == {UP: 0})
    before = rows.reads
    assert waited(lambda: values(rows.watched()) == {UP: 0} and rows.reads > before + 2)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["what is watched cannot be told"]
    assert "the registry is away" in json.dumps(lines[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_reads_for_itself(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "WAIT_SECONDS", 0.5)
    rows.open.clear()
    assert values(rows.watched()) == {UP: 1}  # and a thread that is reading, which no fork takes along
    process = os.fork()
    if process == 0:
        rows.open.set()
        os._exit(0 if waited(lambda: values(rows.watched()) == {UP: 1, "reads": 2}) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_asking_makes_no_registry(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "none")
    assert values(watched()) == {UP: 1}
    assert not (tmp_path / "none").exists()


def test_it_can_be_handed_to_another_process(tmp_path: Path) -> None:
    Registry.open(tmp_path).close()
    handed = pickle.loads(pickle.dumps(Watched(str(tmp_path))))
    assert waited(lambda: values(handed()) == {UP: 1})


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_tells_it_once_with_its_own_counts_in_both_forms(tmp_path: Path, workers: int) -> None:
    import modelyard as my

    pd = pytest.importorskip("pandas")
    linear_model = pytest.importorskip("sklearn.linear_model")
    registry = Registry.open(tmp_path / "home")
    table = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "z": [1.0, 0.0, 1.0, 0.0]})
    my.package(linear_model.LinearRegression().fit(table, table.x), sample=table, name="line", registry=registry)
    my.set_route("line", {1: 1.0}, registry=registry)
    place = str(tmp_path / "home")
    server: Any = my.serve("line", block=False, port=0, workers=workers, registry=place, record=False)
    try:
        plain = _scrape_whole(f"{server.url}/metrics", "*/*")
        in_open = _scrape_whole(f"{server.url}/metrics", "application/openmetrics-text")
    finally:
        server.stop()
        registry.close()
    for families in (text_string_to_metric_families(plain), openmetrics.text_string_to_metric_families(in_open)):
        found = [(s.name, s.labels, s.value) for family in families for s in family.samples]
        assert found.count(("modelyard_watched_up", {}, 1)) == 1
        assert found.count(("modelyard_ready", {}, 1)) == 1
        (share,) = [(labels, value) for name, labels, value in found if name == "modelyard_route_share"]
        assert share == ({"model": "line", "alias": "production", "arm": "v1", "version": "1", "mode": "live"}, 1)


def test_a_server_whose_registry_is_gone_is_scraped_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import modelyard as my

    monkeypatch.setattr(scraping, "FRESH_SECONDS", 0.0)
    pd = pytest.importorskip("pandas")
    linear_model = pytest.importorskip("sklearn.linear_model")
    table = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "z": [1.0, 0.0, 1.0, 0.0]})
    home = tmp_path / "home"
    fitted = linear_model.LinearRegression().fit(table, table.x)
    my.package(fitted, sample=table, name="line", registry=str(home))
    my.set_route("line", {1: 1.0}, registry=str(home))
    server: Any = my.serve("line", block=False, port=0, registry=str(home), log_level="error", record=False)
    try:
        assert "\nmodelyard_watched_up 1\n" in _scrape_whole(f"{server.url}/metrics", "*/*")
        (home / "registry.db").rename(home / "gone.db")
        assert waited(lambda: "\nmodelyard_watched_up 0\n" in _scrape(f"{server.url}/metrics", "*/*"))
        told = _scrape(f"{server.url}/metrics", "*/*")
        assert "\nmodelyard_ready 1\n" in told and "modelyard_route_share{" in told  # of a minute ago at most
        (home / "gone.db").rename(home / "registry.db")
        assert waited(lambda: "\nmodelyard_watched_up 1\n" in _scrape(f"{server.url}/metrics", "*/*"))
    finally:
        server.stop()


def _scrape_whole(url: str, accept: str) -> str:
    """What a worker tells once it has read rows: for the first time it has to import how, which may take a while."""
    pages: list[str] = []
    assert waited(lambda: pages.append(_scrape(url, accept)) or "modelyard_route_share{" in pages[-1])  # type: ignore[func-returns-value]
    return pages[-1]


def _scrape(url: str, accept: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"accept": accept}), timeout=60) as answer:
        text: str = answer.read().decode()
    return text
