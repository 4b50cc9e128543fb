"""What pages of others make a browser send to the console."""

from __future__ import annotations

import pytest

from modelyard.console.door import check_origin
from modelyard.errors import Refused


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example:8090", ""), ("localhost:8090", "http://evil.example"), ("localhost:8090", "null"),
        ("localhost:8090", "http://localhost:9000"), ("localhost:8090", "http://["), ("[", ""), ("", ""),
    ],
)  # fmt: skip
def test_what_comes_from_elsewhere_is_refused(host: str, origin: str) -> None:
    with pytest.raises(Refused):
        check_origin({"host": host, "origin": origin}, is_local=True)


def test_our_own_pages_may_ask() -> None:
    for host in ("localhost:8090", "127.0.0.1", "[::1]:8090"):
        check_origin({"host": host, "origin": f"http://{host}"}, is_local=True)
        check_origin({"host": host}, is_local=True)
    check_origin({"host": "yard.example", "origin": "https://yard.example"}, is_local=False)
