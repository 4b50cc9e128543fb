"""The guard: what it takes back, what it lets go on, and what it says where it cannot know."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from modelyard.registry.plans import CANARY, SHADOW, STABLE, Plan, Rollout, Scores, Stage
from modelyard.registry.tallies import Counts, Labels, Pairs, Tally
from modelyard.rollouts import guard, weighing
from recorders import Recorder

ALL = ("errors", "invalid", "latency", "scores", "labels")
TOLERANCES = {"errors": 0.02, "invalid": 0.02, "latency": 0.05, "scores": 0.05, "labels": 0.05, "disagreement": 0.1}
SCORES = Scores(field="p", edges=tuple(i / 10 for i in range(1, 10)))


def begun(*stages: Stage, guards: tuple[str, ...] = ("errors",), **plan: Any) -> Rollout:
    """A rollout at its first stage."""
    given = {"stage_seconds": 10.0, "scores": SCORES, "tolerances": {g: TOLERANCES[g] for g in guards}, **plan}
    stages = stages or (Stage(0.1),)
    made = Plan(stages=stages, guards=guards, **given)
    chances = {1: stages[0].chance}
    return Rollout(id=1, model="churn", stable=1, candidate=2, plan=made, share=stages[0].share, chances=chances)


def after(
    rollout: Rollout, recorder: Recorder, tallies: int = 100, requests: int = 200
) -> tuple[Rollout, guard.Verdict]:
    """The rollout once the guard has something to say, or after all of the tallies."""
    verdict = guard.judge(rollout)
    for _ in range(tallies):
        rollout, verdict = guard.follow(rollout, recorder.tally(rollout, requests))
        if verdict.action != "continue":
            break
    return rollout, verdict


def fed(rollout: Rollout, tally: Tally) -> Rollout:
    return guard.follow(rollout, tally)[0]


def test_a_good_candidate_is_promoted_on_a_positive_claim() -> None:
    rollout, verdict = after(begun(guards=ALL), Recorder(labelled=0.2), tallies=400)
    assert (verdict.action, verdict.why) == (
        "promote", "the harm that a share of 100% could do is shown to be tolerable"
    )  # fmt: skip
    asked = [f for f in verdict.findings if f.guard != "labels"]
    assert all(finding.is_tolerable for finding in asked)
    full = {f.guard: f for f in guard.explain(rollout).findings}
    assert full["errors"].at_most is not None and full["errors"].at_most < 0.02


BAD: dict[str, dict[str, Any]] = {
    "errors": {"errors": 0.1},
    "invalid": {"invalid": 0.1},
    "latency": {"slow95": 0.2, "slow99": 0.1},
    "scores": {"scores": [0.02] * 5 + [0.18] * 5},
    "labels": {"wrong": 0.4},
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_candidate_is_taken_back_by_the_guard_that_sees_it(what: str) -> None:
    rollout, verdict = after(begun(guards=ALL), Recorder(candidate=BAD[what], labelled=0.5), tallies=200)
    assert verdict.action == "roll back"
    assert verdict.why.startswith(what)
    assert "needed" in verdict.why and "against" in verdict.why
    worst = max(verdict.findings, key=lambda f: f.log_e - f.needed)
    assert (worst.guard, worst.bad > 0) == (what, True)
    assert rollout.evidence.exposure.requests > 0


def test_too_little_traffic_is_not_enough_evidence() -> None:
    _, verdict = after(begun(guards=ALL), Recorder(), tallies=45, requests=20)
    assert verdict.action == "continue"
    assert verdict.why.startswith(
        "not enough evidence yet that the harm is tolerable: errors, invalid, latency, scores"
    )


def test_no_traffic_never_promotes_whatever_is_tolerated() -> None:
    rollout = begun(stage_seconds=0.0, tolerances={"errors": 1.0})
    assert guard.judge(rollout).action == "continue"
    recorder = Recorder()
    for n in range(100):
        tally = recorder.tally(rollout, 0)
        rollout = fed(rollout, tally)
        assert guard.judge(rollout).action == "continue", n
    for by in ("evidence", "schedule"):
        ramp = begun(Stage(0.1), Stage(0.5), by=by, stage_seconds=0.0, tolerances={"errors": 1.0})
        assert after(ramp, Recorder(), tallies=50, requests=0)[1].action == "continue"


def test_requests_that_never_reach_the_candidate_end_it() -> None:
    rollout, recorder = begun(), Recorder()
    for _ in range(100):
        arms = {STABLE: Counts(requests=20), CANARY: Counts()}
        rollout = fed(rollout, recorder.tally(rollout, 0, arms=arms))
    verdict = guard.judge(rollout)
    assert (verdict.action, verdict.why) == (
        "abort", "0 of 2,000 requests reached version 2, and the route gives it 10%"
    )  # fmt: skip


def test_clients_that_never_reach_the_candidate_end_it() -> None:
    """A few that happen to stick to the stable version show nothing, however much they ask for."""
    rollout, recorder = begun(key="header:x"), Recorder()
    few = {STABLE: Counts(requests=10_000, clients=30), CANARY: Counts()}
    many = {STABLE: Counts(requests=10_000, clients=300), CANARY: Counts()}
    for _ in range(60):
        rollout = fed(rollout, recorder.tally(rollout, 0, arms=few))
        few = {STABLE: Counts(requests=10_000), CANARY: Counts()}
    assert guard.judge(rollout).action == "continue"
    rollout = fed(rollout, recorder.tally(rollout, 0, arms=many))
    assert guard.judge(rollout).why == "0 of 330 clients reached version 2, and the route gives it 10%"


def test_a_split_that_is_not_the_routes_ends_it() -> None:
    """One of two servers could not load the candidate: comparing arms by the route's share would be wrong."""
    rollout, recorder = begun(), Recorder()
    rollout = fed(
        rollout, recorder.tally(rollout, 0, arms={STABLE: Counts(requests=9500), CANARY: Counts(requests=500)})
    )
    assert guard.judge(rollout).why == "500 of 10,000 requests reached version 2, and the route gives it 10%"
    fair = fed(begun(), recorder.tally(begun(), 0, arms={STABLE: Counts(requests=9050), CANARY: Counts(requests=950)}))
    assert guard.judge(fair).action == "continue"


