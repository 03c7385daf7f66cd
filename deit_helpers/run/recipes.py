"""Preprocessing recipes: named, recorded, compared."""

from __future__ import annotations

from typing import Literal

from .validation import Frozen

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PreprocessSpec(Frozen):
    """A preprocessing recipe: resize the short side, crop the centre, scale to 0..1, subtract mean, divide by std.

    Sizes are pixels, `mean` and `std` are per RGB channel on the 0..1 scale.
    """

    name: str
    resize_px: int
    interpolation: Literal["bicubic", "bilinear"]
    crop_px: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def describe(self) -> str:
        return f"{self.name}: resize {self.resize_px} {self.interpolation}, crop {self.crop_px}"


# deit: facebookresearch/deit datasets.py, build_transform (resize 256/224 of the input, bicubic).
# timm: floor(224 / 0.9), the evaluation of timm's results tables. modelzoo: imagenet_torch_preprocess.py of ModelZoo.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        PreprocessSpec(name="deit", resize_px=256, interpolation="bicubic"),
        PreprocessSpec(name="timm", resize_px=248, interpolation="bicubic"),
        PreprocessSpec(name="modelzoo", resize_px=256, interpolation="bilinear"),
    )
}
