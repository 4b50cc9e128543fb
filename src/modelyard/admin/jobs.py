"""Batch jobs."""

from __future__ import annotations

from modelyard.registry import Registry
from modelyard.registry.jobs import Job


def jobs(registry: Registry, *, model: str | None = None, most: int = 200) -> list[Job]:
    """Batch jobs, the newest first: those under way, and how the others ended."""
    return registry.jobs.find(model, most=min(max(most, 0), 1_000))


def job(registry: Registry, number: int) -> Job:
    """One batch job."""
    return registry.jobs.get(number)
