"""Decoding and the recipe: one image file -> the crop a model sees -> its normalised tensor."""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ArtifactError
from ..run.recipes import PreprocessSpec

# Those of torchvision's ImageFolder, which most checkpoints were trained through. Pillow goes by the content, whatever the
# suffix says, so none of them opens a decoder that a .jpg would not. No .gif: which frame is the image?
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# What Pillow lets through from a file's broken fields, besides its own: those of TIFF most of all.
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, EOFError, struct.error)
MAX_ASPECT = 50  # a narrower image would grow to gigabytes when its short side is resized


def decode(path: Path) -> Image.Image:
    """Decode an image to RGB exactly as PIL's `convert("RGB")` does (EXIF rotation is not applied).

    Raises:
        ArtifactError: zero bytes, truncated, or no image; the message names the file.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"more than 8 bits a channel, mode {image.mode}, would be clipped to white")
            if max(image.size) > MAX_ASPECT * min(image.size):
                raise ValueError(f"{image.width}x{image.height} pixels are too narrow to resize")
            return image.convert("RGB")
    except (*_DAMAGED, Image.DecompressionBombError) as err:
        hint = "replace the file, or set `on_bad_image: skip`"
        raise ArtifactError(f"{path}: cannot be decoded ({err}); {hint}") from err


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's remarks on palettes and EXIF data. Around the threads: the filters belong to the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def crop(image: Image.Image, recipe: PreprocessSpec) -> np.ndarray:
    """Resize the short side and crop the centre, as torchvision's Resize and CenterCrop do on PIL images.

    Returns:
        (crop_px, crop_px, 3) uint8, RGB.
    """
    width, height = image.size
    short = min(width, height)
    # The long side is truncated, not rounded: torchvision's _compute_resized_output_size.
    wide, high = (recipe.resize_px if side == short else int(recipe.resize_px * side / short) for side in (width, height))
    resized = image.resize((wide, high), Image.Resampling[recipe.interpolation.upper()])
    left, top = (round((side - recipe.crop_px) / 2.0) for side in (wide, high))
    return np.asarray(resized.crop((left, top, left + recipe.crop_px, top + recipe.crop_px)))


def tensors(crops: np.ndarray, recipe: PreprocessSpec) -> np.ndarray:
    """Normalise crops: (N, H, W, 3) uint8 -> (N, 3, H, W) float32, bit for bit torchvision's ToTensor and Normalize."""
    x = np.ascontiguousarray(crops.transpose(0, 3, 1, 2)).astype(np.float32)
    x /= np.float32(255)
    x -= np.asarray(recipe.mean, np.float32)[:, None, None]
    x /= np.asarray(recipe.std, np.float32)[:, None, None]
    return x


def prepare(crops: np.ndarray, recipe: PreprocessSpec, dtype: np.dtype) -> np.ndarray:
    """What a model takes in: normalised tensors, or the crops as they are where it normalises 8-bit images itself."""
    return crops if dtype == np.uint8 else tensors(crops, recipe)
