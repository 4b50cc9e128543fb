"""A round: one malformed conversation with a server, made from one number. It must end, and not by a fault of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from .mutations import spoil
from .seeds import Seed
from .talk import HELLO, Answer, Line, answers1, answers2, faults, http1, http2, pipelined, streamed
from .target import Target


def _values(target: Target, random: Random) -> list[Answer]:
    """A request whose values, fields and headers are changed, in good HTTP."""
    seed = spoil(random.choice(target.seeds), random)
    with Line(target.port) as line:
        if seed.is_grpc or random.random() < 0.1:
            line.send(HELLO + b"".join(http2(seed, 1)))
            return answers2(line.rest())
        line.send(http1(seed))
        return answers1(line.rest())


def _http1(target: Target, random: Random) -> list[Answer]:
    """Pipelined requests whose bytes are changed."""
    return answers1(_talk(target, pipelined(_some(target, random), random), random))


def _http2(target: Target, random: Random) -> list[Answer]:
    """Streams whose frames and bytes are changed."""
    return answers2(_talk(target, streamed(_some(target, random), random), random))


def _some(target: Target, random: Random) -> list[Seed]:
    seeds = [random.choice(target.seeds) for _ in range(random.randint(1, 4))]
    return [spoil(seed, random) if random.random() < 0.2 else seed for seed in seeds]


def _talk(target: Target, data: bytes, random: Random) -> bytes:
    """Send in pieces, and end in one way or another; what came back, where it was read to its end."""
    cuts = [random.randrange(1 << 16) for _ in range(random.choice((0, 0, 1, 2, 5)))]
    pause = random.choice((0.0, 0.0, 0.001)) if cuts else 0.0
    with Line(target.port) as line:
        line.send(data, cuts, pause)
        end = random.random()
        if end < 0.1:
            line.break_off()
            return b""
        if end < 0.2:
            return b""
        return line.rest()


ROUNDS: dict[str, Callable[[Target, Random], list[Answer]]] = {"values": _values, "http1": _http1, "http2": _http2}


def play(target: Target, how: str, number: int) -> Counter[int]:
    """Have one round; how many answers had each status, those of gRPC above 1000."""
    return outcome(ROUNDS[how](target, Random(number)))


def outcome(answers: list[Answer]) -> Counter[int]:
    """How many answers had each status. Raises AssertionError where one of them was a fault of ours."""
    assert not faults(answers), faults(answers)
    return Counter(each.status if each.grpc < 0 else 1000 + each.grpc for each in answers)
