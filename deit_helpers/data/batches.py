"""What stages need of images: decoded and cropped as the recipe says, a few of them, and all of them in batches."""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
import time
from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..errors import ArtifactError
from ..run import progress as told
from ..run.folder import Run
from ..run.host import cores
from ..run.recipes import PreprocessSpec
from .prefetch import ahead, mapped
from .sources import list_images, read_index
from .transforms import crop, decode, prepare, quiet_pillow

_FLOAT = np.dtype(np.float32)


class Batch(NamedTuple):
    """`tensor` (B, 3, H, W) float32, or (B, H, W, 3) uint8; rows where `valid` (B,) is False are padding.

    `start` is the number of the first image; `read_ms` and `prepare_ms` are what it took to read and to normalise the batch.
    """

    start: int
    tensor: np.ndarray
    valid: np.ndarray
    read_ms: float = 0.0
    prepare_ms: float = 0.0


def crops_at(run: Run, indices: Sequence[int]) -> np.ndarray:
    """Crops (len(indices), H, W, 3) uint8 of images, from the store or from their files."""
    with quiet_pillow():
        return next(crop_batches(run, indices, len(indices)))


def crop_batches(
    run: Run, indices: Sequence[int], batch_size: int, recipe: PreprocessSpec | None = None
) -> Generator[np.ndarray, None, None]:
    """Crops (B, H, W, 3) uint8 of images in order, `batch_size` at a time: from the store; with `stream: true`, or by another
    recipe than the store's, from their files, decoded by a pool of threads."""
    if recipe is None and not run.spec.stream:
        for start in range(0, len(indices), batch_size):  # mapped anew: pages of a lasting map would add up in memory
            yield np.load(run.file("images"), mmap_mode="r")[indices[start : start + batch_size]]
        return
    (names, _), how = read_index(run), recipe or run.spec.recipe
    with contextlib.closing(mapped(lambda i: crop(decode(run.image_folder / names[i]), how), indices, cores())) as crops:
        while pixels := list(itertools.islice(crops, batch_size)):
            yield np.stack(pixels)


def batches(
    run: Run, batch_size: int, dtype: np.dtype = _FLOAT, first: int = 0, stop: int | None = None
) -> Generator[Batch, None, None]:
    """Images `first` to `stop` as batches of exactly `batch_size` rows, in order; the last is padded and masked.

    They come from the store, or with `stream: true` straight from the image files, decoded by a pool of threads. A thread
    of its own keeps two batches ready: nobody waits for files or for the normalisation.

    Raises:
        ArtifactError: a damaged image, or one that is gone.
    """
    count = run.read("preprocess")["images"]
    stop = count if stop is None else min(stop, count)
    with quiet_pillow():  # here, not in the thread that decodes: the filters belong to the process
        yield from ahead(_batches(run, batch_size, dtype, first, stop), depth=2)


def _batches(run: Run, batch_size: int, dtype: np.dtype, first: int, stop: int) -> Generator[Batch, None, None]:
    crops = crop_batches(run, range(first, stop), batch_size)
    for start in range(first, stop, batch_size):
        ticks = [time.perf_counter()]
        pixels = next(crops)
        ticks.append(time.perf_counter())
        batch = pad(start, prepare(pixels, run.spec.recipe, dtype), batch_size)
        ticks.append(time.perf_counter())
        read_ms, prepare_ms = (float(ms) for ms in 1000 * np.diff(ticks))
        yield batch._replace(read_ms=read_ms, prepare_ms=prepare_ms)


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The beginning of an `.npy` file whose rows are then written one after the other; as long for any number of rows."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def pad(start: int, tensor: np.ndarray, batch_size: int) -> Batch:
    """Pad a (possibly short) batch of tensors to `batch_size` rows by repeating the last one."""
    short = batch_size - len(tensor)
    valid = np.arange(batch_size) < len(tensor)
    return Batch(start, np.concatenate([tensor, tensor[-1:].repeat(short, axis=0)]) if short else tensor, valid)


def sample_crops(run: Run, count: int) -> tuple[list[str], np.ndarray]:
    """Names and crops (count, H, W, 3) uint8 of images spread evenly over the data set, for comparing graphs.

    A data set smaller than `count` is repeated.
    """
    names = list_images(run)
    starts = [i * len(names) // count for i in range(count)]
    with quiet_pillow():
        chosen = [_first_decodable(run, names[start:] + names[:start]) for start in starts]
    return [name for name, _ in chosen], np.stack([pixels for _, pixels in chosen])


def _first_decodable(run: Run, names: list[str]) -> tuple[str, np.ndarray]:
    """Name and crop of the first image that decodes; with `on_bad_image: stop` the first one must."""
    for name in names:
        try:
            return name, crop(decode(run.image_folder / name), run.spec.recipe)
        except ArtifactError:
            if run.spec.on_bad_image == "stop":
                raise
    raise ArtifactError(f"{run.image_folder}: none of its {len(names)} images can be decoded")


class _Bar(tqdm):  # type: ignore[misc]  # it has no types
    """A bar that also tells the process which runs the notebook."""

    def update(self, n: float | None = 1) -> bool | None:
        told.count(self.n + n, self.total, self.postfix or "")
        return super().update(n)


def progress(total: int) -> tqdm:
    """A bar for `total` images, shown once the work has lasted two seconds. On stdout: stderr would look like an error."""
    return _Bar(total=total, unit="image", file=sys.stdout, delay=2, mininterval=0.5, dynamic_ncols=False, ncols=88)
