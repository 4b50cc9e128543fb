"""What a call of a model costs: seconds = a * rows + b, learned while it serves."""

from __future__ import annotations

#: What is left of an observation's weight after each later one: about a hundred calls are remembered.
_FADING = 0.98

#: A call that takes longer than this many times what was expected was interrupted, more likely than not: it counts
#: for that much only. A model that really has become slower is learned in a few steps.
_SURPRISE = 8.0


class Cost:
    """Least squares of seconds on rows over fading memory."""

    __slots__ = ("_n", "_nn", "_nt", "_t", "_w", "per_call", "per_row")

    def __init__(self) -> None:
        #: a, in seconds.
        self.per_row = 0.0
        #: b, in seconds.
        self.per_call = 0.0
        self._w = self._n = self._nn = self._t = self._nt = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """Take in that a call with ``rows`` took ``seconds``."""
        if self._w > 4.0:
            seconds = min(seconds, _SURPRISE * self.expect(rows) + 1e-6)
        self._w = self._w * _FADING + 1.0
        self._n = self._n * _FADING + rows
        self._nn = self._nn * _FADING + rows * rows
        self._t = self._t * _FADING + seconds
        self._nt = self._nt * _FADING + rows * seconds
        spread = self._w * self._nn - self._n * self._n
        if spread > 0.01 * self._n * self._n:  # else all calls had about as many rows, which tells nothing of a
            self.per_row = max((self._w * self._nt - self._n * self._t) / spread, 0.0)
        self.per_call = (self._t - self.per_row * self._n) / self._w
        if self.per_call < 0.0:
            self.per_call, self.per_row = 0.0, self._t / self._n

    def expect(self, rows: int) -> float:
        """Seconds that a call with ``rows`` will take."""
        return self.per_row * rows + self.per_call
