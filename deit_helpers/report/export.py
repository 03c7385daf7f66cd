"""What 01 shows: the exported graph, and how far it lies from the torch model."""

from __future__ import annotations

import math
from typing import Any

from ..run.folder import Run
from .elements import Facts, Table
from .words import notes as notes
from .words import preprocessing

MOST_TOKENS = 5  # before the patches: the class token, DeiT's second, DINOv2's four registers
SAME = "size, mean, std and interpolation as timm says of the model"


def exported(run: Run) -> Facts:
    """The graph's input, output, opset and size."""
    export = run.read("export")
    return Facts(
        f"The exported graph export/deit.onnx of {export['model']}",
        {
            "checkpoint": export["checkpoint"],
            "weights": weights_text(export),
            "preprocessing": preprocessing(run) or SAME,
            "opset": export["opset"],
            **{side: f"{export[side]['name']} {tuple(export[side]['shape'])}" for side in ("input", "output")},
            "parameters": f"{export['parameters']:,}",
            "checked with": f"{export['runtime']['backend']} {export['runtime']['version']}",
        },
    )


def weights_text(export: dict[str, Any]) -> str:
    """What was done to the checkpoint's weights on their way into the model, in words."""
    weights = export["weights"]
    if not weights:
        return "as timm downloads them"
    averaged = " (averaged, as `ema: true` asks)" if weights["ema"] else ""
    parts = [f"entry {weights['entry']}{averaged}" if weights["entry"] else "a bare state dict"]
    if weights["other_entries"]:
        parts.append(f"not taken: {', '.join(weights['other_entries'])}")
    if weights["prefix"]:
        parts.append(f"prefix {weights['prefix']} taken off")
    if weights["names"] != "timm":
        parts.append(f"{weights['names']} names translated to timm's")
    if weights["renamed"]:
        parts.append(f"{weights['renamed']} names changed or left out by timm's filter of this model")
    for row in weights["reshaped"]:
        before, after = (_shape_text(row["name"], row[key]) for key in ("from", "to"))
        parts.append(f"{row['name']} {'resampled' if before != after else 'rearranged'} from {before} to {after}")
    parts.append(f"head of {export['classes']} classes")
    return "; ".join([*parts, *([f"stored in {weights['dtype']}"] if weights["dtype"] != "float32" else [])])


def _shape_text(name: str, shape: list[int]) -> str:
    """A shape; of position embeddings (1, N, C) the grid of patches, whatever tokens stand before them."""
    side = math.isqrt(shape[1]) if name.endswith("pos_embed") and len(shape) == 3 else 0
    is_square = side and shape[1] - side**2 <= MOST_TOKENS
    return f"{side} × {side} patches" if is_square else " × ".join(map(str, shape))


def parity(run: Run) -> Table:
    """Torch against ONNX Runtime, one row per image."""
    export = run.read("export")
    total = export["parity"]
    return Table(
        f"torch against ONNX Runtime on {total['images']} real crops: largest difference {total['max_abs_diff']:.2g}, "
        f"logits' standard deviation {total['std']:.2g}, top-1 agreement {total['top1_agreement_percent']:.0f} %",
        "image | torch top-1 | ONNX top-1 | max abs diff:.2e",
        [[row[key] for key in ("image", "torch_top1", "onnx_top1", "max_abs_diff")] for row in export["parity_images"]],
    )
