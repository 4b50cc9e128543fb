"""Pickle and joblib files: looked at without running anything, and loaded through the allow list.

A pickle is a program. ``look`` runs that program on a machine that knows no names: whatever it imports becomes an
inert ``Stub`` and its name is noted; calls are noted and not made. ``load`` runs it on a machine that knows only the
names on the allow list, so what the look concluded is enforced again when it counts. Both machines read joblib's
arrays themselves, and joblib's nested pickles (arrays of objects) with a machine of their own kind.

What this does not promise: a file of allowed names may still hold absurd numbers (a tree whose children lie outside
it), and compiled predictors believe their numbers. That can crash or answer nonsense, as with any format that holds
the same numbers; golden rows and a digest from somebody you know are what helps there.
"""

from __future__ import annotations

import _compat_pickle
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import msgspec
import numpy as np

from modelyard.bundle import allowed, dtypes
from modelyard.bundle.manifest import digest_of
from modelyard.bundle.streams import TooLarge, compression_of, open_stream
from modelyard.errors import MissingDependency

#: Bounds of one look: operations, nested pickles, distinct names.
MOST_OPERATIONS = 20_000_000
DEEPEST = 8
MOST_NAMES = 5_000

_ARRAY_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_OLD_WRAPPERS = {
    (module, name)
    for module in ("joblib.numpy_pickle", "joblib.numpy_pickle_compat", "sklearn.externals.joblib.numpy_pickle")
    for name in ("NDArrayWrapper", "ZNDArrayWrapper")
}
_DTYPE = "numpy.dtype"

#: What a damaged or hostile pickle may make the machines raise.
FAULTS = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError,
    OverflowError, MemoryError, RecursionError, OSError, ImportError,
)  # fmt: skip


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What loading a pickle or joblib file would import. Made without running anything.

    ``imports`` are all names, ``unknown`` those that are not on the allow list. ``complete`` is False where the file
    could not be followed to its end, for ``reason``; such a file is never taken for harmless. ``versions`` holds
    those of libraries that the file names (``scikit-learn``).
    """

    digest: str
    compression: str = ""
    uses_joblib: bool = False
    imports: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    complete: bool = True
    reason: str = ""
    versions: dict[str, tuple[str, ...]] = {}

    @property
    def spreads(self) -> bool:
        """Whether arrays lie in files of their own beside it, as joblib before 0.10 kept them."""
        return any(f"{module}.{name}" in self.imports for module, name in _OLD_WRAPPERS)

    @property
    def harmless(self) -> bool:
        """Whether the file was followed to its end and imports only what is on the allow list."""
        return self.complete and not self.unknown


class NotFollowed(pickle.UnpicklingError):
    """The machine will not go on: the reason is the message."""


class Stub:
    """An imported name, or what a call of it would have made. Does nothing."""

    __slots__ = ("args", "made", "name", "state")

    def __init__(self, name: str, args: Any = (), made: bool = False) -> None:
        self.name = name
        self.args = args
        self.made = made
        self.state: Any = None


class _Payload:
    """Stands for joblib's array wrapper; the array follows in the file."""


#: The standard library's unpickler written in Python, one method per operation. joblib builds on it too.
_Unpickler: Any = pickle._Unpickler
_internals: Any = pickle


