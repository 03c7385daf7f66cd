"""Every parser of what a user brings, on a few hundred mutated files; `python tests/fuzz.py PARSER SECONDS` goes on."""

from __future__ import annotations

import fuzz
import pytest


@pytest.mark.parametrize("name", fuzz.PARSERS)
def test_a_mutated_file_gives_a_value_or_one_short_line(name: str) -> None:
    assert fuzz.fuzz(name, 0, lambda count: count < 200) == (200, [])
