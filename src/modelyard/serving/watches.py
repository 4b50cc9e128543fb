"""Calls of gRPC that are answered again whenever the answer is another one (``Call.is_watched``).

Nothing here runs by itself: the listener looks when endpoints are found anew, as they are when versions change, and
once a second for what changes without a word, such as a model whose process has ended. However many wait for the answer
to one question, it is asked once. A watch holds no version, and is no request in flight that a server waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.errors import Overloaded
from modelyard.interfaces import Wire
from modelyard.messages import Call, Message
from modelyard.serving.grpc import GrpcExchange, Malformed
from modelyard.serving.limits import TooLarge
from modelyard.serving.packed import PackedStream

if TYPE_CHECKING:
    from modelyard.serving.heads import Head
    from modelyard.serving.http2 import Http2Connection

#: Watches in one process, and questions that they ask, each of which takes time whenever we look. Who is refused asks
#: again after a while, as the protocol of health tells clients to.
MOST_WATCHES = 4096
MOST_QUESTIONS = 512

#: Bytes of a question: it is kept, and read again and again.
LARGEST_QUESTION = 4096

#: What is asked, and by whom it is answered: calls with the same question have the same answer.
Question = tuple[Wire, Call | None, bytes]


class Watches:
    """Those of one listener."""

    def __init__(self) -> None:
        #: Who waits for the answer to which question.
        self._asked: dict[Question, dict[WatchStream, None]] = {}
        self._count = 0

    def join(self, stream: WatchStream) -> None:
        """Tell a stream from now on. Raises Overloaded where there are too many."""
        is_new = stream.question not in self._asked
        if self._count >= MOST_WATCHES or (is_new and len(self._asked) >= MOST_QUESTIONS):
            raise Overloaded(f"{self._count} calls watch this server already", hint="ask once, or watch later")
        self._asked.setdefault(stream.question, {})[stream] = None
        self._count += 1

    def leave(self, stream: WatchStream) -> None:
        """Tell a stream no more. Leaving twice is fine."""
        streams = self._asked.get(stream.question, {})
        if stream in streams:
            del streams[stream]
            self._count -= 1
            if not streams:
                del self._asked[stream.question]

    def look(self) -> None:
        """Tell everybody whose answer is another one now."""
        for streams in list(self._asked.values()):
            answer = next(iter(streams)).ask()
            for stream in list(streams):
                stream.tell(answer)

    def end(self) -> None:
        """Tell everybody what there is to tell, and that there will be no more."""
        self.look()
        for streams in list(self._asked.values()):
            for stream in list(streams):
                stream.finish(Message(b""))


class WatchStream(PackedStream):
    """A call of one message and any number of answers."""

    __slots__ = ("_told", "_watches", "question")

    def __init__(self, connection: Http2Connection, number: int, head: Head) -> None:
        super().__init__(connection, number, head)
        self.question: Question = (head.endpoint.wire, head.endpoint.call, b"")
        #: Who tells us, once the message has come, and the body of the last answer.
        self._watches: Watches | None = None
        self._told: bytes | None = None

    def _accept(self, body: bytes) -> None:
        if self._watches is not None:
            self.give_up(Malformed("a second message in a call that takes one"))
            return
        if len(body) > LARGEST_QUESTION:
            self.give_up(TooLarge(f"a call that is watched takes {LARGEST_QUESTION} bytes, not {len(body)}"))
            return
        listener = self.connection.listener
        if listener.watches is None:
            listener.watches = Watches()
        self._watches = listener.watches
        self._is_complete = False  # for us there may be more to say, also once the client has said all
        self.question = (*self.question[:2], body)
        try:
            self._watches.join(self)
        except Overloaded as error:
            self.give_up(error)
            return
        self.tell(self.ask())
        if listener.is_draining and not self.is_over:
            self.finish(Message(b""))

    def _complete(self) -> None:
        if self._watches is None or self.buffer:  # else it was heard, and is not over
            super()._complete()

    def ask(self) -> Message:
        """What the answer is now."""
        exchange = self._exchange()
        exchange.endpoint.accept(exchange, self.question[2], self.head.headers)
        assert exchange.answered is not None  # a call that is watched is answered on the loop
        return exchange.answered

    def tell(self, answer: Message) -> None:
        """Send an answer, unless it is what was sent last. Where that waits for the client, look again later."""
        if not (self.is_over or self.backlog or answer.body == self._told):
            self._told = answer.body
            self.write(self._exchange(), answer)

    def _exchange(self) -> WatchExchange:
        head, listener = self.head, self.connection.listener
        return WatchExchange(
            id=head.request_id or listener.new_id(),
            received=self.connection.last,
            endpoint=head.endpoint,
            stream=self,
        )

    def finish(self, message: Message, name: str = "") -> None:
        self._leave()
        super().finish(message, name)

    def part(self) -> None:
        if self.has_ended and not self.is_over:
            self.finish(Message(b""))
        super().part()

    def cancel(self) -> None:
        self._leave()
        super().cancel()

    def _leave(self) -> None:
        if self._watches is not None:
            self._watches.leave(self)


class WatchExchange(GrpcExchange, gc=False, kw_only=True, eq=False):
    """One look at the answer."""

    def answer(self, message: Message, is_packed: bool = False) -> None:
        self.answered = message