class _Machine(_Unpickler):  # type: ignore[misc]  # its type is not published
    """What both machines share: bounds, no persistent ids, no extension registry, joblib's arrays."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_Unpickler.dispatch)

    def __init__(self, file: BinaryIO, depth: int = 0) -> None:
        super().__init__(file)
        self.file = file
        self.depth = depth
        if depth > DEEPEST:
            raise NotFollowed("pickles nested too deep")

    def load(self) -> Any:
        self._unframer = _internals._Unframer(self._file_read, self._file_readline)
        self.read = self._unframer.read
        self.readinto = self._unframer.readinto
        self.readline = self._unframer.readline
        self.metastack: list[Any] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        read, dispatch = self.read, self.dispatch
        try:
            for _ in range(MOST_OPERATIONS):
                key = read(1)
                if not key:
                    raise EOFError("it ends too early")
                operation = dispatch.get(key[0])
                if operation is None:
                    raise NotFollowed(f"unknown operation {key[0]:#04x}")
                operation(self)
        except _internals._Stop as stop:
            return stop.value
        raise NotFollowed(f"more than {MOST_OPERATIONS} operations")

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:  # names of Python 2, as pickle itself maps them
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[(module, name)]
            else:
                module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        return self.named(module, name)

    def named(self, module: str, name: str) -> Any:
        raise NotImplementedError

    def persistent_load(self, pid: Any) -> Any:
        raise NotFollowed("it refers to objects outside the file (a persistent id)")

    def get_extension(self, code: int) -> None:
        raise NotFollowed("it names imports by a number of this process's own (an extension code)")

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def array_bytes(self, state: Any, dtype: np.dtype[Any]) -> int:
        """Skip joblib's padding and return how many bytes of array follow."""
        shape = state.get("shape")
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise NotFollowed("an array with a shape that is not read")
        if state.get("numpy_array_alignment_bytes") is not None:
            (padding,) = self.file.read(1)
            self.file.read(padding)
        size = dtype.itemsize
        for n in shape:
            size *= n
        return size


class _Scanner(_Machine):
    """Follows a pickle without importing or calling. ``found`` collects names, ``versions`` of scikit-learn."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_Machine.dispatch)

    def __init__(self, file: BinaryIO, found: set[tuple[str, str]], versions: set[str], depth: int = 0) -> None:
        super().__init__(file, depth)
        self.found = found
        self.versions = versions

    def named(self, module: str, name: str) -> Stub:
        self.found.add((module, name))
        if len(self.found) > MOST_NAMES:
            raise NotFollowed(f"more than {MOST_NAMES} imports")
        if (module, name) in _OLD_WRAPPERS:
            raise NotFollowed("joblib before 0.10 keeps arrays in files of their own")
        return Stub(f"{module}.{name}")

    def _make(self, callee: Any, args: Any) -> Stub:
        return Stub(callee.name if isinstance(callee, Stub) else type(callee).__name__, args, made=True)

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(self._make(klass, args))

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], args)

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_reduce

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_reduce()

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Stub):
            return
        target.state = state
        if isinstance(state, dict):
            version = state.get("_sklearn_version")
            if isinstance(version, str) and len(version) < 40:
                self.versions.add(version)
            if target.made and target.name == ".".join(_ARRAY_WRAPPER):
                self._skip_array(state)

    dispatch[pickle.BUILD[0]] = load_build

    def _skip_array(self, state: dict[Any, Any]) -> None:
        dtype = _dtype_of(state.get("dtype"))
        if dtype.hasobject:
            _Scanner(self.file, self.found, self.versions, self.depth + 1).load()
            return
        left = self.array_bytes(state, dtype)
        while left:
            data = self.file.read(min(left, 1024**2))
            if not data:
                raise EOFError("it ends within an array")
            left -= len(data)

    # A stub takes whatever is put into it and keeps nothing.

    def load_append(self) -> None:
        value = self.stack.pop()
        if isinstance(self.stack[-1], list):
            self.stack[-1].append(value)

    dispatch[pickle.APPEND[0]] = load_append

    def load_appends(self) -> None:
        items = self.pop_mark()
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    dispatch[pickle.APPENDS[0]] = load_appends

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        if isinstance(self.stack[-1], dict):
            self.stack[-1][key] = value

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        items = self.pop_mark()
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_additems(self) -> None:
        items = self.pop_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(items)

    dispatch[pickle.ADDITEMS[0]] = load_additems


def _dtype_of(stub: Any) -> np.dtype[Any]:
    """The dtype that a stub of ``numpy.dtype`` describes. Raises Dishonest."""
    if not isinstance(stub, Stub) or stub.name != _DTYPE or not isinstance(stub.args, tuple) or not stub.args:
        raise NotFollowed("an array whose dtype is not read")
    start = dtypes.simple(stub.args[0])
    if stub.state is None:
        return start
    state = stub.state
    if isinstance(state, tuple) and len(state) > 4 and isinstance(state[4], dict):
        fields = {name: (_dtype_of(value[0]), *value[1:]) for name, value in state[4].items()}
        state = (*state[:4], fields, *state[5:])
    return dtypes.checked(start, state)


class _Loader(_Machine):
    """Loads a pickle, importing names of the allow list only."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_Machine.dispatch)

    def named(self, module: str, name: str) -> Any:
        if (module, name) == _ARRAY_WRAPPER:
            return _Payload
        if not allowed.is_allowed(module, name):
            raise NotFollowed(f"not on the allow list: {module}.{name}")
        __import__(module)
        return getattr(sys.modules[module], name)

    # Honest pickles name array classes for ``_reconstruct`` and never call them; called with a buffer and the dtype of
    # objects, they take any bytes for the addresses of objects.

    def load_reduce(self) -> None:
        _check_callee(self.stack[-2])
        super().load_reduce()

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        _check_callee(self.stack[-2])
        super().load_newobj()

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_newobj_ex(self) -> None:
        _check_callee(self.stack[-3])
        super().load_newobj_ex()

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex

    def _instantiate(self, klass: Any, args: Any) -> None:
        _check_callee(klass)
        super()._instantiate(klass, args)

    def load_build(self) -> None:
        state, target = self.stack[-1], self.stack[-2]
        if isinstance(target, np.dtype):
            dtypes.checked(target, state)
            if target.isbuiltin and target is np.dtype(target.str):
                raise NotFollowed("it would change a dtype of numpy's own")
        elif isinstance(target, (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, np.ufunc)):
            raise NotFollowed("it would change what it has imported")
        super().load_build()
        if isinstance(self.stack[-1], _Payload):
            self.stack[-1] = self._read_array(vars(self.stack[-1]))

    dispatch[pickle.BUILD[0]] = load_build

    def _read_array(self, state: dict[str, Any]) -> Any:
        dtype = state.get("dtype")
        if not isinstance(dtype, np.dtype):
            raise NotFollowed("an array without a dtype")
        if dtype.hasobject:
            return _Loader(self.file, self.depth + 1).load()
        size = self.array_bytes(state, dtype)
        data = self.file.read(size)
        if len(data) < size:
            raise EOFError("it ends within an array")
        flat = np.frombuffer(bytearray(data), dtype=dtype)
        if not dtype.isnative:  # as joblib has it
            flat = flat.astype(dtype.newbyteorder("="))
        shape = state["shape"]
        return flat.reshape(shape[::-1]).transpose() if state.get("order") == "F" else flat.reshape(shape)


