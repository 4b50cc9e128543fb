"""What a catalog loads, keeps and lets go of: policies, changes asked for by clients, states, memory."""

from __future__ import annotations

import gc
import http.client
import io
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.errors import BadBundle, Conflict, InvalidInput, ModelFailed, NoRoom, NotFound, NotReady, Refused
from modelyard.schema import Array, Columns
from modelyard.serving.catalog import Change, ServerCatalog
from modelyard.serving.loading import Loaded
from modelyard.serving.metrics import Metrics
from modelyard.serving.server import Server
from modelyard.serving.table import Table
from modelyard.settings import Chosen
from modelyard.telemetry import Log
from modelyard.testing.memory import MemoryBundle
from receivers import until

from .conftest import INPUTS, MemorySource, linear

Make = Callable[..., ServerCatalog]


@pytest.fixture
def catalog(source: MemorySource) -> Iterator[Make]:
    """A catalog of references into ``source`` that has settled; its log is ``catalog.lines()``."""
    made: list[ServerCatalog] = []

    def make(*references: str, must_start: bool = True, **options: Any) -> ServerCatalog:
        stream = io.StringIO()
        log = Log("info", stream)

        def publish(table: Table) -> None:
            one.table = table

        options = {"poll_seconds": 0.02, "drain_seconds": 2.0, "control": True, **options}
        one = ServerCatalog(
            references, lambda: source, settings=Chosen(options), trust=None, publish=publish, log=log,
            metrics=Metrics(),
        )  # fmt: skip
        made.append(one)
        one.start()
        assert one.settled.wait(60)
        if must_start:
            assert one.failure is None

        def lines() -> list[dict[str, Any]]:
            log.flush()
            return [json.loads(line) for line in stream.getvalue().splitlines()]

        one.lines = lines  # type: ignore[attr-defined]  # for tests only
        return one

    yield make
    for one in made:
        one.stop()


def serving(catalog: ServerCatalog) -> list[str]:
    return [f"{loaded.name}:{loaded.version}" for loaded in catalog.models()]


def states(catalog: ServerCatalog) -> dict[str, str]:
    return {f"{state.model}:{state.version}": state.state for state in catalog.states()}


def broken() -> BadBundle:
    return BadBundle("model.onnx is truncated")


class Staged(MemoryBundle):
    """A model that does something before it is loaded, and may not reproduce its golden rows."""

    def __init__(
        self,
        before: Callable[[], object] = lambda: None,
        fault: Exception | None = None,
        predict: Callable[[int], object] = lambda rows: None,
    ) -> None:
        def answer(columns: Columns) -> Mapping[str, Array]:
            predict(columns.rows)
            return {"prediction": columns["x1"]}

        super().__init__(linear().signature, answer, {"x1": [1.0], "x2": [3.0]})
        self._before = before
        self._fault = fault

    def load(self, **options: Any) -> Any:
        self._before()
        return super().load(**options)

    def check_golden(self, predict: Any) -> None:
        super().check_golden(predict)
        if self._fault is not None:
            raise self._fault


class Heavy(Staged):
    """A model that takes ``size`` bytes once it is loaded."""

    size = 64 << 20

    def load(self, **options: Any) -> Any:
        predict, ballast = super().load(**options), bytearray(b"x") * self.size

        def heavy(columns: Any) -> Any:
            assert ballast
            return predict(columns)

        return heavy


# -- policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "at_first", "later"),
    [
        ("m:latest", ["m:3"], ["m:4"]),
        ("m:latest-2", ["m:3", "m:2"], ["m:4", "m:3"]),
        ("m:latest-9", ["m:3", "m:2", "m:1"], ["m:4", "m:3", "m:2", "m:1"]),
        ("m:all", ["m:3", "m:2", "m:1"], ["m:4", "m:3", "m:2", "m:1"]),
        ("m:2", ["m:2"], ["m:2"]),
    ],
)
def test_a_policy_is_expanded_whenever_the_registry_moves(
    source: MemorySource, catalog: Make, reference: str, at_first: list[str], later: list[str]
) -> None:
    for _ in range(3):
        source.add("m", linear())
    one = catalog(reference)
    assert serving(one) == at_first
    kept = {loaded.version: loaded for loaded in one.models()}
    source.add("m", linear())
    until(lambda: serving(one) == later or source.changes == 0)
    assert serving(one) == later
    assert all(loaded is kept.get(loaded.version, loaded) for loaded in one.models())  # none was loaded twice
    assert one.find("m", None, None).version == later[0].partition(":")[2]


