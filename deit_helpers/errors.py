"""The errors a user can meet, each one line: what happened, what was expected, what to do."""

from __future__ import annotations

import re

MOST_CHARACTERS = 500  # of a message, whatever the input


def one_line(text: object, most: int = 120) -> str:
    """A text as a message quotes it: one line that any terminal can show, of at most so many characters.

    What cannot be printed is escaped. What is too long loses its middle: first every long word (a path, a value), for the
    words around it say what to do, then the line itself.
    """
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(map(str.strip, str(text).splitlines())))
    if len(line) > most:
        line = re.sub(r"\S{101,}", lambda word: f"{word[0][:50]}…{word[0][-49:]}", line)
    half = most // 2
    return line if len(line) <= most else f"{line[:half]}…{line[half + 1 - most :]}"


class DeitError(Exception):
    """Base of every error this package raises on purpose; the command line prints it without a traceback."""

    def __str__(self) -> str:
        return one_line(super().__str__(), MOST_CHARACTERS)

    def _render_traceback_(self) -> list[str]:
        """What Jupyter and papermill show in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


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


class StoppedError(DeitError):
    """Ctrl-C ended it."""


class VerdictError(DeitError):
    """The accuracy verdict is `fail`, or the labels are wrong. Raised after everything was rendered and written.

    Attributes:
        rows: the rows of the accuracy table that failed.
    """

    def __init__(self, message: str, rows: list[dict] | None = None):
        super().__init__(message)
        self.rows = rows or []
