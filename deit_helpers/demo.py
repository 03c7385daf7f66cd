"""The embedded demo: scikit-learn's bundled digits as JPEG folders, a seeded backbone, a head fitted in closed form.

It needs no network and no trained weights. Its accuracy says nothing about DeiT on ImageNet: it exists so that every
step of the proof runs on real files, with a model whose predictions are neither random nor perfect.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10
HELD_OUT = 300  # no multiple of 8 or 32, so that the last batch is always partial
TRAINING, FIRST_HELD_OUT = 200, 360  # of the shuffled digits
SEED = 20121228  # the DeiT paper is arXiv 2012.12877


def write_images(folder: Path) -> None:
    """Write the held-out digits anew: `folder/<digit>/<number>.jpg`, 200 to 420 pixels a side, grey on black.

    The folder appears complete or not at all.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
    try:
        digits, labels = _digits()
        for i in range(FIRST_HELD_OUT, FIRST_HELD_OUT + HELD_OUT):
            path = temporary / str(labels[i]) / f"{i:04d}.jpg"
            path.parent.mkdir(exist_ok=True)
            _picture(digits[i], i).save(path, quality=92)
        temporary.chmod(0o755)  # mkdtemp makes it private
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def training_images() -> tuple[list[Image.Image], np.ndarray]:
    """The digits the head is fitted on, none of them held out: RGB images and their labels (N,)."""
    digits, labels = _digits()
    return [_picture(digits[i], i).convert("RGB") for i in range(TRAINING)], labels[:TRAINING]


def fit_head(features: np.ndarray, labels: np.ndarray, ridge: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression from features to one-hot labels, in closed form.

    Args:
        features: (N, D) of any float type; computed in float64.
        labels: (N,) integers below CLASSES.
        ridge: the penalty on the weights.

    Returns:
        Weight (CLASSES, D) and bias (CLASSES,), float32, for a linear head.
    """
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    centred = x - mean
    targets = np.eye(CLASSES)[labels] - 1 / CLASSES
    weight = np.linalg.solve(centred.T @ centred + ridge * np.eye(x.shape[1]), centred.T @ targets)  # (D, CLASSES)
    bias = 1 / CLASSES - mean @ weight
    return weight.T.astype(np.float32), bias.astype(np.float32)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """8x8 digits as uint8 and labels, shuffled with a fixed seed."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(SEED).permutation(len(data.images))
    return (data.images[order] * (255 / 16)).astype(np.uint8), data.target[order]


def _picture(digit: np.ndarray, number: int) -> Image.Image:
    """One digit centred on a black picture whose size depends on its number; the margin survives the centre crop."""
    width, height = (int(side) for side in np.random.default_rng([SEED, number]).integers(200, 421, 2))
    side = int(min(width, height) * 0.7)
    picture = Image.new("L", (width, height))
    picture.paste(
        Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC), ((width - side) // 2, (height - side) // 2)
    )
    return picture
