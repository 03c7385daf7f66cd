"""Static AIPP: the preprocessing that the chip does in front of the model."""

from __future__ import annotations

from collections.abc import Sequence


def config(side_px: int, mean: Sequence[float], std: Sequence[float]) -> str:
    """The file for ATC's `--insert_op_conf`: uint8 RGB in NHWC order, normalised to fp16.

    The chip computes `(in - min_chn) * var_reci_chn` on 0..255. `mean_chn` takes integers only, so the mean stands in
    `min_chn`. Crop and padding stay off: the store holds crops of the model's size.

    Args:
        side_px: height and width of the model's input.
        mean: per RGB channel on the 0..1 scale, and so is `std`.
    """
    lines = [
        "aipp_op {",
        "  aipp_mode: static",
        "  related_input_rank: 0",
        "  input_format: RGB888_U8",
        f"  src_image_size_w: {side_px}",
        f"  src_image_size_h: {side_px}",
        "  crop: false",
        "  csc_switch: false",
        "  rbuv_swap_switch: false",
    ]
    lines += [f"  min_chn_{i}: {255 * value:.6g}" for i, value in enumerate(mean)]
    lines += [f"  var_reci_chn_{i}: {1 / (255 * value):.7g}" for i, value in enumerate(std)]
    return "\n".join([*lines, "}", ""])
