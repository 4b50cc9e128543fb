"""Dashboards show what is counted: Grafana takes the files, each metric that they name is there with the labels that
they ask for, and each that we count is shown or told.
"""

import datetime as dt
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelyard.monitoring import judging
from modelyard.monitoring.watch import Monitor
from modelyard.prometheus import Page
from modelyard.registry import Registry, states
from modelyard.registry.leases import CONTROL
from modelyard.registry.plans import Plan, Rollout, Stage
from modelyard.rollouts.controller import Controller
from modelyard.scraping import tell
from modelyard.serving.metrics import Metrics, Vitals
from modelyard.truth import Label
from recorders import Recorder
from traffic import Traffic

sys.path.insert(0, str(Path(__file__).parent))
import grafana

DOCS = Path(__file__).parents[2] / "docs"
FILES = ("grafana-dashboard.json", "grafana-watched.json")


def text_of(file: str) -> str:
    return (DOCS / file).read_text(encoding="utf-8")


def labels_of(page: Page) -> dict[str, set[str]]:
    """The names of all samples, and their labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page.text()):
        found.setdefault(family.name + ("_total" if family.type == "counter" else ""), set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """All samples that there may be: of a server, and of a registry where everything has happened."""
    metrics = Metrics()
    metrics.vitals = lambda: Vitals(0, 1, 1.0, 1.0, 1, 1, True, True, {("m", "1"): 1}, {("m", "1"): 1}, True, True)
    metrics.meter("m", "1").refused["internal"] += 1
    metrics.refused["not_found"] += 1
    metrics.failed_loads["m"] += 1
    server = labels_of(metrics.tell([]))
    server["modelyard_model_info"] = {"model", "version", "digest", "platform", "task"}
    server["modelyard_expected_seconds"] = {"model", "version", "part"}
    return {**server, **labels_of(_watched(tmp_path_factory.mktemp("watched"))), "modelyard_watched_up": set()}


def _watched(folder: Path) -> Page:
    """A model whose inputs moved, with labels and a rollout."""
    registry, traffic = Registry.open(folder / "home"), Traffic(1)
    for name in ("one", "two"):
        registry.register(traffic.bundle(folder / name), "churn")
    traffic.moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)

    def older(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
        columns["age"] = columns["age"] + 8

    registry.windows.add([msgspec.structs.replace(w, id=0) for w in traffic.windows(4, change=older)])
    registry.labels.add("churn", [Label("a", "yes")])
    with registry.database.write() as work:
        states.put(work, judging.STATE, '{"1": {"accuracy": [0.9, 0.8, 0.95]}}', "churn")
    plan = Plan(stages=(Stage(0.1),), guards=("errors",), tolerances={"errors": 0.01})
    rollout = registry.rollouts.start(Rollout(model="churn", stable=1, candidate=2, plan=plan, share=0.1))
    Recorder().write(registry, rollout, 100)
    lease = registry.lease(CONTROL, "here")
    assert lease.beat()
    for loop in (Monitor(registry, lease), Controller(registry, lease)):
        loop.step()
    page = tell(registry)
    registry.close()
    return page


@pytest.mark.parametrize("file", FILES)
def test_grafana_knows_all_that_is_in_it(file: str) -> None:
    assert grafana.problems(text_of(file)) == []
    dashboard = json.loads(text_of(file))
    assert 36 <= dashboard["schemaVersion"] <= 41 and re.fullmatch(r"[a-z-]{1,40}", dashboard["uid"])
    units = {panel["fieldConfig"]["defaults"].get("unit", "none") for panel in _panels(dashboard)}
    assert units <= grafana.UNITS
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?([a-z]+)", text_of(file))) == variables


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d["panels"][1].update(titel="x"), "titel: unknown"),
        (lambda d: d["panels"][1]["gridPos"].update(w="4"), "w: '4' is no int"),
        (lambda d: d["panels"][1].update(title=4), "title: 4"),
        (lambda d: d["panels"][1]["options"].update(graphMode="bars"), "'bars' is none of"),
        (lambda d: d["templating"]["list"][1].update(refresh=7), "refresh"),
        (lambda d: d["panels"][1]["fieldConfig"]["defaults"].update(thresholds={"mode": "relative"}), "thresholds"),
    ],
)
def test_what_grafana_would_not_take_is_seen(change: Any, told: str) -> None:
    dashboard = json.loads(text_of("grafana-watched.json"))
    change(dashboard)
    found = grafana.problems(json.dumps(dashboard))
    assert any(told in problem for problem in found), found


@pytest.mark.parametrize("file", FILES)
def test_every_query_asks_for_what_is_counted(file: str, counted: dict[str, set[str]]) -> None:
    dashboard = json.loads(text_of(file))
    queries = [target["expr"] for panel in _panels(dashboard) for target in panel["targets"]]
    for query in queries:
        told: set[str] = set()
        for name, selected in _selectors(_parsed(query)):
            assert name in counted, query
            assert selected <= counted[name] | {"job", "instance"}, (name, selected)
            told |= counted[name] | {"job", "instance"}
        assert set(_kept(_parsed(query))) <= told, query
    for variable in dashboard["templating"]["list"][1:]:
        asked = re.fullmatch(r"label_values\((\w+)(?:\{(\w+)=~.*\})?, (\w+)\)", variable["query"]["query"])
        assert asked is not None and asked[1] in counted
        assert {asked[2] or "job", asked[3]} <= counted[asked[1]] | {"job"}
    for panel in _panels(dashboard):
        for target in panel["targets"]:
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert legend <= set(_kept(_parsed(target["expr"]))), target


def _panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def _parsed(query: str) -> Any:
    """A query with a span in the place of Grafana's own."""
    return promql_parser.parse(query.replace("$__rate_interval", "1m"))


def _parts(query: Any) -> Iterator[Any]:
    """A query and all queries inside it."""
    yield query
    inner = [getattr(query, name, None) for name in ("expr", "lhs", "rhs", "vector_selector")]
    for part in (*inner, *(getattr(query, "args", None) or ())):
        if part is not None:
            yield from _parts(part)


def _selectors(query: Any) -> Iterator[tuple[str, set[str]]]:
    for part in _parts(query):
        if isinstance(part, promql_parser.VectorSelector):
            yield part.name, {matcher.name for matcher in part.matchers.matchers}


def _kept(query: Any) -> Iterator[str]:
    """The labels by which it groups."""
    for part in _parts(query):
        if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            yield from part.modifier.labels


@pytest.mark.parametrize("file", FILES)
def test_panels_do_not_overlap_and_have_numbers_of_their_own(file: str) -> None:
    panels = json.loads(text_of(file))["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["type"], panel["title"]) for panel in panels}) == len(panels)


def test_dashboards_and_pages_tell_of_every_metric(counted: dict[str, set[str]]) -> None:
    pages = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("observability.md", "monitoring.md"))
    told = {name for name in counted if not name.endswith(("_bucket", "_sum", "_count"))}
    assert {name for name in told if f"`{name}`" not in pages} == set()
    assert len({json.loads(text_of(file))["uid"] for file in FILES}) == len(FILES)
    shown = "".join(text_of(file) for file in FILES)
    watched = {name for name in told if re.match(r"modelyard_(drift|findings|alerts|quality|rollout|route|loop)", name)}
    assert {name for name in watched if name not in shown} == set()
