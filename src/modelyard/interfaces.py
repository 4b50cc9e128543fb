"""The seams, on one page. Anything with these methods fits; nothing needs to inherit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import msgspec

from modelyard.messages import Call, Message, Request, Response
from modelyard.schema import Columns, Signature
from modelyard.truth import Label, Receipt

#: A loaded model: the columns of the inputs in, the columns of the outputs out. Model code never sees a wire.
Predict = Callable[[Columns], Columns]


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which runtime loads a bundle's model and what it needs to know: file names, tensor names, classes."""

    runtime: str
    options: dict[str, Any] = {}


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What can be read off a live model without running it."""

    #: ``regression``, ``classification`` or ``other``.
    task: str
    #: Library and class, outermost first: ``sklearn.pipeline.Pipeline``.
    kind: str
    feature_names: tuple[str, ...] | None = None
    feature_count: int | None = None
    #: Class labels in the model's own order, with their own types (str, int, float or bool).
    classes: tuple[Any, ...] | None = None
    has_probabilities: bool = False
    #: Number of targets; more than 1 gives the prediction a shape.
    targets: int = 1


@runtime_checkable
class Runtime(Protocol):
    """Loads and saves one model format.

    One whose predictions run no Python has ``is_native = True`` beside these: its models may then run in the server's
    own process, where all others get processes of their own.
    """

    name: str

    def claims(self, thing: object) -> bool:
        """Whether ``thing``, a live model or a path, is of this format. Imports no library to find out."""

    def read(self, path: Path) -> Any:
        """The live model in a file of this format. Never runs code from the file."""

    def describe(self, model: Any) -> ModelFacts:
        """What the model is."""

    def predictor(self, model: Any, signature: Signature) -> Predict:
        """A plain function over the live model."""

    def save(self, model: Any, folder: Path) -> dict[str, Any]:
        """Write the model into ``folder``, the same bytes for the same model; return the spec's options."""

    def load(self, folder: Path, spec: ModelSpec, signature: Signature, device: str = "cpu") -> Predict:
        """The saved model as a plain function."""


@runtime_checkable
class Settles(Protocol):
    """What a runtime has beside the rest where only a trial tells how a live model wants to be called."""

    def settle(self, model: Any, signature: Signature, rows: Columns) -> dict[str, Any]:
        """Try some rows of the sample; the options found go into the spec."""

    def predictor_as(self, model: Any, signature: Signature, options: Mapping[str, Any]) -> Predict:
        """A plain function over the live model, called as these options say."""


