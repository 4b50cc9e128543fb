"""Model processes: what a model does wrong stays in its own process, and each call gets an answer."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="models are packed")

import faulty
from modelyard.bundle import Bundle, pack
from modelyard.errors import BadBundle, ModelFailed, ModelyardError, NotReady, Refused
from modelyard.schema import Columns, check_outputs
from modelyard.serving.isolation import guard, remote
from modelyard.serving.isolation.frames import ProcessEnded
from modelyard.serving.isolation.keeper import Address, Keeper, Order
from modelyard.serving.isolation.remote import Remote
from modelyard.telemetry import Log
from receivers import until, waited

#: More than a call takes anywhere; and what a call that hangs is given.
SECONDS = 60.0
FEW_SECONDS = 1.0


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a replacement takes to start, here it is waited for."""
    monkeypatch.setattr(remote, "PATIENCE", 120.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    rows = {"order": np.zeros(20), "value": np.arange(20.0)}
    return pack(faulty.Faulty().fit(), tmp_path_factory.mktemp("faulty") / "bundle", sample=rows)


def order_for(bundle: Bundle, **options: Any) -> Order:
    return Order(path=str(bundle.path), digest=bundle.digest, trust=(bundle.digest,), **options)


class House:
    """A keeper, what it logs, and the processes of one bundle."""

    def __init__(self, bundle: Bundle, **options: Any) -> None:
        self.said = io.StringIO()
        self.log = Log("info", self.said)
        self.keeper = Keeper(self.log)
        self.bundle = bundle
        self.address = self.keeper.start(order_for(bundle, **options))
        self.remote = Remote(self.address, bundle.signature, SECONDS)

    def rows(self, *orders: int, value: float = 1.0) -> Columns:
        layout = self.bundle.signature.input_layout
        return layout.from_arrays({"order": [float(order) for order in orders], "value": [value] * len(orders)})

    def events(self) -> list[dict[str, Any]]:
        self.log.flush()
        return [json.loads(line) for line in self.said.getvalue().splitlines()]

    def processes(self) -> list[int]:
        """Those that live now."""
        return list(self.remote.processes)

    def close(self) -> None:
        self.remote.close()
        self.keeper.close()

    def wait_until_alive(self) -> None:
        assert waited(lambda: self.remote.is_alive), self.events()

    def wait_until_another(self, before: list[int]) -> None:
        """The parts of a process that is killed end one after another, and some still seem to answer meanwhile."""
        assert waited(lambda: self.processes() not in ([], before)), self.events()


@pytest.fixture(scope="module")
def house(bundle: Bundle) -> Iterator[House]:
    made = House(bundle)
    yield made
    made.close()


def call(house: House, *orders: int, seconds: float = SECONDS, **options: Any) -> Columns | BaseException:
    """One call on a loop."""

    async def once() -> Columns | BaseException:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        house.remote.call(house.rows(*orders), seconds, answer.set_result, **options)
        return await asyncio.wait_for(answer, 120)

    return asyncio.run(once())


def wait(house: House, *orders: int, **_: Any) -> Columns | BaseException:
    """One call of a thread, which waits as long as the house's way to the processes does."""
    try:
        return house.remote.predict(house.rows(*orders))
    except ModelyardError as error:
        return error


BOTH_WAYS = pytest.mark.parametrize("ask", [call, wait], ids=["loop", "thread"])


@BOTH_WAYS
def test_a_process_answers_as_the_model_does(house: House, ask: Callable[..., Any]) -> None:
    here = house.bundle.load(trust=_trust(house.bundle))
    for count in (1, 3, 50_000):  # the last is more than a socket holds
        found = ask(house, *[faulty.FINE] * count)
        assert np.array_equal(found["prediction"], here(house.rows(*[faulty.FINE] * count))["prediction"])


def test_no_seconds_set_no_bound(house: House) -> None:
    found = call(house, faulty.SLOW, seconds=0)
    assert isinstance(found, Columns)
    patient = Remote(house.address, house.bundle.signature, 0)
    assert patient.predict(house.rows(faulty.SLOW))["prediction"].tolist() == [2.0]
    patient.close()


def _trust(bundle: Bundle) -> Any:
    from modelyard.bundle import Trust

    return Trust.of(bundle.digest)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("order", "message"),
    [
        (faulty.RAISES, "the model failed: ValueError: these rows are not to my taste"),
        (faulty.SHORT, r"the model's prediction has shape \[1\]: expected \[2\]"),
        (faulty.LEAVES, "the model failed: SystemExit: 4"),
    ],
    ids=["raises", "too few rows", "sys.exit"],
)
def test_what_a_model_raises_is_told_and_the_process_stays(
    house: House, ask: Callable[..., Any], order: int, message: str
) -> None:
    before = house.processes()
    told = ask(house, order, faulty.FINE)
    assert isinstance(told, ModelFailed)
    with pytest.raises(ModelFailed, match=message):
        raise told
    assert house.processes() == before


