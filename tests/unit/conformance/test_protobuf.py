"""Our few lines of protobuf against the library's."""

from __future__ import annotations

import pytest

from modelyard.conformance.oip_binary import unpack
from modelyard.conformance.protobuf import decode, encode, numbers, varint

descriptor = pytest.importorskip("google.protobuf.descriptor_pb2", reason="protobuf comes with an extra")
wrappers = pytest.importorskip("google.protobuf.wrappers_pb2")


@pytest.mark.parametrize("value", [0, 1, 127, 128, 2**31, 2**63 - 1, -1, -(2**63)])
def test_numbers_are_as_the_library_writes_them(value: int) -> None:
    assert encode([(1, value)]) == wrappers.Int64Value(value=value).SerializeToString() or value == 0
    assert numbers(decode(encode([(1, value)]))[1]) == [value]
    assert numbers([varint(value) + varint(3)]) == [value, 3]


def test_messages_are_as_the_library_writes_them() -> None:
    made = descriptor.FileDescriptorProto(
        name="a.proto", dependency=["b", "ç"], message_type=[{"name": "M", "field": [{"name": "x", "number": 7}]}]
    )
    fields = [(1, "a.proto"), (3, "b"), (3, "ç"), (4, [(1, "M"), (2, [(1, "x"), (3, 7)])])]
    assert encode(fields) == made.SerializeToString()
    told = decode(made.SerializeToString())
    assert told[3] == [b"b", "ç".encode()]
    assert decode(decode(told[4][0])[2][0]) == {1: [b"x"], 3: [7]}
    assert decode(wrappers.DoubleValue(value=1.5).SerializeToString())[1] == [b"\0\0\0\0\0\0\xf8?"]


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05ab", b"\xff", b"\xff" * 12, b"\x0b", b"\x09\0"], ids=repr)
def test_what_is_no_message_is_told(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut|wire type"):
        decode(message)


def test_raw_tensors_are_read() -> None:
    assert unpack("FP32", b"\0\0\xc0?\0\0\0\xc0") == [1.5, -2.0]
    assert unpack("BYTES", b"\4\0\0\0Rome\0\0\0\0") == ["Rome", ""]