@runtime_checkable
class Served(Protocol):
    """One loaded version, as wires see it."""

    name: str
    #: The number as text; "" for a bundle that no registry has numbered.
    version: str
    signature: Signature
    digest: str
    #: ``runtime`` that loads it: ``onnx``, ``sklearn`` ...
    platform: str
    task: str
    aliases: tuple[str, ...]
    metrics: dict[str, Any]

    @property
    def is_alive(self) -> bool:
        """Whether it can answer: a model in processes of its own may be without one for a moment."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How a declared version fares."""

    model: str
    #: "" where no registry has numbered it, or where it is not known yet.
    version: str
    #: ``loading``, ``ready``, ``unloading``, ``unloaded`` or ``failed``.
    state: str
    #: Why it failed, in words; else "".
    reason: str = ""
    #: The error itself where it failed.
    error: Exception | None = None


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one loaded version since it was loaded. Times are seconds, summed over requests or calls."""

    requests: int
    failures: int
    rows: int
    calls: int
    decode: float
    queue: float
    predict: float
    encode: float
    #: When the last request was answered, in seconds since 1970; 0 before the first.
    last: float
    #: Calls of the model by the number of rows they had, to the nearest power of 2 upward: rows -> (calls, seconds).
    batches: dict[int, tuple[int, float]]
    cache_hits: int = 0
    #: Bytes of memory that the version takes; None where it was not measured.
    memory: int | None = None


@runtime_checkable
class Catalog(Protocol):
    """What a server serves, as wires see it."""

    @property
    def ready(self) -> bool:
        """True once every declared model is loaded, warmed and has reproduced its golden rows."""

    @property
    def draining(self) -> bool:
        """Whether the server is stopping: what comes is answered, but had better go elsewhere."""

    def models(self) -> Sequence[Served]:
        """Every loaded version."""

    def find(self, model: str | None, version: str | None, alias: str | None) -> Served:
        """The loaded version that a call means. Raises NotFound, or NotReady while it loads."""

    def faults(self) -> dict[str, str]:
        """Why, for each declared reference whose newest version is not served."""

    def states(self) -> Sequence[State]:
        """Every version that is or was declared, and how it fares."""

    def stats(self, served: Served) -> Stats:
        """What was counted for a loaded version, in all workers."""

    def label(self, served: Served, labels: Sequence[Label]) -> Receipt:
        """Keep the truth about predictions of a model, whichever version made them; durable once this returns.

        It waits for a disk: calls that use it are ``is_slow``. Raises RemoteFailed.
        """

    # Changes asked for over a wire. They block, so their calls are ``is_slow``; all raise Refused where the server
    # was not told to allow them.

    def load(self, reference: str) -> Served:
        """Serve one more reference (``churn``, ``churn:4``, ``name=path``), or look a served one up anew.

        Returns once it serves; raises what stood in the way, and then all is as before.
        """

    def unload(self, model: str) -> None:
        """Stop serving a model, every version of it. Raises NotFound."""

    def replace(self, references: Sequence[str]) -> None:
        """Serve exactly these references. Where one fails, raises and all is as before."""


@runtime_checkable
class Codec(Protocol):
    """A wire's way with one loaded version, compiled once so that requests pay for nothing else."""

    def decode(self, body: Any, headers: Mapping[str, str]) -> Request:
        """The rows in the body of a message, whose headers have lower-case names. Raises InvalidInput.

        ``body`` is bytes, or what the wire's ``address`` made of them.
        """

    def encode(self, request: Request, response: Response) -> Message:
        """The answer."""


@runtime_checkable
class Wire(Protocol):
    """One wire protocol: bytes in, bytes out, no sockets."""

    name: str
    #: What the paths of this wire start with (``/v2``); "" for the one that answers for all others.
    prefix: str

    def match(self, method: str, path: str) -> Call | None:
        """The call that a method and a path (still percent-encoded, no query) mean, or None if not this wire's."""

    def codec(self, call: Call, served: Served) -> Codec:
        """How ``predict`` calls of a loaded version are read and answered."""

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        """The answer to any other call."""

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        """The answer that tells of an error."""


@runtime_checkable
class Addresses(Protocol):
    """What a wire has beside the rest where a message itself says which model it is for (``Call.is_inside``)."""

    def address(self, call: Call, message: Message) -> tuple[Call, Any]:
        """The call that a message means, not ``is_inside``, and what ``decode`` shall take in place of its bytes.

        Raises InvalidInput where the message cannot be read.
        """


@runtime_checkable
class Describes(Protocol):
    """What a wire of gRPC has beside the rest where clients may ask what it speaks (server reflection)."""

    def descriptors(self) -> Sequence[bytes]:
        """Its files, each after those that it imports, as serialized ``FileDescriptorProto``."""


@runtime_checkable
class Ledger(Protocol):
    """Keeps the truth about predictions, exactly once: what is told again changes nothing."""

    def add(self, model: str, labels: Sequence[Label]) -> Receipt:
        """Keep labels, which are durable once this returns. Safe for threads.

        Where it raises, some may have been kept: all can be sent again.
        """


@runtime_checkable
class Store(Protocol):
    """Blobs by digest (``sha256:<64 hex>``) only; names live in the registry."""

    def put(self, source: Path | bytes | Iterable[bytes]) -> str:
        """Keep the bytes (of a file, as they are, or in chunks); return their digest.

        Putting the same bytes twice is putting them once. Where the source raises, nothing is kept.
        """

    def get(self, digest: str) -> BinaryIO:
        """The bytes, to be read from the start. Raises NotFound; BadBundle where they are not what was put."""

    def has(self, digest: str) -> bool: ...

    def delete(self, digest: str) -> None:
        """Forget the bytes. Forgetting what is not there is fine."""

    def digests(self) -> Iterator[str]:
        """The digest of every blob."""