def test_the_trace_of_a_model_comes_with_its_error(house: House) -> None:
    told = call(house, faulty.RAISES)
    assert isinstance(told, ModelFailed)
    assert "in _obey" in str(told.__cause__)


@BOTH_WAYS
def test_nan_and_printing_are_as_in_any_model(house: House, ask: Callable[..., Any]) -> None:
    assert np.isnan(check_outputs(ask(house, faulty.NAN), 1)["prediction"]).all()
    assert ask(house, faulty.TEXT)["prediction"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("ask", "order", "how"),
    [
        (call, faulty.EXITS, "exit 3"),
        (call, faulty.SEGFAULTS, "killed by Segmentation fault (11)"),
        (wait, faulty.KILLED, "killed by Killed (9)"),
    ],
    ids=["loop, os._exit", "loop, segfault", "thread, SIGKILL"],
)
def test_a_call_that_ends_its_process_twice_fails_and_the_process_is_replaced(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Any], order: int, how: str
) -> None:
    monkeypatch.setattr(guard, "BACK_OFF", (0.01, 0.01))
    house = House(bundle)
    try:
        told = ask(house, order)
        assert isinstance(told, ModelFailed)
        assert told.message == "the model's process ended under this call, and so did its replacement"
        assert isinstance(ask(house, faulty.FINE), (NotReady, Columns))  # at once, whichever it is
        house.wait_until_alive()
        assert ask(house, faulty.FINE)["prediction"].tolist() == [2.0]
        ended = [event["how"] for event in house.events() if event["event"] == "model process ended"]
        assert ended == [how, how]
    finally:
        house.close()


def test_a_call_that_may_not_be_made_again_ends_one_process_and_the_next_waits_for_another(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BACK_OFF", (0.01, 0.01))
    house = House(bundle)
    try:
        told = call(house, faulty.EXITS, again=False)
        assert isinstance(told, ProcessEnded)
        found = call(house, faulty.FINE, again=False, ended=time.perf_counter())
        assert isinstance(found, Columns)
        assert [event["event"] for event in house.events()].count("model process ended") == 1
    finally:
        house.close()


def test_a_replacement_is_not_waited_for_without_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 0.1)
    gone = Remote(Address("sha256:gone", ("/nowhere/0",)), house.bundle.signature, SECONDS)
    monkeypatch.setattr(house, "remote", gone)
    started = time.perf_counter()
    assert isinstance(call(house, faulty.FINE, ended=started), NotReady)
    assert time.perf_counter() - started > 0.1


@BOTH_WAYS
def test_a_call_that_hangs_is_ended_in_time_whatever_code_it_is_in(
    house: House, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hasty:
        hasty.setattr(house, "remote", Remote(house.address, house.bundle.signature, FEW_SECONDS))
        told = ask(house, faulty.HANGS, seconds=FEW_SECONDS)
        house.remote.close()
    assert isinstance(told, ModelFailed)
    assert told.message == "the model did not answer within 1 s; its process was replaced"
    house.wait_until_alive()
    assert ask(house, faulty.FINE)["prediction"].tolist() == [2.0]
    assert "a call took too long" in [event.get("how") for event in house.events()]


def test_a_process_that_outlasts_its_alarm_is_killed(bundle: Bundle) -> None:
    house = House(bundle)
    try:
        process = house.processes()[0]
        os.kill(process, signal.SIGSTOP)  # so stopped, it hears no alarm
        told = call(house, faulty.FINE, seconds=0.2)
        assert isinstance(told, ModelFailed)
        house.wait_until_another([process])
    finally:
        house.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what was not read yet")
def test_a_call_behind_long_ones_of_others_does_not_end_the_process(house: House) -> None:
    before = house.processes()
    other = Remote(house.address, house.bundle.signature, SECONDS)
    answers: list[Columns] = []
    rows = house.rows(faulty.LONG)
    busy = threading.Thread(target=lambda: answers.append(other.predict(rows)))
    busy.start()
    time.sleep(0.2)
    told = call(house, faulty.FINE, seconds=0.5)  # which is killed for after 2 s where nobody looks
    busy.join(60)
    other.close()
    assert isinstance(told, Columns) and len(answers) == 1
    assert house.processes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="the bound is kept by Linux")
def test_a_model_that_eats_memory_fails_and_its_process_is_replaced(bundle: Bundle) -> None:
    house = House(bundle, memory=1 << 30)
    try:
        told = call(house, faulty.EATS)
        assert isinstance(told, ModelFailed)
        assert "MemoryError" in told.message
        house.wait_until_alive()
        assert call(house, faulty.FINE)["prediction"].tolist() == [2.0]
        assert wait(house, faulty.FINE)["prediction"].tolist() == [2.0]
    finally:
        house.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@BOTH_WAYS
def test_a_process_that_answers_nonsense_is_not_believed(house: House, ask: Callable[..., Any]) -> None:
    before = house.processes()
    told = ask(house, faulty.NONSENSE)
    assert isinstance(told, ModelFailed)
    assert "what is no answer: a frame of 18446744073709551615 bytes" in told.message
    if ask is call:  # a thread only gives up its own connection
        house.wait_until_another(before)
    assert wait(house, faulty.FINE)["prediction"].tolist() == [2.0]


