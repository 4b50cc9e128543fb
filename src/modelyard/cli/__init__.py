"""The command line: one file a command group. Each command parses, calls the rooms below and prints.

Nothing heavy is imported before a command runs: ``modelyard --help`` reads only the table in ``frame``.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit number (see ``modelyard help exit-codes``)."""
    from modelyard.cli.frame import run

    return run(arguments)
