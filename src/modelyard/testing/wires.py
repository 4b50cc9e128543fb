"""The conformance kit of the Wire seam, and a wire that is as small as one can be.

    @pytest.mark.parametrize("check", CHECKS)
    def test_mine(check):
        check(Case(MyWire(), predict=("POST", "/mine"), good={...}, bad=[...], informs=[("GET", "/mine/health")]))

``check_wire`` runs them all. Each check raises AssertionError saying what is wrong; none needs a test library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from modelyard import errors
from modelyard.decoding import RowDecoder
from modelyard.errors import InvalidInput, ModelyardError, NotFound
from modelyard.interfaces import Addresses, Catalog, Codec, Served, State, Stats, Wire
from modelyard.messages import Batch, Call, Message, Request, Response
from modelyard.schema import Columns, Field, Signature
from modelyard.truth import Label, Receipt

#: The model of the kit: two numbers and a nullable text in; a label and its probabilities out.
SIGNATURE = Signature(
    inputs=(
        Field(name="x1", dtype="float64"),
        Field(name="city", dtype="string", nullable=True),
        Field(name="x2", dtype="float64"),
    ),
    outputs=(
        Field(name="prediction", dtype="string", categories=("no", "yes")),
        Field(name="probabilities", dtype="float64", shape=(2,), categories=("no", "yes")),
    ),
)


class KitServed(msgspec.Struct, kw_only=True):
    """A ``Served`` that nothing had to load."""

    name: str = "kit"
    version: str = "3"
    signature: Signature = SIGNATURE
    digest: str = "sha256:" + "0" * 64
    platform: str = "memory"
    task: str = "classification"
    aliases: tuple[str, ...] = ("production",)
    metrics: dict[str, Any] = {}
    is_alive: bool = True


class KitCatalog:
    """A ``Catalog`` of one model."""

    def __init__(self, served: KitServed | None = None, *, ready: bool = True, draining: bool = False) -> None:
        self.served = served or KitServed()
        self.ready = ready
        self.draining = draining
        #: The truth that was told.
        self.labels: list[Label] = []

    def models(self) -> Sequence[Served]:
        return [self.served]

    def find(self, model: str | None, version: str | None, alias: str | None) -> Served:
        served = self.served
        if model not in (None, served.name):
            raise NotFound.among("model", str(model), [served.name])
        if version not in (None, served.version):
            raise NotFound.among("version", str(version), [served.version])
        if alias is not None and alias not in served.aliases:
            raise NotFound.among("alias", alias, served.aliases)
        return served

    def faults(self) -> dict[str, str]:
        return {} if self.ready else {"kit": "not loaded yet"}

    def states(self) -> Sequence[State]:
        return [State(model=self.served.name, version=self.served.version, state="ready" if self.ready else "loading")]

    def stats(self, served: Served) -> Stats:
        return Stats(
            requests=3, failures=1, rows=5, calls=2, decode=0.001, queue=0.002, predict=0.003, encode=0.004,
            last=1.7e9, batches={1: (1, 0.001), 4: (1, 0.002)},
        )  # fmt: skip

    def label(self, served: Served, labels: Sequence[Label]) -> Receipt:
        self.labels += labels
        return Receipt(received=len(labels), new=len(labels))

    def load(self, reference: str) -> Served:
        if reference.partition("=")[0].partition(":")[0].partition("@")[0] != self.served.name:
            raise NotFound.among("model", reference, [self.served.name])
        return self.served

    def unload(self, model: str) -> None:
        self.find(model, None, None)

    def replace(self, references: Sequence[str]) -> None:
        for reference in references:
            self.load(reference)


@dataclass
class Case:
    """A wire, and what to ask it."""

    wire: Wire
    #: Method and path of a predict call that means the model of the kit.
    predict: tuple[str, str]
    #: Body -> the rows that it means: dicts of x1, city and x2.
    good: Mapping[bytes, list[dict[str, Any]]]
    bad: Sequence[bytes]
    #: Method and path of calls that ``inform`` answers.
    informs: Sequence[tuple[str, str]] = ()
    headers: dict[str, str] = field(default_factory=dict)
    #: Whether the protocol writes NaN and infinities as bare words, which JSON does not have.
    has_words: bool = False

    @property
    def call(self) -> Call:
        call = self.wire.match(*self.predict)
        assert call is not None, f"{self.wire.name} does not know its own path {self.predict}"
        return call

    @property
    def codec(self) -> Codec:
        return self.wire.codec(self.call, KitServed())

    def decode(self, body: bytes) -> Request:
        opened: Any = body
        if self.call.is_inside:
            assert isinstance(self.wire, Addresses), f"{self.wire.name} does not address its calls"
            call, opened = self.wire.address(self.call, Message(body, self.headers))
            assert call.action == "predict" and not call.is_inside, f"{body!r} means {call}"
        return self.codec.decode(opened, self.headers)


def columns_of(request: Request) -> Columns:
    """The rows of a request as columns."""
    if request.columns is not None:
        return request.columns
    return SIGNATURE.input_layout.from_tuples(request.tuples or [])


def outputs(rows: int, *, start: int = 0, gap: bool = False) -> Columns:
    """Outputs of the kit's model for ``rows`` rows; row i has probability i / 100 of ``yes``."""
    yes = (np.arange(rows) + start) / 100.0
    probabilities = np.stack([1 - yes, yes], axis=1)
    if gap:
        probabilities[0] = np.nan
    labels = np.where(yes > 0.5, "yes", "no").astype(object)
    return (
        SIGNATURE.output_layout.from_arrays({"prediction": labels, "probabilities": probabilities})
        if not gap
        else (Columns(SIGNATURE.output_layout, [labels[:, None], probabilities], rows))
    )


