"""Bodies that come compressed (``Content-Encoding``), inflated up to what the server accepts."""

from __future__ import annotations

import zlib

from modelyard.errors import InvalidInput, ModelyardError

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
