"""Fire at servers with every wire for as long as told: ``fuzz.py --minutes 10 [--seed 1] [--only values,http1,http2]``.

Two servers in processes of their own get malformed requests of three kinds: values and fields of well-formed requests
changed; pipelined bytes in HTTP/1.1 and frames in HTTP/2 changed, cut anywhere, ended in every way. Between them,
well-formed requests must be answered as at first. Each round has its own seed, which is printed with what went wrong;
``--round`` repeats one. ``--good 1000000`` looks for leaks. ``--described`` has schemathesis ask what the description
of our API allows and forbids, for as long.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fuzzing.described import examine
from fuzzing.rounds import ROUNDS, play
from fuzzing.target import Target


def main() -> int:
    reading = argparse.ArgumentParser(description=__doc__)
    reading.add_argument("--minutes", type=float, default=10)
    reading.add_argument("--seed", type=int, default=1)
    reading.add_argument("--only", default=",".join(ROUNDS))
    reading.add_argument("--round", default="", help="a single round, as it was printed: mixed/values/17")
    reading.add_argument("--keep-going", action="store_true", help="start anew after a fault, to find others")
    reading.add_argument("--good", type=int, default=0, help="well-formed requests instead, and the memory they take")
    reading.add_argument("--described", action="store_true", help="schemathesis instead, on our own description")
    told = reading.parse_args()
    if told.described:
        return describe(told.minutes * 60, told.seed)
    if told.good:
        return soak(told.good)
    if told.round:
        kind, how, number = told.round.split("/")
        plan = iter([(kind, how, int(number))])
    else:
        kinds = told.only.split(",")
        plan = (
            (kind, how, n) for n in range(told.seed * 1_000_000, 10**12) for how in kinds for kind in ("mixed", "pair")
        )
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    targets = {kind: Target(kind, folder / f"{kind}.log") for kind in ("mixed", "pair")}
    counts: Counter[str] = Counter()
    wrong = 0
    until = time.monotonic() + told.minutes * 60
    noted = time.monotonic()
    print(f"logs in {folder}")
    for kind, how, number in plan:
        if time.monotonic() > until:
            break
        name = f"{kind}/{how}/{number}"
        try:
            counts.update({f"{how} {status}": n for status, n in play(targets[kind], how, number).items()})
            targets[kind].check(number)
            if number % 1000 == 999:
                targets[kind].check_let_go()
        except (AssertionError, TimeoutError) as error:
            wrong += 1
            print(f"--round {name}: {type(error).__name__}: {str(error)[:3000]}", flush=True)
            if not told.keep_going:
                break
            targets[kind].__exit__()
            targets[kind] = Target(kind, folder / f"{kind}{number}{how}.log")
        if time.monotonic() - noted > 30:
            noted = time.monotonic()
            print(f"{name}: {_sizes(targets)}", flush=True)
    for target in targets.values():
        if not wrong:
            target.check_let_go()
        target.__exit__()
    print(f"{wrong} faults; {_total(counts)}")
    return 1 if wrong else 0


def describe(seconds: float, seed: int) -> int:
    """Have schemathesis examine a server of several models and one that wants keys, each for half of the time."""
    found = ""
    for kind in ("several", "keyed"):
        folder = Path(tempfile.mkdtemp(prefix="fuzz"))
        with Target(kind, folder / "log") as target:
            found += examine(target, folder, "--seed", str(seed), "--max-time", str(max(1, round(seconds / 2))))
            for number in range(len(target.steady)):
                target.check(number)
            print(f"{kind}: {target.resident:.1f} MB", flush=True)
    print(found or "nothing was found")
    return 1 if found else 0


def soak(count: int) -> int:
    """Ask each server that many well-formed requests, and print what memory it has on the way."""
    for kind in ("mixed", "pair"):
        with Target(kind, Path(tempfile.mkdtemp(prefix="fuzz")) / "log") as target:
            done = 0
            for step in range(11):
                while done < count * step // 10:
                    done += target.check_all()
                print(f"{kind}: {done} requests, {target.resident:.1f} MB", flush=True)
    return 0


def _sizes(targets: dict[str, Target]) -> str:
    return ", ".join(f"{kind} {target.resident:.1f} MB" for kind, target in targets.items())


def _total(counts: Counter[str]) -> str:
    return f"{counts.total()} answers: " + ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
