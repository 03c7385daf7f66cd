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
    """The accuracy verdict is `fail`, or the labels are wrong. Raised after everything was rendered and written.

    Attributes:
        rows: the rows of the accuracy table that failed.
    """

    def __init__(self, message: str, rows: list[dict] | None = None):
        super().__init__(message)
        self.rows = rows or []


def shown(value: object, most: int = 120) -> str:
    """A name, path or line as a message can hold it: printable, on one line, cut in its middle where it is long."""
    text = str(value)
    text = text if text.isprintable() else repr(text)[1:-1]  # line ends, and bytes of a name that are no UTF-8
    half = most // 2
    return text if len(text) <= most else f"{text[: half - 1]}…{text[-half:]}"