def test_no_call_is_lost_while_processes_are_killed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BACK_OFF", (0.01, 0.01))
    house = House(bundle, processes=2)
    answers: list[Columns | BaseException] = []

    async def flood() -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        killed = 0
        under_way = 0

        def answered(found: Columns | BaseException) -> None:
            nonlocal under_way
            under_way -= 1
            answers.append(found)
            if killed < 4:
                loop.call_soon(ask)
            elif not under_way:
                ended.set()

        def ask() -> None:
            nonlocal under_way
            under_way += 1
            house.remote.call(house.rows(faulty.SLOW, value=3.0), SECONDS, answered)

        for _ in range(4):
            ask()
        while killed < 4:
            await asyncio.sleep(0.12)
            alive = house.processes()
            if alive:
                os.kill(alive[killed % len(alive)], signal.SIGKILL)
                killed += 1
        await asyncio.wait_for(ended.wait(), 120)

    try:
        asyncio.run(flood())
        right = [found for found in answers if isinstance(found, Columns)]
        told = [found for found in answers if not isinstance(found, Columns)]
        assert right
        assert all(found["prediction"].tolist() == [6.0] for found in right)
        assert all(isinstance(found, (NotReady, ModelFailed)) for found in told)
        house.wait_until_alive()
    finally:
        house.close()


def test_while_no_process_lives_calls_are_told_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Remote(Address("sha256:gone", ("/nowhere/0",)), house.bundle.signature, SECONDS)
    assert not gone.is_alive
    assert gone.memory == 0
    monkeypatch.setattr(house, "remote", gone)
    for ask in (call, wait):
        assert isinstance(ask(house, faulty.FINE), NotReady)


def test_rows_that_cannot_be_sent_are_told(house: House) -> None:
    layout = house.bundle.signature.input_layout
    odd = Columns(layout, [np.ones((1, 2), dtype=complex)], 1)
    with pytest.raises(ModelFailed, match="the rows cannot be sent to the model: TypeError"):
        house.remote.predict(odd)


def test_the_same_bundle_asked_for_twice_has_one_pool(bundle: Bundle) -> None:
    keeper = Keeper(Log("error", io.StringIO()))
    found: list[Address] = []
    threads = [threading.Thread(target=lambda: found.append(keeper.start(order_for(bundle)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    remote = Remote(found[0], bundle.signature)
    assert found == [found[0]] * 3
    (process,) = remote.processes
    keeper.stop(found[0])
    keeper.stop(found[0])
    assert remote.is_alive
    keeper.stop(found[0])
    assert not remote.is_alive
    assert not Path(f"/proc/{process}").exists()
    keeper.stop(found[0])  # once more does no harm
    again = keeper.start(order_for(bundle))
    assert again != found[0]
    keeper.close()
    assert not keeper.folder.exists()


def test_memory_is_that_of_the_processes(house: House) -> None:
    house.wait_until_alive()
    assert 10e6 < house.remote.memory < 1e9
    assert oct(house.keeper.folder.stat().st_mode)[-3:] == "700"


def test_a_pickle_that_nobody_trusts_is_refused_in_the_process_too(bundle: Bundle) -> None:
    keeper = Keeper(Log("error", io.StringIO()))
    try:
        with pytest.raises(Refused, match="faulty"):
            keeper.start(Order(path=str(bundle.path), digest=bundle.digest))
        with pytest.raises(BadBundle, match="is another one"):
            keeper.start(Order(path=str(bundle.path), digest="sha256:" + "0" * 64))
    finally:
        keeper.close()


def test_a_pickle_that_crashes_its_reader_takes_only_its_own_process(
    tmp_path: Path, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"order": np.zeros(5), "value": np.arange(5.0)}
    crashing = pack(faulty.Crashing().fit(), tmp_path / "bundle", sample=rows)
    monkeypatch.setenv("MODELYARD_TEST_CRASH", "1")
    with pytest.raises(ModelFailed, match="ended while it loaded the model: killed by Segmentation fault"):
        house.keeper.start(order_for(crashing))
    assert call(house, faulty.FINE)["prediction"].tolist() == [2.0]


def test_processes_end_with_a_keeper_that_is_killed(bundle: Bundle, tmp_path: Path) -> None:
    script = f"""
import sys, time
sys.path[:] = {sys.path!r}
from modelyard.serving.isolation.keeper import Keeper, Order
from modelyard.serving.isolation.remote import Remote
from modelyard.bundle import Bundle
from modelyard.telemetry import Log
bundle = Bundle.open({str(bundle.path)!r})
keeper = Keeper(Log())
address = keeper.start(Order(path={str(bundle.path)!r}, digest=bundle.digest, trust=(bundle.digest,)))
remote = Remote(address, bundle.signature)
print(*remote.processes, flush=True)
time.sleep(300)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent:
        child = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not _lives(child))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
