from typing import Any

from modelyard.conformance.report import Outcome


def ask_grpc(address: str, example: Any, *, key: str, seconds: float) -> list[Outcome]:
    return []
