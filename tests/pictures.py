"""Pictures for the tests, sound and damaged, and what torchvision makes of them: the oracle of preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

RESIZES = {"deit": (256, "bicubic"), "timm": (248, "bicubic"), "modelzoo": (256, "bilinear")}  # shorter side in pixels


def draw(path: Path, size: tuple[int, int] = (90, 70), seed: int = 0, mode: str = "RGB") -> Path:
    """Write a picture of coloured noise blocks; the suffix of `path` decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


def damage(path: Path, kind: str) -> Path:
    """Replace or make `path` by a file that is no image, in the way `kind` says: zero bytes, truncated, text."""
    content = {"zero bytes": b"", "truncated": draw(path, (300, 200)).read_bytes()[:-2000], "text": b"<html>404</html>"}
    path.write_bytes(content[kind])
    return path


def torchvision_tensor(image: Image.Image, recipe: str) -> np.ndarray:
    """The tensor (3, 224, 224) float32 of a recipe, by torchvision."""
    from torchvision import transforms

    side, interpolation = RESIZES[recipe]
    steps = [
        transforms.Resize(side, transforms.InterpolationMode(interpolation)),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
    return transforms.Compose(steps)(image).numpy()
