"""What 01 shows: the exported graph, and how far it lies from the torch model."""

from __future__ import annotations

from ..run.folder import Run
from .elements import Facts, Table
from .words import notes as notes


def exported(run: Run) -> Facts:
    """The graph's input, output, opset and size."""
    export = run.read("export")
    return Facts(
        f"The exported graph export/deit.onnx of {export['model']}",
        {
            "checkpoint": export["checkpoint"],
            "opset": export["opset"],
            **{side: f"{export[side]['name']} {tuple(export[side]['shape'])}" for side in ("input", "output")},
            "parameters": f"{export['parameters']:,}",
            "checked with": f"{export['runtime']['backend']} {export['runtime']['version']}",
        },
    )


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
