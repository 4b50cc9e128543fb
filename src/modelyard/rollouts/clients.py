"""Which clients were counted, and for which kinds of event: each once, in a bounded memory.

Of more clients than fit, a half that chance picks is followed from then on, of many more a quarter, and so on. Whether
a client is of that half depends on nothing else, so that both arms lose alike and what is counted stays fair evidence;
it only takes longer. A client that was counted before and is not followed any more is not counted again.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec
import numpy as np

#: Clients that are followed at most; nine bytes each in every checkpoint.
MOST_CLIENTS = 1 << 16

_ALL = 1 << 64


class Followed(msgspec.Struct, array_like=True):
    """The same to be kept: of the hashes those below a limit, and the events of each."""

    limit: int = _ALL - 1
    hashes: bytes = b""
    events: bytes = b""


class Clients:
    """The clients of one rollout. Events are bits of one byte."""

    def __init__(self, followed: Followed | None = None, most: int = MOST_CLIENTS) -> None:
        followed = followed or Followed()
        hashes: list[int] = np.frombuffer(followed.hashes, "<u8").tolist()
        self._events = dict(zip(hashes, followed.events, strict=True))
        self._limit = followed.limit
        self._most = most

    def __len__(self) -> int:
        return len(self._events)

    def fresh(self, client: str, events: int) -> int:
        """Those of these events that were not counted of this client yet, and are from now on; none of one who is not
        followed.
        """
        key = int.from_bytes(blake2b(client.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        if key > self._limit:
            return 0
        before = self._events.get(key, 0)
        if events & ~before:
            self._events[key] = before | events
            if len(self._events) > self._most:
                self._limit >>= 1
                self._events = {key: seen for key, seen in self._events.items() if key <= self._limit}
        return events & ~before

    def state(self) -> Followed:
        """What a successor has to know."""
        hashes = np.fromiter(self._events, "<u8", len(self._events))
        return Followed(self._limit, hashes.tobytes(), bytes(self._events.values()))
