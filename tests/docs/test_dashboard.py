"""The dashboard shows what is counted: each metric that it names is there, and each that we count is shown or told."""

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from modelyard.serving.metrics import Metrics, Vitals

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))


def counted() -> dict[str, set[str]]:
    """The names of all samples that there may be, and their labels."""
    metrics = Metrics()
    metrics.vitals = lambda: Vitals(0, 1, 1.0, 1.0, 1, 1, True, True, {("m", "1"): 1}, {("m", "1"): 1})
    metrics.meter("m", "1").refused["internal"] += 1
    metrics.refused["not_found"] += 1
    metrics.failed_loads["m"] += 1
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.tell([]).text()):
        found.setdefault(family.name + ("_total" if family.type == "counter" else ""), set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_query_asks_for_what_is_counted() -> None:
    names = counted()
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    expressions += [variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable]
    asked = [name for text in expressions for name in re.findall(r"\b(?:modelyard|process)_\w+", text)]
    assert set(asked) <= names.keys()
    assert len(asked) >= len(DASHBOARD["panels"])
    for text in expressions:
        for name, selected in re.findall(r"(\w+)\{([^}]*)\}", text):
            labels = set(re.findall(r"(\w+)[=!]", selected)) - {"job", "instance"}
            assert labels <= names[name] or name == "modelyard_model_info", (name, labels)


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells


def test_the_page_tells_of_every_metric() -> None:
    page = (DOCS / "observability.md").read_text(encoding="utf-8")
    told = {name for name in counted() if not name.endswith(("_bucket", "_sum", "_count"))}
    assert {name for name in told if f"`{name}`" not in page} == set()
