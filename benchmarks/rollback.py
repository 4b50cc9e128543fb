"""How long a bad version goes on answering: from the event that decides about it to weight 0 in every worker.

python benchmarks/rollback.py [--times 50] [--postgres] [--workers 2]

A server of two workers is under load, and has a canary of 20 %, which begins to fail on every request at some moment.
The deciding event is the failure with which the guard's threshold is crossed: as nothing else fails, that is the n-th,
which can be told in advance. For a person's rollback it is the end of the command's transaction. What is measured ends
with the canary's last answer, whichever worker gave it, so that it also has the way of that answer in it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import canaries
import postgres
from modelyard.registry.evidence import Evidence, Stratum
from modelyard.registry.plans import Plan
from modelyard.registry.tallies import Counts
from modelyard.rollouts import weighing
from receivers import waited
from rolling import Answer, Load, Rolling

SHARE = 0.2


def threshold(plan: Plan) -> int:
    """The canary's failure, by its number, with which its rollback is decided, where no other request fails."""
    for number in itertools.count(1):
        strata = {str(SHARE): Stratum(candidate=Counts(requests=number, errors=number))}
        found = weighing.find("errors", plan, Evidence(strata=strata))
        if found.log_e >= found.needed:
            return number
    raise AssertionError


def seconds_of(moment: str) -> float:
    return dt.datetime.fromisoformat(moment).timestamp()


class Inputs:
    """What is asked: ordinary inputs, or odd ones."""

    def __init__(self) -> None:
        self.are_odd = False

    def __call__(self) -> float:
        return random.random() * canaries.ODD if self.are_odd else random.uniform(canaries.ODD, 1.0)


def settled(load: Load) -> None:
    """Until what was decided is in force for long enough to be sure of it."""
    time.sleep(2.0)
    assert not load.dropped, load.dropped[:3]


def begin(yard: Rolling, number: int) -> None:
    """A rollout, for long enough to be at rest."""
    words = ("--canary", f"{SHARE:.0%}", "--guard", "errors", "--stage", "600s")
    yard.cli("rollout", "start", "m", "--to", str(number), *words)
    assert waited(lambda: yard.registry.rollouts.of("m").evidence.exposure.requests > 100, 60)
    time.sleep(random.random())


def by_guard(yard: Rolling, load: Load, inputs: Inputs, number: int) -> dict[str, float]:
    """One rollout that the guard ends."""
    since = len(load.answers)
    begin(yard, number)
    inputs.are_odd = True
    assert waited(lambda: yard.state() == "rolled back", 60)
    settled(load)
    inputs.are_odd = False
    rollout = yard.registry.rollouts.latest("m")
    decided = yard.registry.rollouts.decisions(rollout.id)[-1]
    tally = max(yard.registry.tallies.after(rollout.id, 0), key=lambda t: (t.id <= rollout.position, t.id))
    failures = sorted(answer.moment for answer in load.answers[since:] if answer.status != 200)
    event = failures[threshold(rollout.plan) - 1]
    return {
        "counted": seconds_of(tally.moment) - event,
        "decided": seconds_of(decided.moment) - event,
        "in all": failures[-1] - event,
        "failures after it": len(failures) - threshold(rollout.plan),
    }


def by_person(yard: Rolling, load: Load, inputs: Inputs, number: int) -> dict[str, float]:
    """One rollout that a person ends."""

    def is_canary(answer: Answer) -> bool:
        return answer.prediction is not None and abs(answer.prediction - canaries.truth(answer.x)) > 0.1

    since = len(load.answers)
    begin(yard, number)
    yard.registry.rollback("m")
    event = time.time()
    settled(load)
    last = max(answer.moment for answer in load.answers[since:] if is_canary(answer))
    return {"in all": last - event}


@contextmanager
def registry(is_postgres: bool, folder: Path) -> Iterator[str]:
    if not is_postgres:
        yield ""
        return
    from registries import new_schema

    programs = postgres.find_programs()
    assert isinstance(programs, Path), programs
    place = folder / "postgres"
    place.mkdir()
    folder.chmod(0o755)
    server = postgres.start(programs, place)
    try:
        with new_schema(f"postgresql://postgres@/postgres?host={place}") as url:
            yield url
    finally:
        server.terminate()
        server.wait()


def show(name: str, found: list[dict[str, float]]) -> None:
    print(f"\n{name}: {len(found)} times")
    for what in found[0]:
        values = np.array([each[what] for each in found])
        p50, p90, p99 = np.quantile(values, [0.5, 0.9, 0.99])
        unit = "" if what.startswith("failures") else " s"
        print(f"  {what:18} median {p50:.3g}{unit}, 90 % {p90:.3g}, 99 % {p99:.3g}, most {values.max():.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    measured: list[tuple[str, str, Callable[[Rolling, Load, Inputs, int], dict[str, float]]]] = [
        ("the guard takes it back", "failing", by_guard), ("a person takes it back", "shifted", by_person),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MODELYARD_HOME"] = str(folder / "home")
        with registry(options.postgres, folder) as url:
            yard = Rolling(folder, url, workers=options.workers)
            try:
                for what, kind, measure in measured:
                    number = yard.add(kind)
                    inputs = Inputs()
                    load = yard.start_load(rows=inputs)
                    begun, before = time.monotonic(), len(load.answers)
                    show(what, [measure(yard, load, inputs, number) for _ in range(options.times)])
                    rate = (len(load.answers) - before) / (time.monotonic() - begun)
                    print(f"  {rate:,.0f} requests a second, none dropped: {not load.dropped}")
            finally:
                yard.close()


if __name__ == "__main__":
    main()