def test_production_is_the_default_of_a_policy(source: MemorySource, catalog: Make) -> None:
    source.add("m", linear(), alias="production")
    source.add("m", linear())
    one = catalog("m:all")
    assert one.find("m", None, None).version == "1"
    assert one.find("m", None, "production").version == "1"


@pytest.mark.parametrize("words", ["newest", "latest-0", "latest-", "latest2", "ALL", "latest-two", "v2"])
def test_what_is_no_policy_is_explained(source: MemorySource, catalog: Make, words: str) -> None:
    source.add("m", linear())
    one = catalog(f"m:{words}", must_start=False)
    assert isinstance(one.failure, InvalidInput)
    assert f"reference: expected a number, latest, latest-2 (the newest two) or all after the colon, got '{words}'" in (
        one.failure.message
    )
    assert one.failure.hint.startswith("m:latest is the newest version")


def test_one_bad_version_of_a_policy_fails_alone(source: MemorySource, catalog: Make) -> None:
    for bundle in (linear(), broken(), linear()):
        source.add("m", bundle)
    one = catalog("m:all")
    assert serving(one) == ["m:3", "m:1"]
    assert "version 2 of m cannot be served: model.onnx is truncated" in one.faults()["m:all"]
    assert states(one) == {"m:3": "ready", "m:1": "ready", "m:2": "failed"}


def test_a_version_without_a_live_process_is_why_the_server_is_not_ready(source: MemorySource, catalog: Make) -> None:
    source.add("m", linear())
    one = catalog("m")
    assert one.ready and not one.faults()
    gone: Any = SimpleNamespace(is_alive=False)
    one.table.versions[0].remote = gone
    assert not one.ready and one.faults() == {"m:1": "no live process; being replaced"}
    one.table.versions[0].remote = None


def test_where_the_newest_of_two_fails_the_two_before_go_on(source: MemorySource, catalog: Make) -> None:
    source.add("m", linear())
    source.add("m", linear())
    one = catalog("m:latest-2")
    source.add("m", broken())
    until(lambda: bool(one.faults()))
    assert serving(one) == ["m:2", "m:1"]


# -- promotions that fail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["m", "m@production"])
def test_a_kept_version_no_longer_lists_the_alias_that_moved(
    source: MemorySource, catalog: Make, reference: str
) -> None:
    source.add("m", linear(), alias="production")
    source.promote("m", 1, "stable")
    one = catalog(reference)
    assert set(one.models()[0].aliases) == {"production", "stable"}
    source.add("m", broken(), alias="production")
    until(lambda: bool(one.faults()))
    assert serving(one) == ["m:1"]
    assert one.models()[0].aliases == ("stable",)
    assert one.find("m", None, "production").version == "1"  # callers by that name are still answered
    (fault,) = one.faults().values()
    assert fault == "version 2 of m cannot be served: model.onnx is truncated; version 1 goes on serving"
    failed = next(state for state in one.states() if state.state == "failed")
    assert (failed.version, failed.reason, type(failed.error)) == ("2", "model.onnx is truncated", BadBundle)


# -- changes ---------------------------------------------------------------------------------------------------------


def test_clients_change_nothing_unless_they_may(source: MemorySource, catalog: Make) -> None:
    source.add("m", linear())
    one = catalog("m", control=False)
    for change in (lambda: one.load("m"), lambda: one.unload("m"), lambda: one.replace(["m"])):
        with pytest.raises(Refused, match="clients may not choose") as caught:
            change()
        assert caught.value.hint == "start the server with --control"
    assert serving(one) == ["m:1"]


