"""Files whole or not at all, and whose error it is when one cannot be written."""

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


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.json"
    files.write_json(path, {"old": 1})

    def fail() -> None:
        with files.atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert files.read_json(path) == {"old": 1}
    assert os.listdir(path.parent) == ["x.json"]


def test_a_file_is_not_there_before_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with files.atomic(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("make", [files.write_dir, lambda path: files.write_text(path, "")])
def test_a_file_where_a_folder_should_be_is_an_artifact_error(tmp_path: Path, make) -> None:
    (tmp_path / "blocked").write_text("")
    with pytest.raises(ArtifactError, match=r"blocked/x: cannot be written \(.+\); free or unlock what"):
        make(tmp_path / "blocked" / "x")


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "\x00"])
def test_a_missing_or_damaged_json_file_reads_as_empty(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    assert files.read_json(tmp_path / "x.json") == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtifactError, match="what is there is no regular file"):
        files.write_text(tmp_path / "pipe", "x")
    assert (tmp_path / "pipe").is_fifo()
