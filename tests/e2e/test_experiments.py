"""Clients that stick, pins, experiments and bandits, from the command line to the verdict: a server with two workers, a
real PostgreSQL, and clients who ask both workers. Every request is answered, recorded, and counted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

pytest.importorskip("onnx", reason="the versions are graphs")

from receivers import waited
from rolling import Answer, Callers, Rolling

#: The headers that tell who asks, and of what group. Every rollout here sends the group ``probe`` to its candidate.
WHO, GROUP = "x-user-id", "x-group"
STICKY, PROBE = ("--key", f"header:{WHO}"), ("--pin", f"header:{GROUP}:probe=canary")

#: Experiments, and bandits, whose candidates turn out to be better, alike or worse.
BETTER, ALIKE, UP, DOWN = "better", "alike", "up", "down"

#: So many standard deviations a count may be off.
DEVIATIONS = 5

Rows = list[tuple[float, Mapping[str, str]]]


@pytest.fixture(scope="module")
def yard(begin: Callable[..., Rolling]) -> Rolling:
    """One server of all these models: each test has its own."""
    return begin("header", "column", "chance", "pinned", "heavy", BETTER, ALIKE, UP, DOWN)


def clients(count: int, group: str = "") -> Rows:
    """A request of each of so many clients."""
    return [(0.5 + n / 1_000, {WHO: f"client {n}"} | ({GROUP: group} if group else {})) for n in range(count)]


def ours(answers: Iterable[Answer], version: int) -> set[int]:
    """The places of those that this version gave."""
    return {place for place, answer in enumerate(answers) if answer.version == version}


def is_about(count: int, n: int, share: float) -> bool:
    return abs(count - n * share) <= DEVIATIONS * math.sqrt(n * share * (1 - share))


def follow(callers: Callers, version: int) -> int:
    """Wait until both workers follow a rollout to this version; how many requests told so, none of which counts."""
    before = len(callers.answers)
    assert waited(lambda: all(ours(way, version) for way in callers.ask([(0.5, {GROUP: "probe"})])))
    return len(callers.answers) - before


def check_counted(yard: Rolling, model: str, counted: int, others: int) -> None:
    """That so many requests are evidence, and that these and so many others were recorded, each once."""
    assert waited(lambda: yard.tallied(model) == counted), f"{counted} expected, {yard.told(model)}"
    query = f'select count(*) n, count(distinct request_id) ids from "{model}"'
    assert waited(lambda: yard.cli("records", "query", query) == [{"n": counted + others, "ids": counted + others}])
    assert yard.tallied(model) == counted


# -- who gets which version ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_clients_stick_by_a_header_in_all_workers_across_a_restart_and_while_the_share_grows(yard: Rolling) -> None:
    model, n = "header", 300
    ramp = ("--ramp", "20,60", "--by", "schedule", "--guard", "errors")
    version = yard.start("good", *ramp, *STICKY, *PROBE, model=model)
    yard.cli("rollout", "pause", model, "--why", "to look at it")
    sides, asked, pinned = [], 0, 0
    for is_restarted in (False, True):
        if is_restarted:
            yard.stop()
            yard.serve()
        with Callers(yard.url, model) as callers:
            pinned += follow(callers, version)
            sides += [ours(way, version) for way in callers.ask(clients(n))]
            asked += len(callers.answers)
            assert set(callers.codes) == {200}
    assert sides == [sides[0]] * 4 and is_about(len(sides[0]), n, 0.2)
    check_counted(yard, model, asked - pinned, pinned)
    columns = "count(distinct worker) w, count(distinct version) v"
    query = f"select client, {columns} from {model} where not pinned group by client"
    rows = yard.cli("records", "query", query)
    assert len(rows) == n and all(row["w"] > 1 and row["v"] == 1 for row in rows)

    yard.cli("rollout", "resume", model)
    with Callers(yard.url, model) as callers:
        last: list[set[int]] = []

        def has_grown() -> bool:
            before, last[:] = last[:], [ours(way, version) for way in callers.ask(clients(n))]
            assert all(sides[0] <= side for side in last), "somebody went back"
            return before == last == [last[0]] * 2 != sides[:2]

        assert waited(has_grown), yard.told(model)
        assert is_about(len(last[0]), n, 0.6)
        assert set(callers.codes) == {200}
        check_counted(yard, model, asked - pinned + len(callers.answers), pinned)
    assert [(d["action"], d["share"]) for d in yard.history(model)] == [
        ("start", 0.2), ("pause", 0.2), ("resume", 0.2), ("advance", 0.6),
    ]  # fmt: skip


def test_clients_stick_by_a_column(yard: Rolling) -> None:
    model, n = "column", 300
    canary = ("--canary", "40%", "--guard", "errors", "--stage", "600s", "--key", "column:x")
    version = yard.start("good", *canary, *PROBE, model=model)
    with Callers(yard.url, model) as callers:
        pinned = follow(callers, version)
        rows: Rows = [(0.4 + place / 1_000, {WHO: f"client {place % 7}"}) for place in range(n)]
        sides = [ours(way, version) for way in (*callers.ask(rows), *callers.ask(rows))]
        assert sides == [sides[0]] * 4 and is_about(len(sides[0]), n, 0.4)
        assert set(callers.codes) == {200}
        check_counted(yard, model, len(callers.answers) - pinned, pinned)


def test_without_a_key_each_request_is_given_by_chance(yard: Rolling) -> None:
    model, n = "chance", 500
    version = yard.start("good", "--canary", "30%", "--guard", "errors", "--stage", "600s", *PROBE, model=model)
    with Callers(yard.url, model) as callers:
        pinned = follow(callers, version)
        sides = [ours(way, version) for way in callers.ask(clients(1) * n)]
        assert sides[0] != sides[1] and all(is_about(len(side), n, 0.3) for side in sides)
        assert set(callers.codes) == {200}
        check_counted(yard, model, len(callers.answers) - pinned, pinned)


def test_pins_win_and_what_they_decide_is_no_evidence(yard: Rolling) -> None:
    """The candidate fails whatever is odd, and only its testers ask that."""
    model, odd = "pinned", 60
    canary = ("--canary", "50%", "--guard", "errors,invalid", "--stage", "600s")
    version = yard.start("failing", *canary, *PROBE, "--pin", f"header:{GROUP}:staff=stable", model=model)
    with Callers(yard.url, model) as callers:
        pinned = follow(callers, version)
        testers = callers.ask([(0.1, {WHO: f"tester {n}", GROUP: "probe"}) for n in range(odd)])
        assert all(answer.status == 500 for way in testers for answer in way)
        staff = callers.ask(clients(100, "staff"))
        assert not any(ours(way, version) for way in staff)
        sides = [ours(way, version) for way in callers.ask(clients(100))]
        assert all(is_about(len(side), 100, 0.5) for side in sides)
        check_counted(yard, model, 200, pinned + 2 * odd + 200)
        told = yard.cli("rollout", "status", model)
        assert (told["state"], told["exposure"].get("bad", 0)) == ("running", 0)
        assert told["exposure"]["requests"] == sum(map(len, sides))
        assert callers.codes == {200: pinned + 400, 500: 2 * odd}

        yard.cli("rollout", "abort", model, "--why", "only the pins are wanted")
        large = ("--pin", f"column:x:0.9..=v{version}")
        yard.cli("route", "set", model, "1=100%", f"{version}=0%", "--pin", f"header:{GROUP}:probe=v{version}", *large)
        follow(callers, version)
        assert not any(ours(way, version) for way in callers.ask(clients(50)))
        rows = [(x, {}) for x in (0.5, 0.89, 0.9, 0.95)]
        assert all(ours(way, version) == {2, 3} for way in callers.ask(rows))
        assert set(callers.codes) == {200, 500} and callers.codes[500] == 2 * odd


def test_a_few_heavy_clients_with_errors_do_not_take_a_good_canary_back(yard: Rolling) -> None:
    """Both versions fail whatever is odd; three clients ask nothing else, often, and all three are the candidate's."""
    model, n, heavy = "heavy", 400, 3
    yard.cli("promote", model, str(yard.add("failing", model)))
    canary = ("--canary", "50%", "--guard", "errors", "--tolerate", "errors=10%")
    version = yard.start("failing", *canary, *STICKY, *PROBE, model=model)
    yard.cli("rollout", "pause", model)
    with Callers(yard.url, model) as callers:
        pinned = follow(callers, version)
        way, _ = callers.ask(clients(n))
        chosen = sorted(ours(way, version))[:heavy]
        callers.ask([(0.1, {WHO: f"client {place}"}) for _ in range(100) for place in chosen])
        counted = len(callers.answers) - pinned
        check_counted(yard, model, counted, pinned)
        told = yard.cli("rollout", "status", model)
        (finding,) = told["findings"]
        assert told["state"] == "paused" and told["exposure"]["bad"] == callers.codes[500] == 200 * heavy
        assert (finding["bad"], finding.get("stable_bad", 0), finding["n"] + finding["stable_n"]) == (heavy, 0, n)
        assert finding["log_e"] < finding["needed"]
        assert callers.codes[200] == pinned + 2 * n

        yard.cli("rollout", "resume", model)
        assert waited(lambda: bool(callers.ask(clients(50))) and yard.state(model) == "promoted"), yard.told(model)
        assert callers.codes[500] == 200 * heavy and set(callers.codes) == {200, 500}