def test_harm_that_begins_late_is_found_soon() -> None:
    """After a long good time what was bet on harm is lost; what was kept back is not."""
    rollout, recorder = begun(Stage(0.5), stage_seconds=1e9), Recorder()
    rollout, verdict = after(rollout, recorder, tallies=100, requests=100_000)
    assert verdict.action == "continue"
    (finding,) = verdict.findings
    assert rollout.evidence.restarts["errors"].number > 3
    assert finding.log_e > -8
    recorder.rates[CANARY]["errors"] = 0.05
    late, verdict = after(rollout, recorder, tallies=300, requests=100)
    assert verdict.action == "roll back"
    served = sum(s.candidate.requests for s in late.evidence.strata.values())
    assert served - sum(s.candidate.requests for s in rollout.evidence.strata.values()) < 10_000
    (finding,) = verdict.findings
    assert finding.bad / finding.n > finding.stable_bad / finding.stable_n, "what began is told, not what was"


def test_all_that_is_bet_is_no_more_than_there_is() -> None:
    from modelyard.rollouts import weighing

    assert weighing._AT_ONCE + sum(weighing._part(n) for n in range(1, 100_000)) == pytest.approx(1.0, abs=1e-5)
    assert guard.judge(begun()).findings[0].log_e == pytest.approx(0.0, abs=1e-9), "nothing was seen yet"


def test_an_outage_of_both_arms_is_no_harm() -> None:
    rollout, recorder = begun(), Recorder()
    rollout, verdict = after(rollout, recorder, tallies=20)
    recorder.rates[STABLE]["errors"] = recorder.rates[CANARY]["errors"] = 0.5
    rollout, verdict = after(rollout, recorder, tallies=20)
    assert verdict.action == "continue"
    recorder.rates[STABLE]["errors"] = recorder.rates[CANARY]["errors"] = 0.01
    _, verdict = after(rollout, recorder, tallies=400)
    assert verdict.action in ("continue", "promote")