def check_matches_only_its_own(case: Case) -> None:
    """``match`` knows the predict path, knows no foreign one, and never raises."""
    call = case.call
    assert call.action == "predict", f"{case.predict} means {call.action}"
    assert call.model in (None, "kit")
    for method in ("GET", "POST", "DELETE", "", "É"):
        for path in (
            "/",
            "",
            "*",
            "/%",
            "/%ff/%00",
            "/no/such/path",
            "//",
            "/" * 5000,
            "/a" * 3000,
            "/\u00e9",
            "http:x",
        ):
            found = case.wire.match(method, path)
            assert found is None or found.action != "predict", f"{method} {path[:40]} means predict"


def check_decodes_what_is_good(case: Case) -> None:
    """Every good body gives the rows that it means."""
    for body, rows in case.good.items():
        request = case.decode(body)
        assert request.rows == len(rows), f"{body!r}: {request.rows} rows, expected {len(rows)}"
        assert (request.tuples is None) != (request.columns is None), f"{body!r}: tuples or columns, not both"
        got = columns_of(request)
        for name in ("x1", "x2", "city"):
            expected = [row[name] for row in rows]
            assert got[name].tolist() == expected, f"{body!r}: {name} is {got[name].tolist()}, expected {expected}"


def check_refuses_what_is_bad(case: Case) -> None:
    """Every bad body, and junk, raises InvalidInput that names a problem, and nothing else."""
    junk = [b"", b"\x00", b"{", b"[", b"null", b"[" * 100_000, b"\xff\xfe", b'{"a":' * 50_000, b"NaN", b"1e999"]
    cut = [body[:i] for body in case.good for i in range(0, len(body), 7)]
    for body in [*case.bad, *junk, *cut]:
        try:
            case.decode(body)
        except InvalidInput as error:
            assert error.problems, f"{body[:60]!r}: no problem is named"
        else:
            raise AssertionError(f"{body[:60]!r} was taken")


def check_answers_each_request_its_own_rows(case: Case) -> None:
    """Rows of a joined batch are answered exactly as if they had been alone."""
    for body, rows in case.good.items():
        request = case.decode(body)
        alone = Response(Batch(outputs(len(rows), start=7)), 0, len(rows), "id-1")
        joined = Response(Batch(outputs(len(rows) + 20, start=0)), 7, 7 + len(rows), "id-1")
        one, other = case.codec.encode(request, alone), case.codec.encode(request, joined)
        assert one.code == other.code == "ok"
        assert one.body == other.body, f"{one.body!r} alone, {other.body!r} joined"
        assert one.headers == other.headers


