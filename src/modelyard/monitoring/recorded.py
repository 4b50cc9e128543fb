"""The predictions that this machine recorded, found by their ids.

Segments are Parquet files, and spools that become such: of a spool, what the recorder has kept for good counts, and its
rows have the same numbers once it is a Parquet file. Beside them lies an index, made once for each part: the sorted
hashes of its ids, so that finding a few labels reads no more than the parts that they are in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

import numpy as np

from modelyard.errors import MissingDependency
from modelyard.recording.spool import SUFFIX
from modelyard.schema import Array

if TYPE_CHECKING:
    import pyarrow

#: How long each spool is, in bytes, of what the recorder has kept for good; by its name below the folder of segments.
Spools = Callable[[], Mapping[str, int]]


class Part(NamedTuple):
    """A segment, or a spool: its name (without what it ends in), the version, and its rows so far."""

    name: str
    version: str
    rows: int


class Hit(NamedTuple):
    """A row that may be wanted: its hash is that of ``wanted[which]``."""

    part: str
    row: int
    which: int


def hash_of(id: str) -> int:
    return int.from_bytes(blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def hashes(ids: Iterable[str]) -> Array:
    return np.fromiter(map(hash_of, ids), dtype="<u8")


class Recorded:
    """The recorded predictions of one model. ``segments`` is the folder of all segments, ``index`` that of all indexes.

    Used by one thread. Raises MissingDependency where the library is missing that reads segments.
    """

    def __init__(self, model: str, segments: Path, index: Path, spools: Spools = dict) -> None:
        arrow()
        self._segments = segments
        self._folder = segments / f"model={quote(model, safe='')}"
        self._index = index / quote(model, safe="")
        self._spools = spools
        self._parts: dict[str, Part] = {}
        #: The hashes of a part's ids, ascending, and the row of each: shape (2, rows).
        self._entries: dict[str, Array] = {}
        #: What each part was when it was indexed: the length of a spool.
        self._marks: dict[str, int] = {}
        #: The part that was read last, whose rows are asked for again and again, and how many rows it had.
        self._read: tuple[str, tuple[str, ...], pyarrow.Table] | None = None

    def refresh(self) -> list[Part]:
        """Look what there is now, oldest first, and index what is new. A part that cannot be read yet is left out."""
        found: dict[str, Part] = {}
        sizes, self._read = self._spools(), None
        for path in sorted(self._folder.glob("version=*/*")):
            name = f"{path.parent.name}/{path.stem}"
            if path.suffix == SUFFIX and path.with_suffix(".parquet").exists():
                continue
            kept = sizes.get(str(path.relative_to(self._segments)))
            if path.suffix == ".parquet" or (path.suffix == SUFFIX and kept):
                with contextlib.suppress(OSError, arrow().ArrowInvalid):  # it went, or became another, this moment
                    found[name] = self._indexed(name, path, kept or 0)
        for name in self._parts.keys() - found.keys():
            self._entries.pop(name, None)
            self._marks.pop(name, None)
            self._index_of(name).unlink(missing_ok=True)
        self._parts = found
        return sorted(found.values(), key=lambda part: (part.name.rpartition("/")[2], part.name))

    def find(self, wanted: Array, begins: Mapping[str, int] | None = None) -> list[Hit]:
        """Rows whose ids have one of these hashes, which are distinct and sorted; of each part, where ``begins`` is
        given, those from that row on, of parts that it names.
        """
        hits: list[Hit] = []
        if not len(wanted):
            return hits
        for name in self._parts if begins is None else begins:
            there, rows = self._entries[name]
            found, which = _few_in(wanted, there) if len(wanted) * 20 < len(there) else _many_in(wanted, there)
            found = rows[found]
            late = found >= (0 if begins is None else begins[name])
            every = zip(found[late].tolist(), which[late].tolist(), strict=True)
            hits += [Hit(name, row, place) for row, place in every]
        return hits

    def version(self, name: str) -> str | None:
        """The version of a part; None where the part is gone."""
        return self._parts[name].version if name in self._parts else None

    def rows(self, name: str, rows: Sequence[int], columns: Sequence[str]) -> pyarrow.Table | None:
        """Rows of a part, with those of ``columns`` that it has; None where the part is gone."""
        if name not in self._parts:
            return None
        key = tuple(columns)
        if self._read is None or self._read[:2] != (name, key) or self._read[2].num_rows <= max(rows):
            table = self._table(name, columns)
            if table is None or table.num_rows <= max(rows):
                return None
            self._read = (name, key, table)
        return self._read[2].take(arrow().array(rows))

    def _table(self, name: str, columns: Sequence[str] | None) -> pyarrow.Table | None:
        parquet = self._segments / self._folder.name / f"{name}.parquet"
        spool = parquet.with_suffix(SUFFIX)
        for path in (parquet, spool, parquet):  # it may become the other while we look
            with contextlib.suppress(FileNotFoundError):
                size = self._spools().get(str(spool.relative_to(self._segments)), 0)
                return _read(path, size, columns)
        return None

    def _indexed(self, name: str, path: Path, kept: int) -> Part:
        is_spool = path.suffix != ".parquet"
        mark = kept if is_spool else -1  # a Parquet file never changes
        if self._marks.get(name) == mark:
            return self._parts[name]
        known = self._entries.get(name, self._load(name))
        if is_spool or known is None or known.shape[1] != arrow().parquet.read_metadata(path).num_rows:
            ids = _read(path, kept, ["prediction_id"])["prediction_id"]
            begin = known.shape[1] if known is not None else 0
            hashed = hashes(id or "" for id in ids[begin:].to_pylist())
            fresh = np.stack([hashed, np.arange(begin, len(ids), dtype="<u8")])
            entries = np.concatenate([known, fresh], axis=1) if known is not None else fresh
            known = entries[:, np.argsort(entries[0])]
        if not is_spool and not self._index_of(name).exists():
            self._save(name, known)
        self._entries[name], self._marks[name] = known, mark
        return Part(name, unquote(name.partition("/")[0].removeprefix("version=")), known.shape[1])

    def _index_of(self, name: str) -> Path:
        return self._index / f"{name}.npy"

    def _load(self, name: str) -> Array | None:
        with contextlib.suppress(OSError, ValueError):
            found: Array = np.load(self._index_of(name), mmap_mode="r")
            if found.dtype == np.dtype("<u8") and found.ndim == 2 and len(found) == 2:
                return found
        return None

    def _save(self, name: str, entries: Array) -> None:
        path = self._index_of(name)
        with contextlib.suppress(OSError):  # without room for it, it is made again by the next process
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            making = path.with_suffix(".making")
            with making.open("wb") as file:
                np.save(file, entries)
            making.rename(path)


def _few_in(wanted: Array, there: Array) -> tuple[Array, Array]:
    """Places in ``there`` of hashes that are wanted, and which: both are sorted, and few are wanted."""
    begins, ends = np.searchsorted(there, wanted, "left"), np.searchsorted(there, wanted, "right")
    which = np.repeat(np.arange(len(wanted)), ends - begins)
    places = [place for begin, end in zip(begins.tolist(), ends.tolist(), strict=True) for place in range(begin, end)]
    return np.array(places, dtype="int64"), which


def _many_in(wanted: Array, there: Array) -> tuple[Array, Array]:
    """The same where many are."""
    places = np.searchsorted(wanted, there)
    places[places == len(wanted)] = 0
    found = np.flatnonzero(wanted[places] == there)
    return found, places[found]


def arrow() -> Any:
    """The library. Raises MissingDependency."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingDependency.extra("pyarrow", "records", "joining labels with predictions") from None
    return pyarrow


def _read(path: Path, kept: int, columns: Sequence[str] | None) -> pyarrow.Table:
    """A part's rows, of a spool those in its first bytes. Raises OSError, ArrowInvalid."""
    pa = arrow()
    if path.suffix == ".parquet":
        with pa.parquet.ParquetFile(path) as file:
            there = file.schema_arrow.names
            return file.read(columns=[name for name in columns or there if name in there])
    with path.open("rb") as spool:
        data = pa.py_buffer(spool.read(kept))
    there = pa.ipc.read_schema(data).names
    chosen = [place for place, name in enumerate(there) if columns is None or name in columns]
    batches = []
    with pa.ipc.open_stream(data, options=pa.ipc.IpcReadOptions(included_fields=chosen)) as stream:
        with contextlib.suppress(StopIteration, pa.ArrowInvalid, OSError):  # it ends there
            while True:
                batches.append(stream.read_next_batch())
        return pa.Table.from_batches(batches, stream.schema)
