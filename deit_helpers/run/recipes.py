"""Preprocessing recipes: named, recorded, compared."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from .validation import Frozen

Interpolation = Literal["bicubic", "bilinear"]
INTERPOLATIONS = get_args(Interpolation)


class PreprocessSpec(Frozen):
    """A preprocessing recipe: resize the short side, crop the centre, scale to 0..1, subtract mean, divide by std.

    Sizes are pixels, `mean` and `std` are per RGB channel on the 0..1 scale.
    """

    name: str = "own"
    resize_px: int = Field(ge=1)
    interpolation: Interpolation
    crop_px: int = Field(default=224, ge=1)
    mean: tuple[float, float, float] = Field(default=(0.485, 0.456, 0.406), strict=False)  # of ImageNet
    std: tuple[float, float, float] = Field(default=(0.229, 0.224, 0.225), strict=False)

    @model_validator(mode="after")
    def _possible(self) -> PreprocessSpec:
        if self.crop_px > self.resize_px or not all(0 < value <= 1 for value in self.std):
            raise ValueError("crop_px of at most resize_px, and std above 0, at most 1: pixels are from 0 to 1")
        if not all(0 <= value <= 1 for value in self.mean):
            raise ValueError("a mean of pixels, which are from 0 to 1")
        return self

    def differences(self, config: dict[str, Any]) -> list[str]:
        """Where this recipe is not what timm's configuration of the model (`export.json`) asks for, with both values."""
        ours = {"size_px": [self.crop_px] * 2, "mean": self.mean, "std": self.std, "interpolation": self.interpolation}
        texts = {key: [_text(value), _text(config[key])] for key, value in ours.items() if key in config}
        return [f"{key.removesuffix('_px')} {mine} (the model: {its})" for key, (mine, its) in texts.items() if mine != its]

    def describe(self) -> str:
        return f"{self.name}: resize {self.resize_px} {self.interpolation}, crop {self.crop_px}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(f"{number:.4g}" for number in value)


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

# What one change makes of a recipe: a rung of the waterfall, or a mistake that 05's answers are searched for.
CHANGES: dict[str, dict[str, Any]] = {
    "bicubic": {"interpolation": "bicubic"},
    "bilinear": {"interpolation": "bilinear"},
    "no_mean": {"mean": (0.0, 0.0, 0.0)},
    "no_std": {"std": (1.0, 1.0, 1.0)},
    "half_mean_std": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},  # of Inception and Google's ViT
}
BGR = "bgr"  # no recipe: the channels in another order
