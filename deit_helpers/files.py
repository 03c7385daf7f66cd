"""Files are written whole or not at all, and read without surprises."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import ArtifactError


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on success it is flushed to disk and renamed to `path`, otherwise removed.

    Raises:
        ArtifactError: the file cannot be written (permission, disk full, a file where a folder should be), or is a device.
    """
    if path.exists() and not path.is_file():
        raise unwritable(path, OSError(errno.EEXIST, "what is there is no regular file"))
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise unwritable(path, err) from err
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as err:
        if err.filename is not None and str(err.filename) != str(temporary):
            raise  # of another file, such as one that the caller reads
        raise unwritable(path, err) from err
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_dir(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        ArtifactError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise unwritable(path, err) from err


def is_utf8(text: str) -> bool:
    """Whether it can be written as UTF-8: not the name of a file whose bytes Python could not decode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; of a file name that is not UTF-8, the bytes are written as `\\udce9`, in JSON the same text again."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping; empty when the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def unwritable(path: Path, err: OSError) -> ArtifactError:
    """The error to raise when a file of a run cannot be written."""
    return ArtifactError(f"{path}: cannot be written ({err.strerror}); free or unlock what is in its way, or run elsewhere")
