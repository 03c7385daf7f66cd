"""What every error of the package is, whatever the input: one short line that a terminal can show."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from deit_helpers.errors import DeitError

MOST = 500  # characters of a message


@contextlib.contextmanager
def refused(pattern: str, kind: type[DeitError] = DeitError) -> Iterator[None]:
    """The block ends with such an error, and its line has the regular expression."""
    with pytest.raises(kind, match=pattern) as caught:
        yield
    assert len(str(caught.value)) <= MOST
    assert str(caught.value).isprintable()
