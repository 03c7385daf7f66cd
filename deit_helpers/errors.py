"""The errors a user can meet, each one line: what happened, what was expected, what to do."""

from __future__ import annotations

import re

MOST_CHARACTERS = 500


class DeitError(Exception):
    """Base of every error this package raises on purpose; the command line prints it without a traceback.

    Its text is one short line, whatever input it repeats.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str) -> str:
    """Text as one line that any terminal can show: what is not printable escaped, the middle of what is too long left out."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
    if len(line) > MOST_CHARACTERS:  # long names and values first: the words around them say what to do
        line = re.sub(r"\S{101,}", lambda word: f"{word[0][:50]}…{word[0][-49:]}", line)
    half = MOST_CHARACTERS // 2
    return line if len(line) <= MOST_CHARACTERS else f"{line[:half]}…{line[1 - half :]}"


class SpecError(DeitError):
    """A spec file or parameter is wrong: the message names the file, the key and what is allowed."""


class ArtifactError(DeitError):
    """An input or a file of the run is missing, damaged, stale or cannot be written."""


class GraphError(DeitError):
    """A graph edit found nothing to edit, or an edited graph is not equivalent to the one before."""


class ToolError(DeitError):
    """An external program failed: command, return code, log path."""


class BackendError(DeitError):
    """A runtime could not be loaded, refused its input or returned something impossible."""


class VerdictError(DeitError):
    """The accuracy verdict is `fail`. Raised after everything was rendered and written.

    Attributes:
        rows: the rows of the accuracy table that failed.
    """

    def __init__(self, message: str, rows: list[dict] | None = None):
        super().__init__(message)
        self.rows = rows or []