def test_a_server_of_nothing_waits_for_clients(source: MemorySource, catalog: Make) -> None:
    with pytest.raises(InvalidInput, match="at least one model to serve"):
        catalog(control=False)
    one = catalog()
    assert one.ready
    with pytest.raises(NotFound, match="serves no model at the moment"):
        one.find("m", None, None)
    source.add("m", linear())
    assert one.load("m").version == "1"
    assert one.ready and one.find(None, None, None).name == "m"


def test_loading_serves_one_more(source: MemorySource, catalog: Make) -> None:
    source.add("m", linear(), alias="production")
    source.add("m", linear())
    source.add("n", linear())
    one = catalog("m@production")
    first = one.models()[0]
    loaded = one.load("m:2")
    assert (loaded.name, loaded.version) == ("m", "2")
    assert one.load("n").name == "n"
    assert serving(one) == ["m:1", "m:2", "n:1"]
    assert one.models()[0] is first
    assert one.references == ("m@production", "m:2", "n")


def test_what_cannot_be_loaded_leaves_all_as_before(source: MemorySource, catalog: Make) -> None:
    source.add("m", linear())
    source.add("n", broken())
    one = catalog("m")
    table = one.table
    for reference, error in (("n", BadBundle), ("x", NotFound), ("m:all-2", InvalidInput)):
        with pytest.raises(error):
            one.load(reference)
        assert one.table is table and one.references == ("m",) and not one.faults() and one.ready
    assert states(one) == {"m:1": "ready", "n:1": "failed"}
    told = [line["error"] for line in one.lines() if line["event"] == "load failed"]  # type: ignore[attr-defined]
    assert told[0] == "BadBundle: model.onnx is truncated"
    with pytest.raises(NotFound):
        one.find("n", None, None)


def test_loading_by_name_looks_a_served_model_up_anew(source: MemorySource, catalog: Make) -> None:
    source.add("m", linear(), alias="production")
    one = catalog("m@production", poll_seconds=100.0)
    source.add("m", linear(), alias="production")
    assert one.load("m").version == "2"
    assert one.references == ("m@production",)
    assert source.forgotten == ["m@production"]
    source.add("m", broken(), alias="production")
    with pytest.raises(BadBundle, match="truncated"):
        one.load("m")
    assert serving(one) == ["m:2"] and one.ready


def test_unloading_forgets_every_version_and_loading_brings_them_back(source: MemorySource, catalog: Make) -> None:
    for _ in range(2):
        source.add("m", linear())
    source.add("n", linear())
    one = catalog("m:1", "n", "m:2")
    one.unload("m")
    assert serving(one) == ["n:1"] and one.ready
    until(lambda: states(one) == {"n:1": "ready", "m:1": "unloaded", "m:2": "unloaded"})
    with pytest.raises(NotFound, match="no such model: m"):
        one.unload("m")
    one.load("m")
    assert serving(one) == ["n:1", "m:1", "m:2"]


def test_replacing_serves_exactly_what_is_named(source: MemorySource, catalog: Make) -> None:
    for model in ("a", "b", "c"):
        source.add(model, linear())
    source.add("bad", broken())
    one = catalog("a", "b")
    kept = one.find("b", None, None)
    one.replace(["b", "c", "b"])
    assert serving(one) == ["b:1", "c:1"] and one.models()[0] is kept
    table = one.table
    with pytest.raises(BadBundle):
        one.replace(["a", "bad"])
    assert one.table is table and one.references == ("b", "c")
    one.replace([])
    assert serving(one) == [] and one.ready


def test_two_bundles_of_one_name_are_refused(source: MemorySource, catalog: Make) -> None:
    source.add("m", linear())
    one = catalog("m")
    source.folders["m=some/folder"] = linear()
    with pytest.raises(Conflict, match="two models would be served under one name: m") as caught:
        one.load("m=some/folder")
    assert caught.value.hint == "give a bundle another name: NAME=some/folder"
    assert serving(one) == ["m:1"]


