"""How timm says the images of a model are prepared: compared with the spec's recipe, or made one by `preprocess: model`."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from ..errors import SpecError
from ..run.folder import Run
from ..run.recipes import INTERPOLATIONS, PreprocessSpec
from . import checkpoint

AnyRun = TypeVar("AnyRun", bound=Run)


def configuration(model: Any) -> dict[str, Any]:
    """Of a timm model: `size_px` [height, width], `mean`, `std`, `interpolation`, `crop_pct` and `crop_mode`."""
    from timm.data import resolve_model_data_config

    values = resolve_model_data_config(model)
    made_for = getattr(getattr(model, "patch_embed", None), "img_size", None)  # `img_size` of the spec's model_args
    size_px = list(made_for or values["input_size"][1:])
    return {"size_px": size_px, "mean": list(values["mean"]), "std": list(values["std"]),
            **{key: values[key] for key in ("interpolation", "crop_pct", "crop_mode")}}  # fmt: skip


def resolved(run: AnyRun) -> AnyRun:
    """The run with the recipe that `preprocess: model` stands for; its `spec.yaml` then holds the recipe's values.

    A host without timm runs that `spec.yaml`.

    Raises:
        SpecError: timm is not installed, does not know the model, or prepares its images as no recipe here does.
    """
    if run.spec.preprocess != "model":
        return run
    try:
        import torch
    except ImportError as err:
        how = "pip install 'deit-report[export]', or run the spec.yaml of a run folder, which has the values"
        raise SpecError(f"preprocess: model asks timm, which is not installed: {how}") from err
    with torch.device("meta"):  # no weights are made
        values = configuration(checkpoint.create(run, False))
    sides, mode, interpolation = set(values["size_px"]), values["crop_mode"], values["interpolation"]
    if len(sides) > 1 or mode != "center" or interpolation not in INTERPOLATIONS:
        what = f"{'x'.join(map(str, values['size_px']))} px, crop mode {mode}, {interpolation}"
        allowed = f"square, centre crop, {' or '.join(INTERPOLATIONS)}: name one of our recipes"
        raise SpecError(f"preprocess: model: timm prepares the images of {run.spec.model} with {what}; we can do {allowed}")
    recipe = PreprocessSpec(
        name="model",
        resize_px=math.floor(sides.pop() / values["crop_pct"]),  # as timm's transforms_imagenet_eval
        interpolation=interpolation,
        crop_px=values["size_px"][0],
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
    )
    return run.replace(preprocess=recipe)
