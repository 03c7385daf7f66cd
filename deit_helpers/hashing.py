"""What tells two things apart: hashes of files, values, folders and code, and versions of packages."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

# ast.parse fails now and then when two threads call it at once (CPython gh-106905), and notebooks run in threads.
_PARSER = threading.Lock()


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
    """Hash of the names, sizes and times of all files below a folder, and of a label file's content; None if absent."""
    if not folder.is_dir() or (labels and not labels.is_file()):
        return None
    rows = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        paths = ((name, os.path.join(parent, name)) for name in sorted(names))
        stats = ((name, os.stat(path, follow_symlinks=os.path.exists(path))) for name, path in paths)
        rows.append((os.path.relpath(parent, folder), [(name, s.st_size, s.st_mtime_ns) for name, s in stats]))
    return fingerprint([rows, sha256(labels) if labels else None])


@functools.lru_cache
def code_sha256(module: str) -> str:
    """Hash of a module of this package and of every module of the package it imports, directly or not."""
    package = Path(__file__).parent
    seen: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        path = package / (name.replace(".", "/") + ".py")
        if not path.exists():
            path = package / name / "__init__.py"
        if name in seen or not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        seen[name] = text
        if path.name == "__init__.py" and "import_module" in text:  # a registry: it loads its modules by name
            todo += [f"{name}.{part.stem}" for part in path.parent.glob("*.py")]
        with _PARSER:
            tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                inside = name if path.name == "__init__.py" else name.rpartition(".")[0]
                base = inside if node.level == 1 else inside.rpartition(".")[0]
                target = ".".join(part for part in (base, node.module) if part)
                todo += [target] if node.module else []
                todo += [".".join(part for part in (target, alias.name) if part) for alias in node.names]
    return fingerprint(seen)


def version_of(package: str) -> str | None:
    """Version of an installed package, None when it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
