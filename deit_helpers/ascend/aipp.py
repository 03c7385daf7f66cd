"""Static AIPP: the preprocessing that the chip does in front of the model, from the recipe of a run."""

from __future__ import annotations

from ..spec import PreprocessSpec


def config(recipe: PreprocessSpec) -> str:
    """The file for ATC's `--insert_op_conf`: uint8 RGB in NHWC order, normalised to fp16.

    The chip computes `(in - min_chn) * var_reci_chn` on 0..255. `mean_chn` takes integers only, so the mean stands in
    `min_chn`. Crop and padding stay off: the store holds crops of the model's size.
    """
    lines = [
        "aipp_op {",
        "  aipp_mode: static",
        "  related_input_rank: 0",
        "  input_format: RGB888_U8",
        f"  src_image_size_w: {recipe.crop_px}",
        f"  src_image_size_h: {recipe.crop_px}",
        "  crop: false",
        "  csc_switch: false",
        "  rbuv_swap_switch: false",
    ]
    lines += [f"  min_chn_{i}: {255 * mean:.6g}" for i, mean in enumerate(recipe.mean)]
    lines += [f"  var_reci_chn_{i}: {1 / (255 * std):.7g}" for i, std in enumerate(recipe.std)]
    return "\n".join([*lines, "}", ""])
