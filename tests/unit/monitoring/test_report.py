"""Reports are computed from rows, whoever watches, and their pages tell no more than they should."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.cli.monitor import spark
from modelyard.errors import NotFound
from modelyard.monitoring.looks import pool
from modelyard.monitoring.measures import DRAWS, measure, places, quantile
from modelyard.monitoring.page import page
from modelyard.monitoring.report import report
from modelyard.profile import Profile
from modelyard.registry import Registry
from modelyard.registry.windows import Counted
from modelyard.schema import Field
from traffic import Traffic


def write(registry: Registry, traffic: Traffic, count: int, change: Any = None, **more: Any) -> None:
    registry.windows.add([msgspec.structs.replace(w, id=0) for w in traffic.windows(count, change=change, **more)])


@pytest.fixture
def traffic(registry: Registry, tmp_path: Path) -> Traffic:
    made = Traffic(1)
    made.moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
    registry.register(made.bundle(tmp_path / "one"), "churn")
    return made


def test_versions_and_arms_are_told_apart(registry: Registry, traffic: Traffic, tmp_path: Path) -> None:
    registry.register(traffic.bundle(tmp_path / "two"), "churn")
    write(registry, traffic, 3, arm="stable")
    write(registry, traffic, 2, arm="canary", version="2")
    told = report(registry, "churn")
    assert [(arm.version, arm.arm, arm.windows) for arm in told.arms] == [("1", "stable", 3), ("2", "canary", 2)]
    assert [arm.version for arm in report(registry, "churn", "2").arms] == ["2"]
    with pytest.raises(NotFound, match=r"no such version of churn with recorded traffic: 9 \(known: 1, 2\)"):
        report(registry, "churn", "9")


def test_only_the_last_hours_are_told(registry: Registry, traffic: Traffic) -> None:
    traffic.moment -= dt.timedelta(days=2)
    write(registry, traffic, 3)
    traffic.moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
    write(registry, traffic, 2)
    assert report(registry, "churn").arms[0].windows == 2
    assert report(registry, "churn", hours=72).arms[0].windows == 5


def test_lines_have_a_point_for_each_stretch_of_time(registry: Registry, traffic: Traffic) -> None:
    write(registry, traffic, 100)

    def older(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
        columns["age"] = columns["age"] + 8

    write(registry, traffic, 20, change=older)
    (arm,) = report(registry, "churn", hours=2).arms
    age = next(feature for feature in arm.features if feature.name == "age")
    assert len(age.line) == len(arm.latency_line["p95"]) == 24
    known = [value for value in age.line if value is not None]
    assert max(known[:15]) < 0.1 < min(known[-3:-1])
    assert age.low is not None
    assert age.low <= (age.value or 0) <= (age.high or 0)
    assert age.middles[0] is not None
    assert sum(age.shares[1]) == pytest.approx(1.0)


def test_pooling_is_adding_one_after_the_other(traffic: Traffic) -> None:
    def elsewhere(columns: dict[str, Any], _outputs: dict[str, Any]) -> None:
        columns["city"][::5] = "Quito"

    those = [
        each.counted for each in (*traffic.windows(3, change=elsewhere), *traffic.windows(2, codes={"timeout": 2}))
    ]
    those.insert(2, Counted(requests=3, codes={"timeout": 1, "overloaded": 2}))  # nothing but refusals
    added = Counted()
    for each in those:
        added = added.plus(each)
    assert added.unseen, "texts are among what windows count"
    assert pool(those) == msgspec.structs.replace(added, unseen={}, outside={})
    assert pool([]) == Counted()


def test_windows_on_other_bins_are_counted_but_not_compared(registry: Registry, traffic: Traffic) -> None:
    write(registry, traffic, 3)
    other = Traffic(2, rows=300)
    other.moment = traffic.moment - dt.timedelta(minutes=20)
    write(registry, other, 2)
    (arm,) = report(registry, "churn").arms
    assert (arm.windows, arm.requests, arm.rows, arm.foreign) == (5, 5 * 1_500, 5 * 1_500, 2)
    assert {feature.live for feature in arm.features} == {3 * 1_500}
    assert sum(value is not None for value in arm.latency_line["p95"]) >= 1


def test_features_that_matter_come_first(registry: Registry, traffic: Traffic) -> None:
    write(registry, traffic, 3, change=lambda c, _: c.update(weight=c["weight"] * 2.54))
    (arm,) = report(registry, "churn").arms
    assert arm.features[0].name == "weight"
    ratios = [(f.low or 0.0) / f.floor for f in arm.features]
    assert ratios == sorted(ratios, reverse=True)


def test_a_page_escapes_what_came_with_the_data(registry: Registry, traffic: Traffic) -> None:
    from modelyard.monitoring.watch import Monitor
    from modelyard.registry.leases import CONTROL

    hostile = "<script>alert(1)</script>"
    write(registry, traffic, 4, change=lambda c, _: c.update(city=np.full(len(c["city"]), hostile, object)))
    lease = registry.lease(CONTROL, "here")
    lease.beat()
    Monitor(registry, lease).step()
    told = report(registry, "churn")
    assert hostile in told.findings[0].told
    made = page(told)
    assert "<script" not in made
    assert "&lt;script&gt;" in made


def test_a_page_without_anything_is_a_page(registry: Registry, traffic: Traffic) -> None:
    made = page(report(registry, "churn"))
    assert "churn: monitoring" in made
    assert "no predictions were recorded" in made and "nothing recorded" in made and "all recorded" not in made
    assert "<code>modelyard serve churn" in made and "Open findings</h2>" not in made


def test_a_page_says_once_what_holds_for_several_arms_and_that_nothing_is_open(
    registry: Registry, traffic: Traffic
) -> None:
    for arm in ("stable", "canary"):
        write(registry, traffic, 2, arm=arm)
    told = report(registry, "churn")
    for each in told.arms:
        each.limits = ["the reference is small"]
    made = page(told)
    names = "version 1 (canary), version 1 (stable)", "version 1 (stable), version 1 (canary)"
    assert sum(f"<li>{both}: the reference is small</li>" in made for both in names) == 1
    assert made.count("the reference is small") == 1
    assert 'Open findings</h2><div class="card"><p class="soft">None.</p></div>' in made


WIDE, NARROW = 1280, 390
MEASURED = """<iframe id=f width={width} height=900 srcdoc="{page}"></iframe><script>
onload = () => {{
  const root = document.getElementById('f').contentDocument.documentElement
  const cards = [...root.querySelectorAll('.card')]
  const cut = cards.filter(card => card.scrollWidth > card.clientWidth)
  document.title = `${{root.scrollWidth}} of ${{root.clientWidth}}, ${{cut.length}} of ${{cards.length}}`
}}</script>"""


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_sticks_out_of_the_page_in_a_browser(
    registry: Registry, traffic: Traffic, tmp_path: Path, width: int
) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a browser: Debian's package chromium")
    write(registry, traffic, 40, change=lambda c, _: c.update(age=c["age"] * 2.54))
    made = MEASURED.format(width=width, page=escape(page(report(registry, "churn")), quote=True))
    (tmp_path / "page.html").write_text(made, encoding="utf-8")
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, f"--window-size={WIDE + 100},1000", "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r"<title>(\d+) of (\d+), (\d+) of (\d+)</title>", done.stdout)
    assert found is not None, done.stderr[-2000:]
    across, room, cut, cards = map(int, found.groups())
    assert across <= room <= width
    assert cut == 0 and cards > 8


def test_a_spark_line_has_a_bar_for_each_value() -> None:
    assert spark([0.0, 0.5, None, 1.0]) == "▁▅·█"
    assert spark([None, None]) == "··"
    assert spark([0.05, 0.05], floor=0.1) == "▅▅"


def test_critical_values_are_exceeded_once_in_twenty_times() -> None:
    rng = np.random.default_rng(2)
    fields = (Field(name="x", dtype="float64"),)
    rows = 2_000
    exceeded = dict.fromkeys(("psi", "js", "chi2", "ks", "wasserstein"), 0)
    runs = 400
    for run in range(runs):
        reference = Profile.of({"x": rng.normal(size=rows)}, fields)
        live = reference.empty()
        live.add({"x": rng.normal(size=800)})
        for name, found in measure(reference.inputs[0], live.inputs[0], run).items():
            exceeded[name] += found.value > found.critical
    for name in ("psi", "js", "chi2", "wasserstein"):
        assert 0.02 < exceeded[name] / runs < 0.09, (name, exceeded)
    assert exceeded["ks"] / runs < 0.06  # bins make the limit of KS too large
    assert DRAWS >= 400


def test_places_and_quantiles_of_cells() -> None:
    few = Profile.of({"x": np.array([1.0, 2.0, 2.0, 5.0])}, (Field(name="x", dtype="float64"),)).inputs[0]
    assert places(few).tolist() == [1.0, 1.0, 2.0, 5.0, 5.0]
    many = Profile.of({"x": np.arange(1_000.0)}, (Field(name="x", dtype="float64"),)).inputs[0]
    assert quantile(many, 0.5) == pytest.approx(500, abs=1)
    assert quantile(many, 0.0) == 0.0
    assert quantile(many, 1.0) == 999.0
    assert quantile(many.empty(), 0.5) is None
