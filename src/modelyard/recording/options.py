"""What the settings say of recording."""

from __future__ import annotations

import msgspec

from modelyard import settings


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept, and for how long."""

    #: One request of so many is kept with its inputs; 0 for none.
    sample: int = 100
    #: Days that segments are kept, and bytes that they take at most.
    days: float = 30.0
    size: int = 10 << 30
    #: A window closes after so many seconds, or rows; windows are kept so many days.
    window_seconds: float = 60.0
    window_rows: int = 100_000
    window_days: float = 400.0

    @classmethod
    def chosen(cls) -> Options:
        """What the settings say. Raises InvalidInput."""
        return cls(
            sample=settings.get("record_sample"),
            days=settings.get("record_days"),
            size=settings.get("record_size"),
            window_seconds=settings.get("window_seconds"),
            window_rows=settings.get("window_rows"),
            window_days=settings.get("window_days"),
        )
