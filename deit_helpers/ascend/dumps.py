"""Outputs that the vendor's tools write, one file per image: `<stem>_<k>.txt`, `.bin` or `.npy` -> logits.

The benchmark tool numbers a model's outputs from 1, ais_bench from 0; both are read.
"""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

from .. import files
from ..errors import ArtifactError, one_line

# What NumPy raises on a damaged file: a header that is no Python, a shape too large for C or for the memory.
_UNREADABLE = (
    OSError, ValueError, TypeError, EOFError, MemoryError, OverflowError, RecursionError, SyntaxError, tokenize.TokenError,
)  # fmt: skip


def stem_of(name: str) -> str:
    """The stem under which `benchmark.write_info` hands an image to the tool: class folders joined by `__`.

    As in the recipe, a name ends at its first dot (imagenet_torch_preprocess.py of ModelZoo's Deit_Small).
    """
    parent, _, file = name.rpartition("/")
    return f"{parent}/{file.partition('.')[0]}".removeprefix("/").replace("/", "__")


def write(folder: Path, names: list[str], logits: np.ndarray) -> None:
    """Write the dumps of the benchmark tool, one per image and kind, for scripts that read them.

    `folder/<stem>_1.bin` is raw float32. The recipe's scorer reads text, and takes every file of its folder for one:
    `<stem>_1.txt` has a folder of its own, `result/` with the same name beside it, where the tool writes it.
    """
    texts = folder.parent / "result" / folder.name
    for place in (folder, texts):
        files.write_dir(place)
    for name, row in zip(names, logits, strict=True):
        row.astype("<f4").tofile(folder / f"{stem_of(name)}_1.bin")
        (texts / f"{stem_of(name)}_1.txt").write_text(" ".join(f"{value:.9g}" for value in row.tolist()) + "\n")


def read(folder: Path, names: list[str]) -> np.ndarray:
    """The logits (N, C) float32 of these images, in this order.

    The recipe and ais_bench cut a stem at its first dot; a file that keeps what lies before the last dot is found too.

    Raises:
        ArtifactError: no dumps at all, an image without one, files nobody asked for, or rows of different length.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder of dumps: name the one that the tool wrote, such as dumpOutput_device0")
    dumps = {path.name: path for path in folder.glob("*_[01].*") if path.suffix in (".txt", ".bin", ".npy")}
    if not dumps:
        raise ArtifactError(f"{folder}: no dumps <image>_1.txt, .bin (benchmark) or <image>_0.txt, .bin, .npy (ais_bench)")
    rows, used = [], set()
    for name in names:
        whole = str(Path(name).with_suffix("")).replace("/", "__")
        stems = (whole, stem_of(name), whole.partition(".")[0])
        wanted = [f"{stem}_{k}{end}" for stem in stems for k in (1, 0) for end in (".txt", ".bin", ".npy")]
        path = next((dumps[candidate] for candidate in wanted if candidate in dumps), None)
        if path is None:
            raise ArtifactError(f"{folder}: no dump of {name}, expected {wanted[0]} or the like: run the tool on every image")
        if path.name in used:
            raise ArtifactError(f"{path}: would be the dump of {name} and of another image: rename one of them")
        rows.append(_row(path))
        used.add(path.name)
        if len(rows[-1]) != len(rows[0]):
            raise ArtifactError(f"{path}: {len(rows[-1])} values, {len(rows[0])} in the first dump: use one model's dumps")
    if left := sorted(dumps.keys() - used):
        raise ArtifactError(f"{folder}: {len(left)} dumps are of no image of this run, such as {left[0]}: use its own folder")
    return np.stack(rows)


def _row(path: Path) -> np.ndarray:
    """One image's values. Of a text file the first line counts, values separated by spaces."""
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:  # np.load would open an archive under this name too
                values = np.lib.format.read_array(file, allow_pickle=False).reshape(-1)
            if values.dtype.kind not in "fiu":
                raise ValueError(f"it holds {values.dtype}")
        elif path.suffix == ".bin":
            if path.stat().st_size % 4:
                raise ValueError(f"{path.stat().st_size} bytes are no float32")
            values = np.fromfile(path, "<f4")
        else:
            values = np.array(path.read_text(encoding="ascii").partition("\n")[0].split(), np.float32)
    except _UNREADABLE as err:
        raise ArtifactError(f"{path}: cannot be read as logits ({one_line(err)}): let the tool write it again") from err
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not len(values) or not np.isfinite(values).all():
        raise ArtifactError(f"{path}: {'NaN or infinite values' if len(values) else 'empty'}: let the tool write it again")
    return values
