"""Dumps of the vendor's tools: both numberings, all formats, every way they can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deit_helpers.ascend import dumps
from deit_helpers.errors import ArtifactError

NAMES = ["a/1.jpg", "b/1.jpg", "c.d.JPEG"]
STEMS = ["a__1", "b__1", "c.d"]
LOGITS = np.random.default_rng(0).standard_normal((3, 10)).astype(np.float32)


def write(folder: Path, end: str, number: int, stems: list[str] = STEMS) -> Path:
    folder.mkdir(exist_ok=True)
    for stem, row in zip(stems, LOGITS, strict=True):
        path = folder / f"{stem}_{number}{end}"
        if end == ".txt":
            path.write_text(" ".join(f"{value:.9g}" for value in row) + " \n")
        elif end == ".bin":
            row.tofile(path)
        else:
            np.save(path, row[None])
    return folder


@pytest.mark.parametrize(("end", "number"), [(".txt", 1), (".bin", 1), (".txt", 0), (".bin", 0), (".npy", 0)])
def test_logits_are_read_in_the_order_of_the_images(tmp_path: Path, end: str, number: int) -> None:
    logits = dumps.read(write(tmp_path / "result", end, number), NAMES)
    np.testing.assert_array_equal(logits, LOGITS)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(dumps.read(tmp_path / "result", NAMES[::-1]), LOGITS[::-1])


def test_ais_bench_cuts_a_stem_at_its_first_dot(tmp_path: Path) -> None:
    np.testing.assert_array_equal(dumps.read(write(tmp_path / "r", ".bin", 0, ["a__1", "b__1", "c"]), NAMES), LOGITS)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no dumps <image>_1\.txt"):
        dumps.read(tmp_path, NAMES)
    folder = write(tmp_path / "r", ".bin", 1)
    (folder / "left_1.bin").write_bytes(LOGITS[0].tobytes())
    with pytest.raises(ArtifactError, match=r"1 dumps are of no image of this run, such as left_1\.bin"):
        dumps.read(folder, NAMES)
    (folder / "left_1.bin").rename(folder / "c.d_1.bin")
    (folder / "b__1_1.bin").unlink()
    with pytest.raises(ArtifactError, match=r"no dump of b/1\.jpg, expected b__1_1\.txt or the like"):
        dumps.read(folder, NAMES)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"1 2 x", "cannot be read as logits"), (b"1 nan", "NaN"), (b"1 2 3", "3 values, 10 in the first dump")],
)
def test_a_damaged_dump_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    folder = write(tmp_path / "r", ".txt", 1)
    (folder / "b__1_1.txt").write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"b__1_1\.txt: .*{message}"):
        dumps.read(folder, NAMES)


def test_two_images_that_share_a_cut_name_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", ".bin", 0, ["a__1", "b__1", "c"])
    with pytest.raises(ArtifactError, match=r"c_0\.bin: would be the dump of c\.e\.JPEG and of another image"):
        dumps.read(folder, [*NAMES, "c.e.JPEG"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b__1_1.bin", b"12345", "5 bytes are no float32"),
        ("b__1_0.npy", b"", "cannot be read"),
        ("b__1_0.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4' ", "cannot be read"),
    ],
)
def test_a_binary_dump_that_cannot_be_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    folder = write(tmp_path / "r", ".bin", 1)
    (folder / "b__1_1.bin").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        dumps.read(folder, NAMES)


@pytest.mark.parametrize("values", [np.array([True] * 10), np.array(["a"] * 10), np.full(10, 1e300)])
def test_an_array_that_holds_no_logits_is_named(tmp_path: Path, values: np.ndarray) -> None:
    folder = write(tmp_path / "r", ".npy", 0)
    np.save(folder / "b__1_0.npy", values)
    with pytest.raises(ArtifactError, match=r"b__1_0\.npy: (cannot be read as logits \(it holds|NaN or infinite)"):
        dumps.read(folder, NAMES)
