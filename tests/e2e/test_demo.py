"""The demo, as a newcomer runs it: it trains, serves and answers; it is broken on purpose, and seen to be."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from commands import environment, type_in
from modelyard.registry import Registry
from receivers import waited

pytest.importorskip("sklearn", reason="the demo trains models")


DOCS = Path(__file__).parents[2] / "docs"

#: Of these there is nothing to show when the broken demo was mended: nothing failed, and no rollout is under way.
QUIET = ("code!=", "modelyard_refused_total", "modelyard_failed_loads_total", "modelyard_route_share", "rollout_stage")


class Running(NamedTuple):
    """A demo that runs."""

    process: subprocess.Popen[str]
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "demo" / "home"

    def registry(self) -> Registry:
        return Registry.open(self.home)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-u", "-m", "modelyard", "demo", "--folder", "demo", "--port", "0"]
    given = environment(folder / "unused")
    with (folder / "printed").open("w") as printed:
        process = subprocess.Popen(command, cwd=folder, env=given, stdout=printed, stderr=printed, text=True)
        try:
            assert waited(lambda: (folder / "demo" / "running.json").exists() or process.poll() is not None, 240)
            assert process.poll() is None, (folder / "printed").read_text()
            yield Running(process, folder)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def prometheus(running: Running, tmp_path: Path) -> Iterator[str]:
    """A real Prometheus that scrapes the demo: its address."""
    program = shutil.which("prometheus")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no Prometheus: apt-get install prometheus")
        pytest.skip("no Prometheus: apt-get install prometheus")
    told = json.loads((running.folder / "demo" / "running.json").read_bytes())
    target = {"job_name": "modelyard", "static_configs": [{"targets": [urllib.parse.urlsplit(told["url"]).netloc]}]}
    settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": [target]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        if not waited(lambda: _scrapes(address) > 4, 90):
            pytest.fail((tmp_path / "log").read_text())
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def test_once_it_stops_after_the_predictions(tmp_path: Path) -> None:
    done = type_in(tmp_path / "unused", tmp_path, "demo", "--once", "--folder", "demo", "--port", "0", "--json")
    assert done.code == 0, done.err
    answers = done.json["answers"]
    assert [answer["prediction"] for answer in answers] == ["benign", "benign", "benign", "malignant", "malignant"]
    with pytest.raises(OSError):
        urllib.request.urlopen(done.json["url"], timeout=60)
    assert not (tmp_path / "unused").exists()
    registry = Registry.open(tmp_path / "demo" / "home")
    assert registry.windows.models() == []
    registry.close()


def test_only_a_demo_that_runs_can_be_broken(tmp_path: Path) -> None:
    done = type_in(tmp_path, tmp_path, "demo", "--break", "--json")
    assert (done.code, done.error["code"]) == (4, "conflict")
    assert "modelyard demo --folder .demo" in done.error["hint"]


def test_a_bad_version_is_taken_back(running: Running) -> None:
    assert waited(lambda: _recorded(running) > 400)
    done = type_in(running.home, running.folder, "demo", "--break", "--folder", "demo", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert told["state"] == "rolled back" and told["version"] == 2
    assert told["requests"] > told["wrong"] >= 0
    assert "$ modelyard rollout start tumours --to 2 --canary 20%" in done.err
    assert "version 1 answers everything" in done.err
    registry = running.registry()
    (rollout,) = registry.rollouts.all("tumours")
    assert [decision.action for decision in registry.rollouts.decisions(rollout.id)] == ["start", "roll back"]
    assert registry.rollouts.decisions(rollout.id)[-1].who == "guard"
    assert registry.routes.present("tumours") is None
    registry.close()


def test_what_happened_is_on_the_page_of_metrics(running: Running) -> None:
    url = json.loads((running.folder / "demo" / "running.json").read_bytes())["url"]
    done = type_in(running.home, running.folder, "metrics")
    assert done.code == 0, done.err
    printed = samples(done.out)
    assert waited(lambda: {name for name, _ in printed} < {name for name, _ in _scraped(url)})
    scraped = _scraped(url)
    assert scraped["modelyard_watched_up", ()] == 1
    version = (("arm", ""), ("model", "tumours"), ("version", "1"))
    assert scraped["modelyard_recorded_rows_total", version] > 400
    here = (("alias", "production"), ("model", "tumours"))
    state = (here[0], ("candidate", "2"), here[1], ("rollout", "1"), ("stable", "1"), ("state", "rolled back"))
    for found in (scraped, printed):
        assert found["modelyard_rollout_info", state] == 1
        assert found["modelyard_rollout_decisions_total", (("action", "roll back"), *here)] == 1
        assert found["modelyard_rollout_served", (*here, ("what", "requests"))] > 0
    assert scraped["modelyard_labelled_predictions", (("became", "matched"), ("model", "tumours"))] > 0


def test_a_changed_unit_is_found_and_named(running: Running) -> None:
    done = type_in(running.home, running.folder, "demo", "--break", "drift", "--folder", "demo", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert (told["kind"], told["column"]) == ("unit", "mean_radius")
    assert told["told"] == "mean_radius looks like another unit: times 10"
    assert len(told["alerts"]) == 1 and "mean_radius looks like another unit" in done.err
    assert not (running.folder / "demo" / "broken.json").exists()


def test_dashboards_show_it_from_a_real_prometheus(prometheus: str) -> None:
    (target,) = _asked(f"{prometheus}/api/v1/targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    empty = set()
    for file in ("grafana-dashboard.json", "grafana-watched.json"):
        dashboard = json.loads((DOCS / file).read_bytes())
        for variable in dashboard["templating"]["list"][1:]:
            match, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            given = urllib.parse.urlencode({"match[]": _filled(match)})
            values = f"{prometheus}/api/v1/label/{label}/values?{given}"
            assert waited(lambda asked=values: _asked(asked), 90), variable["name"]  # labels ripen while it is watched
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                given = urllib.parse.urlencode({"query": _filled(target["expr"])})
                if not _asked(f"{prometheus}/api/v1/query?{given}")["result"]:
                    empty.add(target["expr"])
    assert {query for query in empty if not any(each in query for each in QUIET)} == set()


def test_there_is_one_demo_in_a_folder(running: Running) -> None:
    done = type_in(running.home, running.folder, "demo", "--folder", "demo", "--json")
    assert (done.code, done.error["code"]) == (4, "conflict")


def test_ctrl_c_ends_it_and_all_that_it_started(running: Running) -> None:
    registry = running.registry()
    assert waited(lambda: registry.holder("control") != "")
    watching = int(registry.holder("control").split("-")[-2])
    before = (running.folder / "printed").read_text()
    console = re.search(r"Open (http://\S+) in a browser", before)
    assert console is not None, before
    with urllib.request.urlopen(f"{console[1]}/api/overview") as answer:
        assert [each["model"] for each in json.load(answer)["endpoints"]] == ["tumours"]
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=120) == 0
    printed = (running.folder / "printed").read_text()
    assert printed.rstrip().endswith("stopped") and "Traceback" not in printed
    assert "demo --break" in printed and "monitor tumours" in printed
    with pytest.raises(OSError):
        urllib.request.urlopen(console[1])
    assert waited(lambda: not _is_alive(watching))
    assert not (running.folder / "demo" / "running.json").exists()
    # what was recorded is all there, and nothing else was found: the traffic itself is no drift
    found = {finding.kind for finding in registry.findings.find("tumours") if finding.arm == ""}
    assert not found & {"drift", "stuck", "missing", "type", "category"}, found
    registry.close()


def _scraped(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        return samples(answer.read().decode())


def _asked(url: str) -> Any:
    """The data of an answer of Prometheus."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from None


