"""The wire on which the truth about predictions comes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.errors import InvalidInput, NotFound
from modelyard.interfaces import Wire
from modelyard.messages import Call, Message
from modelyard.schema import Field, Signature
from modelyard.testing.wires import SIGNATURE, KitCatalog, KitServed
from modelyard.truth import Label
from modelyard.wires import labels
from modelyard.wires.labels import LabelsWire

WIRE = LabelsWire()


def send(body: Any, kind: str = "application/json", path: str = "/labels", catalog: KitCatalog | None = None) -> Any:
    catalog = catalog or KitCatalog()
    call = WIRE.match("POST", path)
    assert call is not None and call.scope == "label" and call.is_slow
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = WIRE.inform(call, Message(sent, {"content-type": kind}), catalog)
    return json.loads(answer.body), catalog.labels


def test_it_is_a_wire_that_answers_to_its_own_paths_only() -> None:
    assert isinstance(WIRE, Wire)
    assert WIRE.match("GET", "/labels") is None and WIRE.match("POST", "/predict") is None
    assert WIRE.match("POST", "/models/a%2Fb/labels") == Call("labels", "a/b", scope="label", is_slow=True)


ONE = Label("p1", "yes")
TWO = [ONE, Label("p2.0", "no", "2026-01-05T09:30:00.000000Z")]
RECORDS: list[dict[str, str]] = [
    {"prediction_id": "p1", "label": "yes"},
    {"prediction_id": "p2.0", "label": "no", "time": "2026-01-05T09:30"},
]


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (RECORDS[0], "application/json", [ONE]),
        (RECORDS, "application/json; charset=utf-8", TWO),
        (RECORDS, "text/plain", TWO),
        ([], "application/json", []),
        (b"\n".join(json.dumps(r).encode() for r in RECORDS) + b"\n\n", "application/x-ndjson", TWO),
        (b"prediction_id,label,time\np1,yes,\np2.0,no,2026-01-05T09:30\n", "text/csv", TWO),
        (b'\xef\xbb\xbflabel,prediction_id\r\n"yes",p1\r\n', "text/csv", [ONE]),
    ],
)
@pytest.mark.parametrize("path", ["/labels", "/models/kit/labels"])
def test_forms(body: Any, kind: str, expected: list[Label], path: str) -> None:
    answer, kept = send(body, kind, path)
    assert kept == expected
    count = len(expected)
    assert answer == {"model": "kit", "received": count, "new": count, "repeated": 0, "corrected": 0, "late": 0}


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b"{", "application/json", "body: expected JSON"),
        (b"\xff", "application/json", "body: expected JSON"),
        (3, "application/json", "a record with prediction_id and label, got int"),
        ([[]], "application/json", r"\[0\].*a record"),
        ({"prediction_id": "p1", "label": "maybe"}, "application/json", "label: expected one of .*no, yes.*'maybe'"),
        ([RECORDS[0], {"prediction_id": "p2", "label": 3}], "application/json", r"\[1\]\.label: .*got 3"),
        ([{"label": "no"}], "application/json", r"\[0\]\.prediction_id: .*got nothing"),
        ([{"prediction_id": "p", "label": "no", "id": 1}], "application/json", r"\[0\]\.id: .*unknown name"),
        ([{"prediction_id": "p", "label": "no", "time": "soon"}], "application/json", r"\[0\]\.time: .*'soon'"),
        (b'{"prediction_id":"p1","label":"no"}\n{', "application/jsonlines", "line 2: expected JSON"),
        (b"id,label\np1,yes\n", "text/csv", "line 1: expected the header"),
        (b"", "text/csv", "line 1: expected the header"),
        (b"prediction_id,label,label\n", "text/csv", "line 1"),
        (b"prediction_id,label\np1\n", "text/csv", "line 2: expected 2 cells, got 1"),
        (b"prediction_id,label\np1,\n", "text/csv", "line 2.label: .*got nothing"),
        (b"prediction_id,label\n\xff,yes\n", "text/csv", "UTF-8"),
    ],
)
def test_what_does_not_fit_is_refused_whole(body: Any, kind: str, told: str) -> None:
    catalog = KitCatalog()
    with pytest.raises(InvalidInput, match=told):
        send(body, kind, catalog=catalog)
    assert not catalog.labels


def test_every_fault_is_told_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MOST_TOLD", 4)
    for sent, told in ((3, 3), (9, 4)):
        with pytest.raises(InvalidInput) as raised:
            send([RECORDS[0]] + [{"prediction_id": "p", "label": "odd"}] * sent)
        assert [p.path for p in raised.value.problems] == [f"[{n}].label" for n in range(1, told + 1)]


def test_more_than_a_request_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MOST_LABELS", 2)
    assert len(send(RECORDS)[1]) == 2
    with pytest.raises(InvalidInput, match="at most 2 labels"):
        send([*RECORDS, RECORDS[0]])


def test_an_unknown_model() -> None:
    with pytest.raises(NotFound):
        send(RECORDS, path="/models/other/labels")


def test_refusals_are_those_of_the_native_wire() -> None:
    told = json.loads(WIRE.refuse(None, InvalidInput.at("[0].label", "a class", "3"), "r1").body)
    assert told["error"]["problems"] == [{"path": "[0].label", "expected": "a class", "got": "3"}]


def test_what_a_label_looks_like_is_described() -> None:
    described = labels.schema_of(KitCatalog().served, KitCatalog())
    assert described is not None
    assert described["properties"]["label"] == {"enum": ["no", "yes"]} and described["additionalProperties"] is False
    embedding = Field(name="embedding", dtype="float32", shape=(8,))
    shaped = KitServed(signature=Signature(inputs=SIGNATURE.inputs, outputs=(embedding,)))
    assert labels.schema_of(shaped, KitCatalog(shaped)) is None
