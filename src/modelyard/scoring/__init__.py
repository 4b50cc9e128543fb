"""Batch jobs: apply a model to a file that may be larger than memory.

Rows stream through in pieces; those that do not fit are set aside with the reason; a job that was killed goes on
where it was when the same call is made again.
"""

from modelyard.scoring.score import Scored, score, score_with

__all__ = ["Scored", "score", "score_with"]