def test_a_folder_that_was_written_anew_is_loaded_anew(source: MemorySource, catalog: Make) -> None:
    source.folders["m=some/folder"] = linear()
    one = catalog("m=some/folder")
    before = one.models()[0].digest
    source.folders["m=some/folder"] = linear(2.0, digest="sha256:2")
    assert one.models()[0].digest == before
    one.load("m")
    assert one.models()[0].digest == "sha256:2"
    assert states(one) == {"m:": "ready"}
    one.unload("m")
    until(lambda: states(one) == {"m:": "unloaded"})
    one.load("m")
    assert states(one) == {"m:": "ready"}


def test_a_caller_waits_only_so_long(source: MemorySource, catalog: Make) -> None:
    hold = threading.Event()
    source.add("m", linear())
    source.add("slow", Staged(lambda: hold.wait(60)))
    one = catalog("m", request_seconds=0.1)
    with pytest.raises(NotReady, match=r"to load slow takes longer than 0\.1 s") as caught:
        one.load("slow")
    assert "it goes on" in caught.value.hint
    assert states(one)["slow:1"] == "loading"
    with pytest.raises(NotReady):
        one.load("other")  # waits behind the first, and is dropped
    hold.set()
    until(lambda: serving(one) == ["m:1", "slow:1"])
    assert "other" not in one.references


def test_changes_go_through_whoever_speaks_for_all_processes(source: MemorySource, catalog: Make) -> None:
    source.add("m", linear())
    source.add("n", linear())
    one, two = catalog("m"), catalog("m")
    asked: list[Change] = []

    def coordinate(change: Change) -> None:
        asked.append(change)
        for each in (one, two):
            each.apply(change)

    one.coordinate = coordinate
    assert one.load("n").name == "n"
    assert serving(one) == serving(two) == ["m:1", "n:1"]
    one.unload("m")
    assert serving(one) == serving(two) == ["n:1"]
    assert asked == [Change("load", ("n",)), Change("unload", ("m",))]
    two.apply(Change("replace", ("m",)))  # how the others are put back where one failed
    assert serving(two) == ["m:1"]


# -- letting go ------------------------------------------------------------------------------------------------------


def test_what_requests_hold_is_unloading_until_they_end(source: MemorySource, catalog: Make) -> None:
    source.add("m", linear())
    one = catalog("m", drain_seconds=0.05)
    request: list[Loaded] = [one.find("m", None, None)]
    one.unload("m")
    assert states(one) == {"m:1": "unloading"}
    request.clear()
    until(lambda: states(one) == {"m:1": "unloaded"})
    assert [line["event"] for line in one.lines()][-1] == "model unloaded"  # type: ignore[attr-defined]


def test_a_request_under_way_ends_where_it_began(source: MemorySource, serve: Callable[..., Server]) -> None:
    def slow(rows: int) -> None:
        if begun.is_set():
            entered.set()
            hold.wait(60)

    begun, entered, hold = threading.Event(), threading.Event(), threading.Event()
    source.add("m", Staged(predict=slow))
    source.add("n", linear())
    server = serve("m", "n", control=True)
    server.catalog.table.find("m", None, None).cost.per_call = 1.0  # so that it runs beside the loop
    begun.set()
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(post(server, "/models/m/predict")))
    asking.start()
    assert entered.wait(60)
    leaving = threading.Thread(target=server.catalog.unload, args=("m",))
    leaving.start()
    until(lambda: states(server.catalog).get("m:1") == "unloading" and serving(server.catalog) == ["n:1"])
    assert post(server, "/models/m/predict") == 404
    assert not answers and leaving.is_alive()
    hold.set()
    leaving.join(60)
    asking.join(60)
    assert answers == [200] and not leaving.is_alive()
    until(lambda: states(server.catalog) == {"n:1": "ready", "m:1": "unloaded"})


