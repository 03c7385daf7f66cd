"""The images of a run as tensors, prepared as its recipe says or with one thing changed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np

from ..data import batches, sources
from ..data.batches import Batch
from ..data.transforms import prepare, quiet_pillow
from ..run.folder import Run
from ..run.recipes import BGR, CHANGES, RECIPES, PreprocessSpec

FLOAT = np.dtype(np.float32)


class Input(NamedTuple):
    """How image files become tensors: a recipe, and whether the channels are swapped after it."""

    recipe: PreprocessSpec
    bgr: bool = False

    def changed(self, name: str) -> Input:
        """This with one change: another recipe of RECIPES, one of CHANGES, or BGR."""
        if name == BGR:
            return self._replace(bgr=not self.bgr)
        return self._replace(recipe=RECIPES[name] if name in RECIPES else self.recipe.model_copy(update=CHANGES[name]))

    def tensors(self, crops: np.ndarray, dtype: np.dtype = FLOAT) -> np.ndarray:
        """Crops (N, H, W, 3) uint8 -> (N, 3, H, W) float32, or crops again for a model that normalises them itself."""
        return prepare(np.ascontiguousarray(crops[..., ::-1]) if self.bgr else crops, self.recipe, dtype)


def is_stored(run: Run, given: Input) -> bool:
    """Whether the run's store holds the crops that `given` is made from."""
    geometry = {"resize_px", "crop_px", "interpolation"}
    return not run.spec.stream and given.recipe.model_dump(include=geometry) == run.spec.recipe.model_dump(include=geometry)


def tensor_batches(
    run: Run, given: Input, batch_size: int, indices: Sequence[int] | None = None, dtype: np.dtype = FLOAT
) -> Generator[Batch, None, None]:
    """The images of the run's index, or those at `indices` of it, in order; the last batch is padded and masked.

    Crops come from the store where its geometry is that of `given`, else from the image files.

    Raises:
        ArtifactError: an image file is not here, or damaged.
    """
    chosen = range(run.read("preprocess")["images"]) if indices is None else indices
    stored = is_stored(run, given)
    if not stored:
        sources.list_folder(run)  # says where the images should be
    with quiet_pillow():
        crops = batches.crop_batches(run, chosen, batch_size, None if stored else given.recipe)
        for start, pixels in zip(range(0, len(chosen), batch_size), crops, strict=True):
            yield batches.pad(start, given.tensors(pixels, dtype), batch_size)
