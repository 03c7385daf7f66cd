"""The errors a user can meet, each one line: what happened, what was expected, what to do."""

from __future__ import annotations

MOST_CHARACTERS = 500  # of a message, whatever the input


def one_line(text: object, most: int = 120) -> str:
    """A text as an error quotes it: one line of at most so many characters, with what cannot be printed escaped.

    Of a longer one the middle is left out. A file name that is not UTF-8 cannot be printed as it is: it has surrogates.
    """
    line = " ".join(part.strip() for part in str(text).splitlines())
    line = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)
    half = most // 2 - 2
    return line if len(line) <= most else f"{line[:half]} … {line[-half:]}"


class DeitError(Exception):
    """Base of every error this package raises on purpose; the command line prints it without a traceback."""

    def __init__(self, message: str):
        super().__init__(one_line(message, MOST_CHARACTERS))


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