def post(server: Server, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", path, b'{"x1": 1, "x2": 2}')
    status = connection.getresponse().status
    connection.close()
    return status


def test_no_version_outlives_its_last_user(source: MemorySource, catalog: Make) -> None:
    source.add("m", linear())
    source.add("m", broken())
    source.add("n", Staged(fault=ModelFailed("golden row 0 is not reproduced")))
    one = catalog("m:1")
    gc.collect()
    gc.disable()  # a server's collector runs rarely: letting go must not wait for it
    try:
        held = weakref.ref(one.models()[0])
        for bad in ("m:2", "n", "x"):
            with pytest.raises((BadBundle, NotFound, ModelFailed)):
                one.load(bad)
        with pytest.raises(BadBundle):
            one.replace(["m:2"])
        one.unload("m")
        assert held() is None
    finally:
        gc.enable()


# -- memory ----------------------------------------------------------------------------------------------------------


def test_memory_is_measured_and_counted(source: MemorySource, catalog: Make) -> None:
    source.add("big", Heavy())
    one = catalog("big")
    memory = one.models()[0].memory
    assert memory is not None and 0.9 * Heavy.size < memory < 1.5 * Heavy.size


def test_a_load_that_would_pass_the_budget_is_refused_with_the_figures(source: MemorySource, catalog: Make) -> None:
    source.add("big", Heavy())
    source.add("bigger", Heavy())
    one = catalog("big", memory=100 << 20)
    with pytest.raises(NoRoom, match=r"version 1 of bigger needs about \d+MB, and \d+MB of 100MB are in use") as caught:
        one.load("bigger")
    details = caught.value.details
    assert details["budget"] == 100 << 20 and details["in_use"] + details["needs"] > 100 << 20
    assert "--memory" in caught.value.hint
    assert serving(one) == ["big:1"] and states(one)["bigger:1"] == "failed"
    one.unload("big")
    assert one.load("bigger").name == "bigger"


def test_a_load_whose_files_tell_enough_is_not_even_begun(source: MemorySource, catalog: Make) -> None:
    began = []
    bundle: Any = Staged(lambda: began.append(1))
    manifest = bundle.manifest
    files = {"model/model.onnx": SimpleNamespace(size=200 << 20), "profile.json": SimpleNamespace(size=1 << 40)}
    bundle.manifest = SimpleNamespace(model=manifest.model, task="regression", metrics={}, files=files)
    source.add("m", linear())
    source.add("n", bundle)
    one = catalog("m", memory=100 << 20)
    with pytest.raises(NoRoom, match="version 1 of n needs about 200MB"):
        one.load("n")
    assert not began


def test_the_budget_is_that_of_all_workers(source: MemorySource, catalog: Make) -> None:
    source.add("big", Heavy())
    one = catalog(memory=150 << 20, workers=3)
    with pytest.raises(NoRoom, match="0kB of 150MB are in use") as caught:
        one.load("big")
    assert caught.value.details["needs"] > 2.7 * Heavy.size
    assert catalog("big", memory=150 << 20, workers=2).ready


def test_a_first_load_without_room_does_not_start(source: MemorySource, catalog: Make) -> None:
    source.add("big", Heavy())
    one = catalog("big", memory=1 << 20, must_start=False)
    assert isinstance(one.failure, NoRoom)


def test_warming_calls_with_up_to_as_many_rows_as_are_joined(source: MemorySource, catalog: Make) -> None:
    seen: list[int] = []
    source.add("m", Staged(predict=seen.append))
    one = catalog("m", batch_rows=1000)
    assert set(seen) == {1, 16, 256, 1000}
    assert one.models()[0].cost.expect(1000) > 0
    assert [field.name for field in INPUTS] == list(one.models()[0].example)


def test_warming_ends_in_time(source: MemorySource, catalog: Make) -> None:
    def slow(rows: int) -> None:
        seen.append(rows)
        if rows == 256:
            time.sleep(0.35)

    seen: list[int] = []
    source.add("m", Staged(predict=slow))
    catalog("m", batch_rows=1000)
    assert set(seen) == {1, 16, 256}