# -- which version is better -----------------------------------------------------------------------------------------


class Trial:
    """An experiment of one model, in whose two arms clients were asked for, and what turned out of them."""

    def __init__(self, yard: Rolling, model: str, *words: str, n: int = 200) -> None:
        self.yard, self.model, self.n = yard, model, n
        guards = ("--guard", "labels", "--outcome", "1", "--stage", "0s")
        self.version = yard.start("good", *words, *guards, *STICKY, *PROBE, model=model)
        with Callers(yard.url, model) as callers:
            self.pinned = follow(callers, self.version)
            (self.testers, _), (self.answers, _) = callers.ask(clients(40, "probe")), callers.ask(clients(n))
            self.pinned += 80
            self.counted = 2 * n
            assert set(callers.codes) == {200}
        self.side = ours(self.answers, self.version)
        self.others = set(range(n)) - self.side

    def ask(self) -> list[set[int]]:
        """Ask for every client again, in both workers; whom the candidate answered."""
        with Callers(self.yard.url, self.model) as callers:
            ways = callers.ask(clients(self.n))
            assert set(callers.codes) == {200}
        self.counted += 2 * self.n
        return [ours(way, self.version) for way in ways]

    def label(self, first: int, last: int, *, stable: int, candidate: int) -> None:
        """Tell what became of some clients of each arm: of ten in turn, so many are a success. To testers nobody ever
        succeeds.
        """
        lines = ["prediction_id,label", *(f"{answer.id},0" for answer in self.testers)]
        for places, good in ((self.others, stable), (self.side, candidate)):
            for turn, place in list(enumerate(sorted(places)))[first:last]:
                lines.append(f"{self.answers[place].id},{int(turn % 10 < good)}")
        (self.yard.folder / f"{self.model}.csv").write_text("\n".join(lines))
        sent = self.yard.cli("labels", "send", self.model, f"{self.model}.csv")
        assert sent["received"] == len(lines) - 1 and not sent["rejected"]

    def failures(self, good: int, side: set[int]) -> int:
        """How many of a side are no success, once all were told of."""
        return sum(turn % 10 >= good for turn in range(len(side)))

    def successes(self, good: int, side: set[int]) -> str:
        return f"{len(side) - self.failures(good, side)} of {len(side)}"

    def reweighed(self, share: float) -> list[set[int]]:
        """Whom the candidate answers in each worker, once both follow a share that the bandit chose."""
        found: list[set[int]] = []

        def both() -> bool:
            found[:] = self.ask()
            return found[0] == found[1] and is_about(len(found[0]), self.n, share)

        assert waited(both), self.status()
        return found

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = self.yard.cli("rollout", "status", self.model)
        return told

    @property
    def labelled(self) -> int:
        """Clients whose labels are evidence."""
        strata = self.yard.registry.rollouts.latest(self.model).evidence.strata.values()
        return sum(stratum.stable.labels.n + stratum.candidate.labels.n for stratum in strata)

    def check_counted(self) -> None:
        check_counted(self.yard, self.model, self.counted, self.pinned)


