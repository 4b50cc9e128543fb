"""Bodies that come compressed (``Content-Encoding``), inflated up to what is accepted, and answers made smaller."""

from __future__ import annotations

import zlib
from functools import lru_cache

from modelyard.errors import InvalidInput, ModelyardError
from modelyard.messages import Message

#: How zlib is told what to expect. ``deflate`` means zlib's own form, but some clients send it bare.
_FORMS = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}


class Unsupported(ModelyardError):
    """The body is encoded as the server cannot read it."""

    code = "unsupported"


def inflate(body: bytes, encoding: str, most: int) -> bytes | None:
    """``body`` without its encoding; None where it would be longer than ``most`` bytes.

    Raises Unsupported for an unknown encoding, InvalidInput for what is not in the one named.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    forms = _FORMS.get(encoding)
    if forms is None:
        raise Unsupported(
            f"no such content encoding: {encoding[:40]} (known: gzip, deflate)",
            headers={"accept-encoding": "gzip, deflate"},
        )
    for form in forms:
        reader = zlib.decompressobj(form)
        try:
            plain = reader.decompress(body, most + 1)
        except zlib.error:
            continue
        if len(plain) > most:
            return None
        if reader.eof and not reader.unused_data:
            return plain
    raise InvalidInput.at("body", f"a whole {encoding} stream", "something else, or a part of one")


#: Answers from this many bytes on are compressed for those who take them so, and up to this many on the loop.
COMPRESSED_FROM = 1400
COMPRESSED_ON_LOOP = 65_536

#: Bodies of more compressed bytes than this are inflated in a thread: they may grow a thousandfold.
INFLATED_ON_LOOP = 16_384

#: Numbers in text shrink to a third at any level; the first is by far the quickest.
_LEVEL = 1

#: Bytes that tell whether the rest shrinks, and the share of them that must be saved.
_SAMPLE = 512
_WORTH = 0.1


@lru_cache(maxsize=64)
def coding(accepted: str) -> str:
    """The coding to answer in, by an ``Accept-Encoding`` header or gRPC's: ``gzip``, ``deflate`` or "" for none."""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, parameter = part.partition(";")
        told = parameter.strip().removeprefix("q=")
        try:
            weights[name.strip()] = float(told) if told else 1.0
        except ValueError:
            continue
    best = max(("gzip", "deflate"), key=lambda name: weights.get(name, weights.get("*", 0.0)))
    weight = weights.get(best, weights.get("*", 0.0))
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else ""


def shrinks(body: bytes) -> bool:
    """Whether compressing is worth its time, by how a body begins. Text is; floats as they lie in memory are not."""
    sample = body[:_SAMPLE]
    return len(zlib.compress(sample, _LEVEL)) < (1 - _WORTH) * len(sample)


def deflate(body: bytes, how: str) -> bytes:
    """``body`` in a coding that ``coding`` chose."""
    packer = zlib.compressobj(_LEVEL, wbits=31 if how == "gzip" else 15)
    return packer.compress(body) + packer.flush()


def compress(message: Message, how: str) -> Message:
    """The same for an answer of HTTP."""
    body = deflate(message.body, how)
    headers = {**message.headers, "content-encoding": how, "vary": "accept-encoding"}
    return Message(body, headers, message.code, message.content_type)
