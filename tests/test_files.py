"""Whose error it is when a file cannot be written: the file's own, or that of something read meanwhile."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from deit_helpers import files
from deit_helpers.errors import ArtifactError


def test_an_error_of_a_file_beside_it_that_is_read_is_passed_on_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.txt"), files.atomic(tmp_path / "x.txt") as temporary:
        temporary.write_bytes((tmp_path / "missing.txt").read_bytes())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("named", [False, True])
def test_a_full_disk_is_an_artifact_error(tmp_path: Path, named: bool) -> None:
    with (
        pytest.raises(ArtifactError, match=r"x\.txt: cannot be written \(No space left on device\); free or unlock"),
        files.atomic(tmp_path / "x.txt") as temporary,
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([temporary] if named else []))


def test_a_folder_far_above_that_cannot_be_made_is_an_artifact_error(tmp_path: Path) -> None:
    (tmp_path / "blocked").touch()
    with pytest.raises(ArtifactError, match=r"blocked/a/b/c/x\.txt: cannot be written"):
        files.write_text(tmp_path / "blocked" / "a" / "b" / "c" / "x.txt", "")


def test_a_folder_in_the_place_of_the_file_is_an_artifact_error(tmp_path: Path) -> None:
    (tmp_path / "x.txt" / "inside").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"x\.txt: cannot be written"):
        files.write_text(tmp_path / "x.txt", "")
    assert os.listdir(tmp_path) == ["x.txt"]