@pytest.fixture(scope="module")
def trials(yard: Rolling) -> dict[str, Trial]:
    """All of them at once, because a label is joined only ten seconds after its prediction."""
    made = {model: Trial(yard, model, "--ab", "50%") for model in (BETTER, ALIKE)}
    made |= {model: Trial(yard, model, "--canary", "50%", "--bandit") for model in (UP, DOWN)}
    for trial in made.values():
        trial.check_counted()
    made[BETTER].label(0, 200, stable=4, candidate=8)
    made[ALIKE].label(0, 200, stable=5, candidate=5)
    made[UP].label(0, 40, stable=5, candidate=8)
    made[DOWN].label(0, 40, stable=8, candidate=5)
    return made


@pytest.mark.slow
def test_an_experiment_tells_the_better_arm_and_by_how_much(yard: Rolling, trials: dict[str, Trial]) -> None:
    trial = trials[BETTER]
    assert yard.until("watching", "promoted", "rolled back", model=BETTER) != "rolled back"
    assert waited(lambda: all(len(side) == trial.n for side in trial.ask())), "the better one answers everybody"
    told = yard.history(BETTER)
    assert [(d["action"], d["who"] == "guard", d["share"]) for d in told[:2]] == [
        ("start", False, 0.5), ("promote", True, 1.0),
    ]  # fmt: skip
    won, lost = trial.successes(8, trial.side), trial.successes(4, trial.others)
    assert told[1]["why"].startswith(f"its outcomes are shown to be better: {won} were a success against {lost}, ")
    (finding,) = told[1]["findings"]
    low, high = finding["between"]
    assert -1 < low < -0.4 < high < 0
    assert f", {-high * 100:.1f} to {-low * 100:.1f} points more; evidence " in told[1]["why"]
    assert (finding["bad"], finding["n"]) == (trial.failures(8, trial.side), len(trial.side))
    assert (finding["stable_bad"], finding["stable_n"]) == (trial.failures(4, trial.others), len(trial.others))
    # What was counted before it ended is all that had been asked for.
    exposure = told[1]["evidence"]["exposure"]
    assert (exposure["requests"], exposure["wrong"]) == (2 * len(trial.side), finding["bad"])
    rows = yard.cli("history", BETTER)
    assert {"promote", "rollout", "route", "unroute"} <= {row["action"] for row in rows}
    assert any(told[1]["why"] == row["why"] for row in rows if row["action"] == "promote")


