"""What a server notes: everything that it answers, and never an error."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput, Overloaded, Problem
from modelyard.messages import Message
from modelyard.recording import frames
from modelyard.recording.places import Places
from modelyard.recording.ring import RingReader, RingWriter
from modelyard.schema import Columns
from modelyard.serving.metrics import Meter
from modelyard.serving.noting import Notes
from modelyard.telemetry import Log
from recordings import SIGNATURE, Served, Shop, asked, plain, reference, some_ids, some_rows


class Reader:
    """What lies in the ring of the only process that wrote one."""

    def __init__(self, places: Places) -> None:
        (self.path,) = places.rings.glob("*.ring")
        self.ring = RingReader(self.path)

    def next(self) -> tuple[int, bytes, memoryview]:
        kind, head, rest, _ = next(self.ring.frames(1))
        return kind, bytes(head), rest

    def call(self) -> tuple[frames.Call, Columns | None, Columns | None]:
        kind, head, rest = self.next()
        assert kind == frames.CALL
        return frames.read_call(head, rest, frames.read_lanes(self.path)[0])


def test_a_call_is_noted_with_all_that_came_and_went(shop: Shop) -> None:
    sample = some_rows(3)
    shop.sell(["a", "b"], [1, 2], sample, ["ok", "model_failed"], arms=["production/4/canary", ""], clients=["x", ""])
    call, inputs, outputs = Reader(shop.places).call()
    assert (call.ids, call.rows, call.batch, call.codes) == (["a", "b"], [1, 2], 3, ["ok", "model_failed"])
    assert (call.arms, call.clients) == (["production/4/canary", ""], ["x", ""])
    assert call.received[0] < call.decoded[0] < call.started < call.predicted < call.done
    assert inputs is not None and outputs is not None
    for name in SIGNATURE.input_layout.names:
        assert plain(inputs[name]) == plain(sample.inputs[name])
    for name in SIGNATURE.output_layout.names:
        assert plain(outputs[name]) == plain(sample.outputs[name])


def test_what_is_most_usual_takes_no_room(shop: Shop) -> None:
    shop.sell(["a"])
    call, _, _ = Reader(shop.places).call()
    assert (call.codes, call.arms, call.clients, call.lost) == (None, None, None, 0)


def test_a_lane_tells_what_its_version_is_and_what_it_is_compared_with(shop: Shop) -> None:
    second = Served("risk", "", profile=None)
    shop.notes.book(second, shop.meter)  # type: ignore[arg-type]
    lanes = frames.read_lanes(Reader(shop.places).path)
    assert [(lane.model, lane.version, lane.digest) for lane in lanes.values()] == [
        ("churn", "1", "sha256:churn1"),
        ("risk", "", "sha256:risk"),
    ]
    assert lanes[0].reference == reference()
    assert lanes[0].signature == SIGNATURE


def test_a_refusal_is_noted_with_the_inputs_at_fault(shop: Shop) -> None:
    problems = [
        Problem("[3].age", "a whole number", "'old'"),
        Problem("instances[0].visits[1]", "a number", "null"),
        Problem("income", "a number", "nothing"),
        Problem("inputs[0].shape", "[1, 3]", "[1]"),
    ]
    shop.book.note_refused(asked("a"), Message(b"", code="invalid_input"), InvalidInput.of(problems), b"{" * 100_000)
    shop.book.note_refused(asked("b"), Message(b"", code="overloaded"), Overloaded("too many"))
    reader = Reader(shop.places)
    kind, head, _ = reader.next()
    assert kind == frames.REFUSED
    first = frames.read_refusal(head)
    assert (first.id, first.code, first.fields) == ("a", "invalid_input", ["age", "visits", "income"])
    assert first.reason.startswith("[3].age: expected a whole number, got 'old'")
    assert len(first.body) == frames.MOST_BODY
    second = frames.read_refusal(reader.next()[1])
    assert (second.code, second.fields, second.reason) == ("overloaded", [], "too many")


def log_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_full_ring_is_told_once_and_its_end_too(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.serving.noting.RING_BYTES", 1 << 14)
    shop = Shop(records)
    stream = io.StringIO()
    log = Log("info", stream)
    shop.notes._log = log
    reader = Reader(shop.places)
    for _ in range(200):
        shop.sell(some_ids(2))
    lost = reader.ring.lost
    assert lost[1] == 2 * lost[0] > 0
    for _ in reader.ring.frames():
        pass
    reader.ring.release(reader.ring.position, reader.ring.rows)
    shop.sell(["after"])
    assert reader.call()[0].lost == lost[1]
    log.flush()
    assert [line["event"] for line in log_of(stream)] == [
        "predictions are not recorded: the recorder is too slow, or gone",
        "predictions are recorded again",
    ]
    shop.close()


def test_outputs_that_are_not_what_the_signature_says_are_told_once(shop: Shop) -> None:
    stream = io.StringIO()
    shop.book._log = log = Log("info", stream)
    sample = some_rows(1)
    sample.outputs = Columns(sample.outputs.layout, [np.zeros((1, 7)), *sample.outputs.blocks[1:]], 1)
    for _ in range(3):
        shop.sell(["a"], sample=sample)
    log.flush()
    assert [line["event"] for line in log_of(stream)] == [
        "inputs or outputs are not recorded: they are not what the signature says"
    ]
    _, inputs, outputs = Reader(shop.places).call()
    assert inputs is not None and outputs is None


def test_a_fault_of_ours_costs_no_answer_and_is_counted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    shop.book._log = Log("info", stream)

    def broken(*_arguments: Any) -> bool:
        raise RuntimeError("a bug")

    monkeypatch.setattr(RingWriter, "put", broken)
    shop.sell(["a", "b"])
    shop.book.note_refused(asked("c"), Message(b"", code="overloaded"), Overloaded("too many"))
    monkeypatch.undo()
    assert Reader(shop.places).ring.lost == (2, 3)
    assert shop.meter.unrecorded == 3
    assert [line["error"] for line in log_of(stream)] == ["RuntimeError: a bug"] * 2
    shop.sell(["d"])
    assert Reader(shop.places).call()[0].lost == 3


def test_a_disk_without_room_is_told_and_the_service_goes_on(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modelyard.recording.ring._reserve", full)
    stream = io.StringIO()
    log = Log("info", stream)
    notes = Notes(Places(records), log)
    notes.open()
    meter = Meter("churn", "1")
    book = notes.book(Served(), meter)  # type: ignore[arg-type]
    book.note([asked("a", 2), asked("b")], [Message(b""), Message(b"")], 1.0, 2.0, None, None)
    book.note_refused(asked("c"), Message(b"", code="overloaded"), Overloaded("too many"))
    assert meter.unrecorded == 4
    notes.close()
    log.flush()
    assert [line["event"] for line in log_of(stream)] == ["predictions are not recorded"]


def test_where_memory_is_small_a_ring_is_smaller(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.recording import ring

    reserve, most = ring._reserve, 1 << 20

    def small(descriptor: int, size: int) -> None:
        if size > most:
            raise OSError(28, "No space left on device")
        reserve(descriptor, size)

    monkeypatch.setattr(ring, "_reserve", small)
    shop = Shop(records)
    assert Reader(shop.places).ring.size == 1 << 19
    shop.close()


def test_rings_lie_in_memory_for_their_owner_only(shop: Shop) -> None:
    places = shop.places
    assert places.rings.is_symlink()
    assert places.rings.readlink().parent == Path("/dev/shm")
    assert places.rings.stat().st_mode & 0o777 == 0o700
    assert places.folder.stat().st_mode & 0o777 == 0o700
    assert Reader(places).path.stat().st_mode & 0o777 == 0o600


def test_memory_that_a_reboot_emptied_is_made_again(shop: Shop) -> None:
    import shutil

    shutil.rmtree(shop.places.rings.readlink())
    assert not shop.places.rings.exists()
    Places(shop.places.folder).make()
    assert shop.places.rings.is_dir()


def test_memory_of_records_that_were_removed_is_given_back(tmp_path: Path) -> None:
    import shutil

    from recordings import remove_rings

    old, new = tmp_path / "old", tmp_path / "new"
    Places(old).make()
    memory = (old / "rings").readlink()
    shop = Shop(old)
    shutil.rmtree(old)
    Places(new).make()
    assert memory.exists(), "somebody writes there"
    shop.close()
    shutil.rmtree(new / "rings", ignore_errors=True)
    (new / "rings").unlink()
    Places(new).make()
    assert not memory.exists()
    assert (new / "rings").is_dir()
    remove_rings(new)


def test_memory_of_a_folder_that_cannot_be_written_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr("modelyard.recording.places._MEMORY", memory)
    places, link = Places(tmp_path / "records"), Path.symlink_to

    def link_to(path: Path, target: Path) -> None:
        if path == places.rings:
            raise OSError(30, "Read-only file system")
        link(path, target)

    monkeypatch.setattr(Path, "symlink_to", link_to)
    with pytest.raises(OSError, match="Read-only"):
        places.make()
    assert not list(memory.iterdir())


def test_without_such_memory_rings_lie_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.recording.places._MEMORY", tmp_path / "no such folder")
    places = Places(tmp_path / "records")
    places.make()
    assert places.rings.is_dir() and not places.rings.is_symlink()
