"""The ring: nothing is lost, doubled or torn, whoever is slow, killed or replaced."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.errors import BadBundle
from modelyard.recording.ring import MAKING, RingReader, RingWriter


def read(reader: RingReader, *, release: bool = True) -> list[tuple[int, bytes, bytes, int]]:
    found = [(kind, bytes(head), bytes(rest), rows) for kind, head, rest, rows in reader.frames()]
    if release:
        reader.release(reader.position, reader.rows)
    return found


def put(writer: RingWriter, head: bytes, *blocks: bytes, rows: int = 1, kind: int = 1) -> bool:
    views = [memoryview(block) for block in blocks]
    return writer.put(kind, head, views, sum(map(len, blocks)), rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1-a.ring"


def test_a_frame_comes_out_as_it_went_in(path: Path) -> None:
    writer, block = RingWriter(path, 4096), np.arange(6.0).reshape(2, 3)
    assert writer.put(7, b"head", [block, memoryview(b"xyz")], block.nbytes + 3, 2)
    reader = RingReader(path)
    ((kind, head, rest, rows),) = read(reader)
    assert (kind, head, rows) == (7, b"head", 2)
    assert rest.startswith(block.tobytes() + b"xyz")
    assert (reader.process, reader.written_rows, reader.rows, reader.waiting) == (os.getpid(), 2, 2, 0)
    writer.close()
    reader.close()


def test_a_block_that_is_not_contiguous_is_refused_and_nothing_is_written(path: Path) -> None:
    writer, block = RingWriter(path, 4096), np.arange(6.0).reshape(2, 3)
    with pytest.raises(ValueError, match="contiguous"):
        writer.put(1, b"head", [block.T], block.nbytes, 2)
    assert put(writer, b"after")
    reader = RingReader(path)
    assert [head for _, head, _, _ in read(reader)] == [b"after"]
    writer.close()
    reader.close()


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(32, 400).map(lambda n: n * 8),
    steps=st.lists(st.one_of(st.integers(0, 300), st.sampled_from(["read", "read on", "replace"])), max_size=80),
)
def test_what_was_put_is_read_once_and_in_order(size: int, steps: list[int | str]) -> None:
    """Frames of any size wrap around; readers come and go, and read again what their predecessors had not released."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1-a.ring"
        writer = RingWriter(path, size)
        reader = RingReader(path)
        expected: deque[bytes] = deque()
        ahead = 0
        lost = 0
        for number, step in enumerate(steps):
            if isinstance(step, int):
                frame = f"{number}.".encode() + bytes([number & 255]) * step
                cut = len(frame) // 3
                if put(writer, frame[:cut], frame[cut : 2 * cut], frame[2 * cut :]):
                    expected.append(frame)
                else:
                    lost += 1
                    # With what each frame takes beside itself, and what is left empty before a frame that wrapped.
                    sizes = [len(each) + 35 for each in (*expected, frame)]
                    assert sum(sizes) + max(sizes) + sizes[-1] > size, "it had room"
            elif step == "replace":
                reader.close()
                reader = RingReader(path)
                ahead = 0
            else:
                found = [head + rest for _, head, rest, _ in read(reader, release=step == "read")]
                wanted = list(expected)[ahead:]
                assert len(found) == len(wanted)
                pairs = zip(found, wanted, strict=True)
                assert all(got.startswith(want) and len(got) < len(want) + 8 for got, want in pairs)
                ahead = len(expected)
                if step == "read":
                    expected.clear()
                    ahead = 0
        assert reader.lost == (lost, lost)
        writer.close()
        reader.close()


def test_a_full_ring_counts_what_it_does_not_take_and_takes_more_later(path: Path) -> None:
    writer = RingWriter(path, 1024)
    taken = sum(put(writer, bytes(100), rows=3) for _ in range(20))
    reader = RingReader(path)
    assert 0 < taken < 20
    assert reader.lost == (20 - taken, 3 * (20 - taken))
    assert len(read(reader, release=False)) == taken
    assert not put(writer, bytes(100)), "what was read and not released is still the reader's"
    reader.release(reader.position, reader.rows)
    assert put(writer, b"again")
    assert [head for _, head, _, _ in read(reader)] == [b"again"]
    writer.close()
    reader.close()