@pytest.mark.slow
def test_an_experiment_without_a_difference_is_not_decided(yard: Rolling, trials: dict[str, Trial]) -> None:
    """Had the testers' outcomes counted, the candidate would have been taken back."""
    trial = trials[ALIKE]
    assert waited(lambda: trial.labelled >= trial.n), trial.status()
    assert yard.cli("labels", "status", ALIKE)["matched"] == trial.n + len(trial.testers)
    trial.ask()
    trial.check_counted()
    told = trial.status()
    won, lost = trial.successes(5, trial.side), trial.successes(5, trial.others)
    assert told["state"] == "running" and trial.labelled == trial.n
    assert told["verdict"]["why"].startswith(
        f"no difference between the outcomes is shown yet: {won} were a success against {lost}, -"
    )
    low, high = told["findings"][0]["between"]
    assert low < 0 < high
    assert [d["action"] for d in yard.history(ALIKE)] == ["start"]


@pytest.mark.slow
def test_a_bandit_gives_the_better_version_more_until_it_takes_over(yard: Rolling, trials: dict[str, Trial]) -> None:
    trial = trials[UP]
    assert waited(lambda: yard.registry.rollouts.latest(UP).share != 0.5), trial.status()
    sides = trial.reweighed(0.95)
    assert all(trial.side <= side for side in sides), "nobody goes back"
    trial.check_counted()
    trial.label(40, 200, stable=2, candidate=9)
    assert waited(lambda: bool(trial.ask()) and yard.state(UP) != "running"), trial.status()
    told = yard.history(UP)
    assert [(d["action"], d["share"]) for d in told[:3]] == [
        ("start", 0.5), ("reweigh", pytest.approx(0.95)), ("promote", 1.0),
    ]  # fmt: skip
    assert told[1]["why"].startswith("better with a chance of 0.9") and told[1]["who"] == "guard"
    assert told[1]["why"].endswith(": 32 of 40 were a success against 20 of 40")
    assert "its outcomes are shown to be better: " in told[2]["why"]


@pytest.mark.slow
def test_a_bandit_takes_from_the_worse_version_until_it_is_taken_back(yard: Rolling, trials: dict[str, Trial]) -> None:
    trial = trials[DOWN]
    assert waited(lambda: yard.registry.rollouts.latest(DOWN).share != 0.5), trial.status()
    sides = trial.reweighed(0.05)
    assert all(side <= trial.side for side in sides), "nobody comes who was not there"
    trial.check_counted()
    trial.label(40, 200, stable=9, candidate=2)
    assert yard.until("rolled back", "promoted", "watching", model=DOWN) == "rolled back"
    assert waited(lambda: not any(trial.ask()))
    told = yard.history(DOWN)
    assert [(d["action"], d["share"]) for d in told] == [
        ("start", 0.5), ("reweigh", pytest.approx(0.05)), ("roll back", 0.0),
    ]  # fmt: skip
    assert told[1]["why"].startswith("better with a chance of 0.0")
    assert told[1]["why"].endswith(": 20 of 40 were a success against 32 of 40")
    assert told[2]["why"].startswith("labels (wrong): ")
