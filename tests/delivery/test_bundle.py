"""One file to carry to a device host."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from deit_helpers.delivery.bundle import pack
from deit_helpers.errors import ArtifactError

SPEC = "run: mini\nmodel: m\ncheckpoint: c.pth\nimages: i\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "spec.yaml",
        "meta/infer_bs8.json",
        "meta/infer_bs8.lock",
        "demo/images/0/1.jpg",
        "demo/demo.json",
        "bs8/.tmp-1-x",
    ):
        path = tmp_path / "reports" / "mini" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SPEC if name == "spec.yaml" else name)
    return tmp_path / "reports" / "mini"


def test_everything_but_images_locks_and_leftovers_is_in(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(pack(folder, tmp_path / "mini.tar.gz")) as archive:
        files = sorted(entry.name for entry in archive if entry.isfile())
    assert files == ["mini/demo/demo.json", "mini/meta/infer_bs8.json", "mini/spec.yaml"]


def test_a_place_that_cannot_be_written_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"file/x\.tar\.gz: cannot be written"):
        pack(folder, tmp_path / "file" / "x.tar.gz")


def test_what_links_point_to_is_packed_and_what_is_no_file_is_named(folder: Path, tmp_path: Path) -> None:
    linked = folder / "linked.npy"
    (tmp_path / "elsewhere.npy").write_bytes(b"x")
    linked.symlink_to(tmp_path / "elsewhere.npy")
    with tarfile.open(pack(folder, tmp_path / "a.tar.gz")) as archive:
        assert archive.getmember(f"{folder.name}/linked.npy").isfile()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ArtifactError, match="pipe: is no plain file"):
        pack(folder, tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()