def test_what_was_read_and_not_released_is_read_by_the_next_reader(path: Path) -> None:
    writer = RingWriter(path, 4096)
    for number in range(4):
        put(writer, b"%d" % number)
    first = RingReader(path)
    frames = first.frames()
    next(frames), next(frames)
    position, rows = first.position, first.rows
    first.release(position, rows)
    next(frames)
    second = RingReader(path)
    assert [head for _, head, _, _ in read(second, release=False)] == [b"2", b"3"]
    third = RingReader(path)
    assert third.seek(second.position, second.rows) == 0, "it was kept although it was not released yet"
    assert read(third) == []
    fourth = RingReader(path)
    assert fourth.seek(position, rows) == 2, "it was released although nobody kept it: two rows are lost"
    writer.close()


@pytest.mark.parametrize("place", ["begin", "end", "size"])
def test_a_torn_frame_is_not_read_before_it_is_whole(path: Path, place: str) -> None:
    """As if the other process saw the count of bytes earlier than the bytes."""
    writer = RingWriter(path, 4096)
    put(writer, b"one", rows=2)
    put(writer, b"two", rows=3)
    reader = RingReader(path)
    begin = os.sysconf("SC_PAGE_SIZE") + 32
    at = {"begin": begin + 4, "end": begin + 28, "size": begin}[place]
    with path.open("r+b") as file:
        file.seek(at)
        was = file.read(4)
        file.seek(at)
        file.write(b"\xff\xff\xff\x7f")
    assert [head for _, head, _, _ in read(reader)] == [b"one"]
    assert reader.is_torn
    assert read(reader) == [] and reader.is_torn
    with path.open("r+b") as file:
        file.seek(at)
        file.write(was)
    assert [head for _, head, _, _ in read(reader)] == [b"two"]
    assert not reader.is_torn
    writer.close()
    reader.close()


def test_a_frame_of_an_earlier_lap_is_not_taken_for_a_new_one(path: Path) -> None:
    writer = RingWriter(path, 256)
    reader = RingReader(path)
    for number in range(50):
        assert put(writer, b"%030d" % number)
        assert [head for _, head, _, _ in read(reader)] == [b"%030d" % number]
    reader._numbers[3] += 64  # the count of bytes runs ahead of them
    assert read(reader) == []
    assert reader.is_torn
    writer.close()
    reader.close()


def test_what_cannot_be_read_can_be_given_up(path: Path) -> None:
    writer = RingWriter(path, 4096)
    put(writer, b"one", rows=2)
    put(writer, b"two", rows=3)
    reader = RingReader(path)
    with path.open("r+b") as file:
        file.seek(os.sysconf("SC_PAGE_SIZE"))
        file.write(bytes(4))
    assert read(reader) == []
    assert reader.skip() == 5
    put(writer, b"three")
    assert [head for _, head, _, _ in read(reader)] == [b"three"]
    writer.close()
    reader.close()


def test_who_writes_can_be_told_from_who_is_gone(path: Path) -> None:
    writer = RingWriter(path, 4096)
    put(writer, b"last")
    reader = RingReader(path)
    assert not reader.is_abandoned
    writer.close()
    assert reader.is_abandoned
    assert len(read(reader)) == 1
    reader.close()


@pytest.mark.parametrize("content", [b"", b"x", bytes(4096), b"MYRING02" + bytes(9000)])
def test_other_files_are_no_rings(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BadBundle, match="not a ring"):
        RingReader(path)


def test_a_ring_is_not_seen_before_it_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _size: int) -> None:
        assert [each.suffix for each in path.parent.iterdir()] == [MAKING]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modelyard.recording.ring._reserve", full)
    with pytest.raises(OSError, match="No space"):
        RingWriter(path, 4096)
    assert list(path.parent.iterdir()) == []


WRITER = """
import hashlib, os, random, sys
from pathlib import Path
from modelyard.recording.ring import RingWriter

writer = RingWriter(Path(sys.argv[1]), int(sys.argv[2]))
random.seed(int(sys.argv[3]))
count = int(sys.argv[4])
print("ready", flush=True)
number = written = total = 0
while number < count:
    body = os.urandom(random.randrange(2000))
    head = b"%d " % number + hashlib.sha256(body).digest()
    if writer.put(1, head, [memoryview(body)], len(body), number % 7):
        written += 1
        total += number
        number += 1
print(written, total, flush=True)
"""


def start(path: Path, size: int, count: int) -> subprocess.Popen[str]:
    arguments = [str(path), str(size), str(random.randrange(1 << 30)), str(count)]
    child = subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    child.stdout.close()
    child.wait()


