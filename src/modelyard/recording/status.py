"""How recording goes: what was recorded, what it takes, what waits, and what was lost."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from modelyard.errors import BadBundle
from modelyard.recording.checkpoint import Checkpoint, Total, read_checkpoint
from modelyard.recording.places import Places
from modelyard.recording.ring import RingReader


def status(places: Places) -> dict[str, Any]:
    """What is known from outside, whether anybody records or not."""
    checkpoint = Checkpoint()
    with contextlib.suppress(ValueError):  # the next recorder tells that it is damaged
        checkpoint = read_checkpoint(places.state / "checkpoint")
    rings = [_ring(path, checkpoint) for path in sorted(places.rings.glob("*.ring"))]
    return {
        "folder": str(places.folder),
        "recorder": places.recorder(),
        "models": [_model(places, total) for total in sorted(checkpoint.totals, key=lambda t: (t.model, t.version))],
        "bytes": _size(places.segments),
        "rings": [ring for ring in rings if ring is not None],
        "windows_waiting": len(checkpoint.post.waiting) + len(checkpoint.post.sending),
    }


def _model(places: Places, total: Total) -> dict[str, Any]:
    folder = (
        places.segments / f"model={quote(total.model, safe='')}" / f"version={quote(total.version or '0', safe='')}"
    )
    return {
        "model": total.model,
        "version": total.version,
        "requests": total.requests,
        "rows": total.rows,
        "lost": total.lost,
        "not_kept": total.unkept,
        "bytes": _size(folder),
        "last": datetime.fromtimestamp(total.last, UTC).isoformat(timespec="milliseconds") if total.last else None,
    }


def _ring(path: Path, checkpoint: Checkpoint) -> dict[str, Any] | None:
    """One server's ring: the bytes that wait, and rows that were lost and are in no window yet."""
    try:
        reader = RingReader(path)
    except (BadBundle, OSError, ValueError):
        return None
    reached = checkpoint.rings.get(path.name)
    found = {
        "process": reader.process,
        "alive": not reader.is_abandoned,
        "waiting": reader.waiting,
        "size": reader.size,
        "lost": reader.lost[1] - (reached.lost if reached is not None else 0),
    }
    reader.close()
    return found


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size
