"""Hashes of files and of values."""

from __future__ import annotations

import hashlib
from pathlib import Path

from deit_helpers.run import hashing


def test_a_hash_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for content in (b"one", b"two, longer"):
        path.write_bytes(content)
        assert hashing.sha256(path) == hashlib.sha256(content).hexdigest()


def test_a_fingerprint_ignores_the_order_of_keys() -> None:
    assert hashing.fingerprint({"a": 1, "b": 2}) == hashing.fingerprint({"b": 2, "a": 1})
    assert hashing.fingerprint({"a": 1}) != hashing.fingerprint({"a": 2})
