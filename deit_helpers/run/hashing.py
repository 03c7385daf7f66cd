"""What tells two things apart: hashes of files, values, folders and code, and versions of packages."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[1]
_CODE = frozenset({".py", ".j2", ".css", ".json", ".yaml", ".tsv"})
_known: dict[tuple[Path, int, int], str] = {}  # by path, size and modification time


def sha256(path: Path) -> str:
    """Hex digest of a file; read again only when its size or modification time changed."""
    key = _key(path)
    if key not in _known:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        _known[key] = digest.hexdigest()
    return _known[key]


def remember(path: Path, digest: str) -> None:
    """Tell `sha256` the digest of a large file that was computed while it was written."""
    _known[_key(path)] = digest


def _key(path: Path) -> tuple[Path, int, int]:
    stat = path.stat()
    return path, stat.st_size, stat.st_mtime_ns


def fingerprint(value: Any) -> str:
    """Hex digest of a value's JSON form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def listing_sha256(folder: Path, labels: Path | None) -> str | None:
    """Hash of the names, sizes and times of the files of a folder and two levels below, and of a label file's content.

    Nothing deeper is ever read, and links may lead round in circles. None if either is absent.
    """
    if not os.path.isdir(folder) or (labels and not os.path.isfile(labels)):  # also where a name is too long to be one
        return None
    rows = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        inside = os.path.relpath(parent, folder)
        folders[:] = [] if inside.count(os.sep) else sorted(folders)
        paths = ((name, os.path.join(parent, name)) for name in sorted(names))
        stats = ((name, os.stat(path, follow_symlinks=os.path.exists(path))) for name, path in paths)
        rows.append((inside, [(name, s.st_size, s.st_mtime_ns) for name, s in stats]))
    return fingerprint([rows, sha256(labels) if labels else None])


@functools.lru_cache
def code_sha256(paths: tuple[str, ...]) -> str:
    """Hash of files of this package, and of all files in its folders, such as `("stages/infer.py", "data")`."""
    files = {file for path in paths for file in ([_PACKAGE / path] if "." in path else (_PACKAGE / path).rglob("*"))}
    return fingerprint({file.relative_to(_PACKAGE).as_posix(): sha256(file) for file in files if file.suffix in _CODE})