def check(frame: tuple[int, bytes, bytes, int], expected: int) -> None:
    _, head, rest, rows = frame
    number, _, digest = head.partition(b" ")
    assert int(number) == expected
    assert rows == expected % 7
    padding = range(8)
    assert any(hashlib.sha256(rest[: len(rest) - cut]).digest() == digest for cut in padding), f"frame {expected}"


@pytest.mark.parametrize("size", [8192, 1 << 20])
def test_two_processes_at_full_speed_agree_on_every_byte(path: Path, size: int) -> None:
    count = 20_000
    child = start(path, size, count)
    reader = RingReader(path)
    seen = total = 0
    until = time.monotonic() + 120
    while seen < count and time.monotonic() < until:
        for frame in read(reader):
            check(frame, seen)
            total += seen
            seen += 1
        assert not reader.is_torn
    assert child.stdout is not None
    assert child.stdout.read().split() == [str(seen), str(total)]
    end(child)
    assert reader.is_abandoned and not reader.unread
    reader.close()


@pytest.mark.parametrize("turn", range(8))
def test_a_writer_that_is_killed_in_the_middle_of_a_write_leaves_whole_frames(path: Path, turn: int) -> None:
    child = start(path, 1 << 16, 1 << 40)
    reader = RingReader(path)
    seen = 0
    until = time.monotonic() + 0.05 + random.random() / 5
    while time.monotonic() < until or not seen:
        for frame in read(reader):
            check(frame, seen)
            seen += 1
    child.send_signal(signal.SIGKILL)
    end(child)
    assert reader.is_abandoned
    rows = reader.rows
    for frame in read(reader):
        check(frame, seen)
        seen += 1
        rows += frame[3]
    assert not reader.is_torn and not reader.unread
    assert seen > 0
    assert reader.rows == rows == sum(number % 7 for number in range(seen))
    assert reader.written_rows - rows in (0, seen % 7), "at most the frame that was being written"
    reader.close()


def test_a_reader_that_is_killed_and_replaced_loses_and_doubles_nothing(path: Path) -> None:
    """Each reader keeps what it reads in a file, says how far it came in another, and only then releases."""
    count = 4000
    child = start(path, 1 << 16, count)
    kept, reached = path.with_name("kept"), path.with_name("reached")
    kept.touch()
    until = time.monotonic() + 120
    while time.monotonic() < until:
        process = os.fork()
        if process == 0:
            with contextlib.suppress(BaseException):
                keep(path, kept, reached, count)
            os._exit(0)
        time.sleep(random.random() / 10)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        if reached.exists() and struct.unpack("<QQQ", reached.read_bytes())[2] == count:
            break
    end(child)
    assert [int(line) for line in kept.read_bytes().split()] == list(range(count))


def keep(path: Path, kept: Path, reached: Path, count: int) -> None:
    reader = RingReader(path)
    seen = 0
    if reached.exists():
        position, length, seen = struct.unpack("<QQQ", reached.read_bytes())
        reader.seek(position, reader.rows)
        os.truncate(kept, length)
    with kept.open("ab", buffering=0) as file:
        while seen < count:
            for frame in reader.frames(3):
                number = int(bytes(frame[1]).partition(b" ")[0])
                file.write(b"%d\n" % number)
                seen += 1
            making = reached.with_suffix(".making")
            making.write_bytes(struct.pack("<QQQ", reader.position, file.tell(), seen))
            making.rename(reached)
            reader.release(reader.position, reader.rows)


COUNTER = """
import sys
from pathlib import Path
from modelyard.recording.ring import RingReader
reader = RingReader(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    for _ in range(1000):
        reader.release(0x00FF00FF00FF00FF, 0)
        reader.release(0xFF00FF00FF00FF00, 0)
"""


def test_a_count_is_never_seen_half_changed(path: Path) -> None:
    """Numbers that two processes share must be read and written at once, not byte by byte."""
    writer = RingWriter(path, 4096)
    reader = RingReader(path)
    child = subprocess.Popen([sys.executable, "-c", COUNTER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        seen = {reader.released for _ in range(300_000)}
    finally:
        child.kill()
        end(child)
    assert seen <= {0, 0x00FF00FF00FF00FF, 0xFF00FF00FF00FF00}
    writer.close()
    reader.close()
