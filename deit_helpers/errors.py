"""The errors a user can meet, each one line: what happened, what was expected, what to do."""

from __future__ import annotations


class DeitError(Exception):
    """Base of every error this package raises on purpose; the command line prints it without a traceback."""


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


def brief(value: object, most: int = 120) -> str:
    """What another program or file says, on one line and short enough for the middle of a message."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 2]} …"
