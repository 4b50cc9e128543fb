"""Each section of the page on protocols does what it shows, with the clients that it shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the page packages a model")
sys.path.insert(0, str(Path(__file__).parent))
from blocks import Reader, check_answer, reader, sections

SECTIONS = sections(Path(__file__).parents[2] / "docs/protocols.md")
EXAMPLE = "The example"


@pytest.fixture(scope="module")
def somebody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Who has packaged the page's model and serves it."""
    with reader(tmp_path_factory.mktemp("protocols")) as found:
        for language, text in SECTIONS[EXAMPLE]:
            found.run(language, text)
        yield found


@pytest.mark.parametrize("section", [name for name in SECTIONS if name != EXAMPLE])
def test_a_section_does_what_it_shows(section: str, somebody: Reader) -> None:
    printed = ""
    for language, text in SECTIONS[section]:
        if language in ("json", "text"):
            check_answer(printed, language, text)
        else:
            printed = somebody.run(language, text)
    if section == "In the containers of clouds":  # whoever comes next finds the server of the example
        somebody.run(*SECTIONS[EXAMPLE][-1])