def test_a_shadows_answers_count_though_they_come_after_the_others() -> None:
    """With little traffic, or a slow shadow, each is in a tally of its own."""
    rollout, recorder = begun(Stage(1.0, "shadow"), goal="pass"), Recorder()
    for _ in range(100):
        for arms in ({STABLE: Counts(requests=1)}, {SHADOW: Counts(requests=1, errors=1)}):
            rollout, verdict = guard.follow(rollout, recorder.tally(rollout, 0, arms=arms))
        if verdict.action != "continue":
            break
    (finding,) = verdict.findings
    assert verdict.action == "roll back"
    assert (finding.bad, finding.n, finding.stable_bad) == (finding.n, finding.stable_n, 0)
    assert set(rollout.evidence.strata) == {"0.5 copied"}, "what is compared is parted as the copies were"


def test_a_few_copies_of_many_requests_count() -> None:
    rollout, recorder = begun(Stage(0.0001, "shadow"), goal="pass"), Recorder()
    arms = {STABLE: Counts(requests=10_000), SHADOW: Counts(requests=1, errors=1)}
    for _ in range(10):
        rollout, verdict = guard.follow(rollout, recorder.tally(rollout, 0, arms=arms))
        if verdict.action != "continue":
            break
    assert verdict.action == "roll back"


def test_a_candidate_that_cannot_be_served_ends_it() -> None:
    rollout = begun()
    rollout = fed(rollout, Recorder().tally(rollout, 10, failed={CANARY: "no such operator: Foo"}))
    verdict = guard.judge(rollout)
    assert (verdict.action, verdict.why) == ("abort", "version 2 cannot be served: no such operator: Foo")


def test_a_ramp_goes_on_when_what_the_next_stage_could_do_is_tolerable() -> None:
    """Each stage needs less than the next: at 1 % little has to be shown to go on to 5 %."""
    rollout, recorder = begun(Stage(0.01), Stage(0.05), Stage(0.25), Stage(0.5)), Recorder()
    needed = []
    for stage in range(4):
        rollout, verdict = after(rollout, recorder, tallies=2000, requests=500)
        assert verdict.action == ("advance" if stage < 3 else "promote")
        needed.append(sum(s.candidate.requests for s in rollout.evidence.strata.values()))
        if stage < 3:
            share = rollout.plan.stages[stage + 1].share
            rollout = msgspec.structs.replace(
                rollout, stage=stage + 1, share=share, chances={**rollout.chances, stage + 2: share},
                evidence=rollout.evidence.at_new_stage(),
            )  # fmt: skip
    assert needed == sorted(needed)
    assert needed[0] < needed[-1] / 5
    assert set(rollout.evidence.strata) == {"0.01", "0.05", "0.25", "0.5"}


def test_a_schedule_goes_on_by_time_but_takes_over_only_by_evidence() -> None:
    _, verdict = after(begun(Stage(0.1), Stage(0.5), by="schedule"), Recorder(), tallies=60, requests=60)
    assert verdict.action == "advance"
    assert verdict.why == "10 s are over, and no harm was shown"
    last = begun(Stage(0.1), by="schedule")
    _, verdict = after(last, Recorder(), tallies=60, requests=20)
    assert verdict.action == "continue"


def test_a_stage_takes_its_time() -> None:
    rollout, verdict = after(begun(stage_seconds=1000.0), Recorder(), tallies=200, requests=2000)
    assert (verdict.action, verdict.why) == (
        "continue",
        "not enough evidence yet: a stage takes at least 50 requests to version 2 and 1000 s of traffic",
    )
    assert rollout.evidence.seconds == pytest.approx(199 * 0.25)


def test_clocks_that_jump_neither_shorten_nor_lengthen_a_stage_by_much() -> None:
    rollout, recorder = begun(), Recorder()
    for jump in (0.25, 86_400.0, 0.25, -86_400.0 * 365, 0.25, 0.25):
        rollout = fed(rollout, recorder.tally(rollout, 100, seconds=jump))
    assert 0.75 <= rollout.evidence.seconds <= 0.75 + guard.LONGEST_GAP