def check_answers_stay_json_with_gaps(case: Case) -> None:
    """NaN in an output leaves the answer valid, where it is JSON."""
    for body, rows in case.good.items():
        request = case.decode(body)
        message = case.codec.encode(request, Response(Batch(outputs(len(rows), gap=True)), 0, len(rows), "id-1"))
        if case.has_words and message.content_type == "application/json":
            json.loads(message.body)  # Python knows them
        else:
            _check_json(message)


def _check_json(message: Message) -> None:
    if message.content_type == "application/json":
        try:
            json.loads(message.body, parse_constant=_no_constant)
        except ValueError as error:
            raise AssertionError(f"not JSON, though it says so: {message.body[:200]!r}: {error}") from error


def _no_constant(text: str) -> None:
    raise AssertionError(f"{text} is not JSON")


def check_refusals_carry_their_code(case: Case) -> None:
    """Every error of the tree is told under its own code word, with its message; a bug without its insides."""
    for kind in (
        errors.InvalidInput, errors.NotFound, errors.Conflict, errors.Refused, errors.NotReady, errors.Overloaded,
        errors.ModelFailed, errors.MissingDependency, errors.BadBundle, errors.RemoteFailed,
    ):  # fmt: skip
        for call in (case.call, None):
            message = case.wire.refuse(call, kind('what happened: "this" \u2028', hint="do that"), "id-1")
            assert message.code == kind.code, f"{kind.__name__} is told as {message.code}"
            assert b"what happened" in _told(message)
            _check_json(message)
    bug = case.wire.refuse(case.call, ZeroDivisionError("secret"), "id-1")
    assert bug.code == "internal"
    assert b"secret" not in _told(bug)


def _told(message: Message) -> bytes:
    """All that a refusal says, in its body or its headers."""
    return b" ".join([message.body, *(value.encode() for value in message.headers.values())])


def check_informs(case: Case) -> None:
    """Informing calls answer, or raise an error of the tree, whether or not the server is ready."""
    for method, path in case.informs:
        call = case.wire.match(method, path)
        assert call is not None, f"{method} {path} is not known"
        assert call.action != "predict", f"{method} {path} means predict"
        for ready in (True, False):
            catalog: Catalog = KitCatalog(ready=ready)
            try:
                message = case.wire.inform(call, Message(b""), catalog)
            except ModelyardError:
                assert not ready, f"{method} {path} is refused though the server is ready"
            else:
                _check_json(message)


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_matches_only_its_own,
    check_decodes_what_is_good,
    check_refuses_what_is_bad,
    check_answers_each_request_its_own_rows,
    check_answers_stay_json_with_gaps,
    check_refusals_carry_their_code,
    check_informs,
)


def check_wire(case: Case) -> None:
    """All checks."""
    for check in CHECKS:
        check(case)


class MemoryWire:
    """The smallest wire: ``POST /memory`` takes records and answers a list of lists."""

    name = "memory"
    prefix = "/memory"

    def match(self, method: str, path: str) -> Call | None:
        return Call("predict") if (method, path) == ("POST", "/memory") else None

    def codec(self, call: Call, served: Served) -> Codec:
        return _MemoryCodec(served)

    def inform(self, call: Call, message: Message, catalog: Catalog) -> Message:
        raise NotFound(f"nothing to tell: {call.action}")

    def refuse(self, call: Call | None, error: Exception, request_id: str) -> Message:
        if isinstance(error, ModelyardError):
            return Message(error.message.encode(), code=error.code, content_type="text/plain; charset=utf-8")
        return Message(b"a bug", code="internal", content_type="text/plain; charset=utf-8")


class _MemoryCodec:
    def __init__(self, served: Served) -> None:
        self._served = served

    def decode(self, body: bytes, headers: Mapping[str, str]) -> Request:
        return RowDecoder.of(self._served.signature.inputs).decode(body)

    def encode(self, request: Request, response: Response) -> Message:
        values = [response.batch.values(f.name)[response.start : response.stop] for f in self._served.signature.outputs]
        return Message(msgspec.json.encode(values))