def _scrapes(address: str) -> int:
    """How often what is watched was scraped."""
    try:
        found = _asked(f"http://{address}/api/v1/query?query=count_over_time(modelyard_watched_up[1m])")["result"]
    except (OSError, AssertionError):  # it is not ready
        return 0
    return int(found[0]["value"][1]) if found else 0


def _filled(query: str) -> str:
    """A query as Grafana asks it where every job, model and version is chosen."""
    return re.sub(r"\$(job|model|version|metric)", ".*", query.replace("$__rate_interval", "5s"))


CONSOLE = """
import signal
from modelyard.cli import demo

with demo._console() as url:
    print(url, flush=True)
    signal.pause()
"""


def test_its_console_ends_with_it_also_where_it_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("nicegui", reason="the console is an extra")
    command = [sys.executable, "-c", CONSOLE]
    given = environment(tmp_path / "home") | {"MODELYARD_CONSOLE_PORT": "0"}
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, text=True) as killed:
        try:
            assert killed.stdout is not None
            url = killed.stdout.readline().strip()
            (console,) = map(int, Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split())
            assert _is_alive(console) and urllib.request.urlopen(url).status == 200
        finally:
            killed.kill()
    assert waited(lambda: not _is_alive(console))


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Values by names and labels."""
    families = list(text_string_to_metric_families(text))
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def _recorded(running: Running) -> int:
    registry = running.registry()
    try:
        return sum(window.counted.rows for window in registry.windows.find("tumours"))
    finally:
        registry.close()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
