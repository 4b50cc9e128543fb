"""Answers that are given again: what makes two requests the same, and how much is kept."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np
import pytest

from modelyard.messages import Request
from modelyard.schema import Columns, Field, Layout
from modelyard.serving.cache import AnswerCache

INPUTS = Layout.of((Field(name="x", dtype="float64"), Field(name="t", dtype="string", nullable=True)))
OUTPUTS = Layout.of((Field(name="prediction", dtype="float64"),))


def outputs(*values: float) -> Columns:
    return OUTPUTS.from_arrays({"prediction": list(values)})


def tuples(*rows: tuple[Any, ...], parameters: dict[str, Any] | None = None) -> Request:
    return Request(len(rows), list(rows), parameters=parameters)


def columns(x: list[float], t: list[str | None]) -> Request:
    return Request(len(x), None, INPUTS.from_arrays({"x": x, "t": t}))


def test_only_what_is_exactly_the_same_has_one_key() -> None:
    cache = AnswerCache(1 << 20)
    requests = [
        tuples((1.0, "a")), tuples((1.0, None)), tuples((1.0, "")), tuples((1.0, "a"), (1.0, "a")), tuples((2.0, "a")),
        tuples((1.0, "a"), parameters={"k": 1}), tuples((1.0, "a"), parameters={"k": 2}),
        columns([1.0, 2.0], ["a", "b"]), columns([2.0, 1.0], ["a", "b"]), columns([1.0, 2.0], ["a", None]),
    ]  # fmt: skip
    keys = [cache.key("d", request) for request in requests]
    assert len(set(keys)) == len(keys)
    assert cache.key("d", tuples((1.0, "a"))) == keys[0]
    assert cache.key("d", columns([1.0, 2.0], ["a", "b"])) == keys[7]
    assert cache.key("other", requests[0]) != keys[0]


@pytest.mark.parametrize("ways", [(0.0, -0.0), (math.nan, math.inf, -math.inf, None, "nan"), (True, "true")], ids=str)
def test_what_only_looks_the_same_has_keys_of_its_own(ways: tuple[Any, ...]) -> None:
    cache = AnswerCache(1 << 20)
    for requests in ([tuples((each, "a")) for each in ways], [tuples(([1.0, each],)) for each in ways]):
        assert len({cache.key("d", request) for request in requests}) == len(ways)
    signed = [columns([0.0], ["a"]), columns([-0.0], ["a"])]
    assert len({cache.key("d", request) for request in signed}) == 2


def test_a_missing_value_is_found_again() -> None:
    cache = AnswerCache(1 << 20)
    first, again = (cache.key("d", tuples((float("nan"), "a" * each))) for each in (1, 1))
    assert first == again


def test_fields_with_a_shape_have_keys_too() -> None:
    cache = AnswerCache(1 << 20)
    assert cache.key("d", tuples(([1.0, 2.0],))) == cache.key("d", tuples(([1.0, 2.0],)))
    assert cache.key("d", tuples(([1.0, 2.0],))) != cache.key("d", tuples(([2.0, 1.0],)))


def test_what_is_kept_is_a_copy() -> None:
    cache, answer = AnswerCache(1 << 20), outputs(1.0)
    key = cache.key("d", tuples((1.0, "a")))
    cache.put(key, 2, answer)
    answer.blocks[0][:] = 7.0
    found = cache.get(key)
    assert found is not None and found["prediction"].tolist() == [1.0]
    assert (cache.hits, cache.misses) == (1, 0)


def test_it_is_bounded_and_forgets_what_was_longest_not_asked_for() -> None:
    cache = AnswerCache(20_000)
    keys = [cache.key("d", tuples((float(i), "a"))) for i in range(100)]
    for key in keys:
        cache.get(keys[0])
        cache.put(key, 2, outputs(1.0))
        assert cache.bytes <= 20_000
    assert cache.get(keys[0]) is not None and cache.get(keys[1]) is None and cache.get(keys[-1]) is not None
    assert 10 < len(cache) < 30


def test_one_large_answer_does_not_push_out_the_others() -> None:
    cache = AnswerCache(20_000)
    small, large = cache.key("d", tuples((1.0, "a"))), cache.key("d", columns([0.0] * 1000, ["a"] * 1000))
    cache.put(small, 2, outputs(1.0))
    cache.put(large, 2000, OUTPUTS.from_arrays({"prediction": np.zeros(1000)}))
    assert cache.get(large) is None and cache.get(small) is not None


@pytest.mark.parametrize("digest", ["d", "e"])
def test_a_version_that_goes_takes_its_answers_along(digest: str) -> None:
    cache = AnswerCache(1 << 20)
    for each in ("d", "e"):
        cache.put(cache.key(each, tuples((1.0, "a"))), 2, outputs(1.0))
        cache.put(cache.key(each, tuples((1.0, "a"))), 2, outputs(2.0))
    cache.forget(digest)
    assert len(cache) == 1 and cache.get(cache.key(digest, tuples((1.0, "a")))) is None
    cache.forget("d")
    cache.forget("e")
    assert cache.bytes == 0


def test_threads_do_not_stumble_over_each_other() -> None:
    """Answers are kept by the threads that computed them, while the loop looks for others and versions go."""
    cache, faults = AnswerCache(20_000), []

    def work(seed: int) -> None:
        try:
            for i in range(3000):
                key = cache.key("de"[i & 1], tuples((float((i * seed) % 97), "a")))
                if cache.get(key) is None:
                    cache.put(key, 2, outputs(1.0))
                if i % 50 == 0:
                    cache.forget("d")
        except Exception as error:
            faults.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 5, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not faults
    cache.forget("d")
    cache.forget("e")
    assert cache.bytes == 0


def test_over_a_socket(source: Any, serve: Any) -> None:
    from .conftest import linear
    from .test_request_path import ask

    source.add("m", linear(), "production")
    server = serve("m", cache=1 << 20)
    answers = [ask(server, "/predict", b'{"x1": 1.5, "x2": 2}', x_request_id=f"r{i}") for i in range(3)]
    assert [body for _, _, body in answers] == [
        b'{"prediction":6.5,"model":"m","version":1,"request_id":"r%d"}' % i for i in range(3)
    ]
    text = ask(server, "/metrics")[2]
    assert b'modelyard_cache_hits_total{model="m",version="1"} 2' in text
    assert b'modelyard_calls_total{model="m",version="1"} 1' in text
    source.promote("m", source.add("m", linear(10.0)))
    for _ in range(500):
        if b"65.0" in ask(server, "/predict", b'{"x1": 1.5, "x2": 2}')[2]:
            return
    raise AssertionError("the answers of the version before were given on")