def test_two_recorders_do_not_make_time_pass_twice() -> None:
    rollout = begun()
    here, there = Recorder(source="here"), Recorder(source="there", seed=1)
    for _ in range(40):
        rollout = fed(fed(rollout, here.tally(rollout, 50)), there.tally(rollout, 50))
    assert rollout.evidence.seconds == pytest.approx(39 * 0.25)


def test_tallies_of_older_revisions_count_at_their_own_share() -> None:
    rollout = msgspec.structs.replace(begun(Stage(0.1), Stage(0.5)), stage=1, share=0.5, chances={1: 0.1, 2: 0.5})
    recorder = Recorder()
    rollout = fed(rollout, recorder.tally(rollout, 1000, revision=1))
    assert list(rollout.evidence.strata) == ["0.1"]
    assert (rollout.evidence.candidate, rollout.evidence.stable) == (0, 0), "it says nothing about this stage"
    unknown = fed(rollout, recorder.tally(rollout, 1000, revision=99))
    assert unknown.evidence.strata == rollout.evidence.strata, "what no route of this rollout parted is not compared"


def test_a_paused_rollout_stays_but_is_still_taken_back() -> None:
    rollout = msgspec.structs.replace(begun(), state="paused")
    _, verdict = after(rollout, Recorder(), tallies=400)
    assert (verdict.action, verdict.why) == ("continue", "paused: it stays at this share")
    _, verdict = after(rollout, Recorder(candidate={"errors": 0.2}), tallies=100)
    assert verdict.action == "roll back"


def watching(**plan: Any) -> Rollout:
    rollout, verdict = after(begun(guards=("errors", "labels"), watch_seconds=600.0, **plan), Recorder(), tallies=400)
    assert verdict.action == "promote"
    return msgspec.structs.replace(rollout, state="watching", share=1.0)


def labels(rollout: Rollout, n: int, wrong: int, stable_wrong: int) -> Rollout:
    """The truth about predictions that were made before the promotion."""
    arms = {STABLE: Counts(labels=Labels(9 * n, stable_wrong)), CANARY: Counts(labels=Labels(n, wrong))}
    return fed(rollout, Recorder().tally(rollout, 0, arms=arms, revision=1))


def test_labels_may_still_roll_a_promoted_candidate_back() -> None:
    rollout = watching()
    assert guard.judge(rollout).action == "continue"
    rollout = labels(rollout, 200, 60, 180)
    verdict = guard.judge(rollout)
    assert (verdict.action, verdict.why.split(":")[0]) == ("roll back", "labels (wrong)")


def test_watching_ends_with_good_labels_or_with_the_time() -> None:
    good = labels(watching(), 3000, 300, 2700)
    assert (guard.judge(good).action, guard.judge(good).why) == (
        "pass", "the labels show that the harm is tolerable"
    )  # fmt: skip
    late = watching()
    late = msgspec.structs.replace(late, evidence=msgspec.structs.replace(late.evidence, watched=601.0))
    assert guard.judge(late).why == "the time to watch it is over, and no harm was shown"


def test_labels_are_waited_for_where_nothing_else_is_watched() -> None:
    rollout = begun(guards=("labels",))
    _, verdict = after(rollout, Recorder(labelled=0.0), tallies=100)
    assert verdict.why == "not enough evidence yet that the harm is tolerable: labels"
    _, verdict = after(rollout, Recorder(labelled=1.0), tallies=400)
    assert verdict.action == "promote"


SHADOWED = ("errors", "scores", "disagreement")


def test_a_good_shadow_passes_and_answers_nothing() -> None:
    rollout = begun(Stage(0.5, "shadow"), guards=SHADOWED, goal="pass")
    recorder, verdict = Recorder(), guard.judge(rollout)
    for _ in range(400):
        tally = recorder.tally(rollout, 200)
        rollout = fed(rollout, msgspec.structs.replace(tally, pairs=Pairs(100, 2, 0, 0)))
        verdict = guard.judge(rollout)
        if verdict.action != "continue":
            break
    assert verdict.action == "pass"
    assert rollout.evidence.exposure.requests == 0, "nobody was served by it"