def _check_callee(callee: Any) -> None:
    if isinstance(callee, type) and issubclass(callee, np.ndarray):
        raise NotFollowed("it would make an array of raw memory")


def look(source: Path | bytes) -> Look:
    """What a pickle or joblib file, or its content, would import, and the library versions it names. Runs nothing."""
    found: set[tuple[str, str]] = set()
    versions: set[str] = set()
    if isinstance(source, Path):
        with source.open("rb") as file:
            compression = compression_of(file.read(16))
    else:
        compression = compression_of(source[:16])
    reason = ""
    try:
        with open_stream(source) as stream:
            more = True
            while more:
                _Scanner(stream, found, versions).load()
                more = bool(stream.peek(1))  # type: ignore[attr-defined]  # a BufferedReader
    except TooLarge as error:
        reason = str(error)
    except MissingDependency as error:
        reason = error.message
    except NotFollowed as error:
        reason = str(error)
    except FAULTS as error:
        reason = f"damaged or truncated ({type(error).__name__}: {error})"
    imports = found - {_ARRAY_WRAPPER}
    return Look(
        digest=digest_of(source),
        compression=compression,
        uses_joblib=_ARRAY_WRAPPER in found or bool(found & _OLD_WRAPPERS),
        imports=tuple(sorted(f"{module}.{name}" for module, name in imports)),
        unknown=tuple(sorted(f"{module}.{name}" for module, name in imports if not allowed.is_allowed(module, name))),
        complete=not reason,
        reason=reason,
        versions={"scikit-learn": tuple(sorted(versions))} if versions else {},
    )


def load(source: Path | bytes) -> Any:
    """The object in a pickle or joblib file, or in its content, made from names of the allow list only.

    Raises ``NotFollowed`` where it wants anything else, and any of ``FAULTS`` where it is damaged.
    """
    with open_stream(source) as stream:
        return _Loader(stream).load()
