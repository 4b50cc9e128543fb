"""What listeners put up with: sizes, seconds, and the errors for what goes beyond them."""

from __future__ import annotations

import re

from modelyard.errors import ModelyardError

#: Limits of a head: bytes in all, and headers.
MOST_HEAD_BYTES = 65_536
MOST_HEADERS = 128

#: Seconds that a connection may idle, take for a head, take before its body's rate is looked at, linger, or not read.
IDLE_SECONDS = 75.0
HEAD_SECONDS = 15.0
BODY_SECONDS = 30.0
LINGER_SECONDS = 2.0
STUCK_SECONDS = 60.0

#: A connection that had a request within this many seconds is likely to send another.
BUSY_SECONDS = 0.5

#: Bytes a second below which a body is given up.
SLOWEST_BODY = 1024

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@~-]{1,128}")


# The listener's own errors, not of the tree in ``modelyard.errors``: they speak of HTTP and never leave the server,
# so that neither the command line nor a caller in Python need know them.


class BadRequest(ModelyardError):
    """Not HTTP as it should be."""

    code = "bad_request"


class TooLarge(ModelyardError):
    """The body is larger than the server accepts."""

    code = "too_large"


class HeadTooLarge(ModelyardError):
    """The request's head is larger than the server accepts."""

    code = "head_too_large"


class TooSlow(ModelyardError):
    """The request did not arrive in time."""

    code = "too_slow"


class ExpectationFailed(ModelyardError):
    """An ``Expect`` header asks for what the server does not do."""

    code = "expectation_failed"


def head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"the head is larger than {MOST_HEAD_BYTES} bytes or {MOST_HEADERS} headers")


def is_slow_body(waited: float, received: int) -> bool:
    """Whether a body that began so many seconds ago, and of which so many bytes have come, is to be given up."""
    return waited > BODY_SECONDS + received / SLOWEST_BODY


def is_request_id(text: str) -> bool:
    """Whether a caller's request id can be taken over: at most 128 harmless characters."""
    return _REQUEST_ID.fullmatch(text) is not None