def test_a_shadow_that_answers_otherwise_or_fails_is_ended() -> None:
    rollout = begun(Stage(0.5, "shadow"), guards=SHADOWED, goal="pass")
    tally = Recorder().tally(rollout, 400)
    differs = fed(rollout, msgspec.structs.replace(tally, pairs=Pairs(200, 60, 0, 0)))
    verdict = guard.judge(differs)
    assert (verdict.action, verdict.why.split(";")[0]) == ("roll back", "disagreement: 60 of 200")
    _, verdict = after(rollout, Recorder(candidate={"errors": 0.1}))
    assert (verdict.action, verdict.why.split(":")[0]) == ("roll back", "errors")


def test_copies_that_were_never_made_look_neither_good_nor_bad() -> None:
    """Under load a server drops copies: half as many errors of half as many copies are as many."""
    rollout = begun(Stage(1.0, "shadow"), guards=("errors",), goal="pass")
    for _ in range(50):
        arms = {STABLE: Counts(requests=1000, errors=50), "shadow": Counts(requests=200, errors=10)}
        rollout = fed(rollout, Recorder().tally(rollout, 0, arms=arms))
    (finding,) = guard.explain(rollout).findings
    assert list(rollout.evidence.strata) == ["0.17 copied"]
    assert finding.harm == pytest.approx(0.0)
    assert finding.at_most is not None and finding.at_most > 0.0025, "nothing was gained by dropping them"


def test_the_time_of_copies_says_nothing() -> None:
    """They wait until there is room, whatever their version."""
    rollout = begun(Stage(1.0, "shadow"), Stage(0.1), guards=("errors", "latency"))
    slow = {"shadow": Counts(requests=1000, slow95=900), STABLE: Counts(requests=1000, slow95=50)}
    rollout = fed(rollout, Recorder().tally(rollout, 0, arms=slow))
    verdict = guard.judge(rollout)
    assert [(f.guard, f.n) for f in verdict.findings] == [("errors", 1000), ("latency", 0)]
    recorder = Recorder()
    _, verdict = after(rollout, recorder, tallies=400)
    assert verdict.action == "advance", "the next stage finds out"


def test_labels_of_copies_count_by_how_many_there_are() -> None:
    rollout = begun(Stage(1.0, "shadow"), guards=("labels",), goal="pass")
    arms = {STABLE: Counts(labels=Labels(300, 30)), "shadow": Counts(labels=Labels(100, 10))}
    rollout = fed(rollout, Recorder().tally(rollout, 0, arms=arms))
    assert list(rollout.evidence.strata) == ["0.25 copied"]
    assert rollout.evidence.strata["0.25 copied"].candidate.labels == Labels(100, 10)


def test_a_stage_does_not_age_by_labels() -> None:
    rollout = begun(Stage(0.1), guards=("errors", "labels"))
    recorder = Recorder(source="labels")
    for _ in range(3):
        arms = {STABLE: Counts(labels=Labels(9, 1)), CANARY: Counts(labels=Labels(1, 0))}
        rollout = fed(rollout, recorder.tally(rollout, 0, seconds=50.0, arms=arms))
    assert rollout.evidence.seconds == 0
    assert rollout.evidence.strata["0.1"].stable.labels == Labels(27, 3)


def test_labels_of_pairs_are_a_sign_test() -> None:
    rollout = begun(Stage(1.0, "shadow"), guards=("labels",), goal="pass")
    tally = Recorder().tally(rollout, 0, arms={}, pairs=Pairs(1000, 60, 45, 15))
    (finding,) = guard.judge(fed(rollout, tally)).findings
    fair = fed(rollout, msgspec.structs.replace(tally, pairs=Pairs(1000, 60, 30, 30)))
    assert finding.log_e > math.log(100) > 0 > guard.judge(fair).findings[0].log_e


def experiment(**plan: Any) -> Rollout:
    return begun(Stage(0.5), guards=("errors", "labels"), judge="outcome", key="header:x", **plan)


def sticky(rollout: Rollout, recorder: Recorder, clients: int) -> Rollout:
    tally = recorder.tally(rollout, clients)
    arms = {name: msgspec.structs.replace(each, clients=each.requests) for name, each in tally.arms.items()}
    return fed(rollout, msgspec.structs.replace(tally, arms=arms))


@pytest.mark.parametrize(("wrong", "action"), [(0.3, "promote"), (0.5, "continue"), (0.7, "roll back")])
def test_an_experiment_is_decided_by_its_outcome(wrong: float, action: str) -> None:
    recorder = Recorder(stable={"wrong": 0.5}, candidate={"wrong": wrong}, labelled=0.5, seed=3)
    rollout = experiment()
    for _ in range(100):
        rollout = sticky(rollout, recorder, 20)
        verdict = guard.judge(rollout)
        if verdict.action != "continue":
            break
    assert verdict.action == action
    if action == "promote":
        ours, theirs = weighing.outcomes(rollout.evidence)
        told = f"{ours.n - ours.wrong} of {ours.n} were a success against {theirs.n - theirs.wrong} of {theirs.n}"
        assert verdict.why.startswith(f"its outcomes are shown to be better: {told}, ")
    full = guard.explain(rollout)
    (between,) = [finding.between for finding in full.findings if finding.guard == "labels"]
    assert between is not None and between[0] < wrong - 0.5 < between[1]
    assert (between[1] < 0, between[0] > 0) == (action == "promote", action == "roll back")
    low, high = (f"{0 - round(bound * 100, 1):.1f}" for bound in reversed(between))
    assert (f", {low} to {high} points more" in full.why) is (action != "roll back")


def test_a_bandit_tells_no_interval_because_shares_and_rates_may_move_together() -> None:
    rollout, recorder = begun(Stage(0.5), guards=("labels",), judge="bandit", key="header:x"), Recorder(labelled=0.5)
    for _ in range(20):
        rollout = sticky(rollout, recorder, 20)
    assert all(finding.between is None for finding in guard.explain(rollout).findings)
    assert " points more" not in guard.explain(rollout).why


def test_clients_that_stick_are_the_trials() -> None:
    rollout = sticky(experiment(), Recorder(), 100)
    (finding, _) = guard.judge(rollout).findings
    assert finding.n + finding.stable_n == 100
    more = Recorder().tally(rollout, 1000)
    again = fed(rollout, msgspec.structs.replace(more, arms={CANARY: Counts(requests=1000)}))
    assert guard.judge(again).findings[0].n == finding.n, "requests of clients that are known already"


def test_alpha_is_shared_by_all_guards() -> None:
    plan = begun(guards=ALL).plan
    assert sum(plan.level(each) for each in ALL) == pytest.approx(plan.alpha)
    assert begun(guards=("labels",)).plan.level("labels") == plan.alpha


@pytest.mark.parametrize("base", [0.01, 0.05])
def test_few_that_are_no_worse_are_taken_back(base: float) -> None:
    """Three hundred rollouts that are looked at all the time, with a chance of a false alarm of one in twenty."""
    back = 0
    for seed in range(300):
        rollout = begun(guards=("errors", "latency"), alpha=0.05, stage_seconds=1e9)
        recorder = Recorder(seed, stable={"errors": base})
        _, verdict = after(rollout, recorder, tallies=40, requests=300)
        back += verdict.action == "roll back"
    assert back <= 300 * 0.05


def test_scores_that_only_differ_a_little_are_no_harm() -> None:
    """Another model has other scores: only what breaks the tolerance is taken back."""
    shares = [0.11, 0.09] * 5
    rollout, verdict = after(begun(guards=("scores",)), Recorder(candidate={"scores": shares}), tallies=1000)
    assert verdict.action == "promote"
    assert rollout.evidence.strata["0.1"].candidate.requests > 1000
