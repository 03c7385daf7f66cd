"""What 01 shows."""

from __future__ import annotations

from ..run.folder import Run
from .elements import Facts, Table, from_records
from .notes import notes as notes


def exported(run: Run) -> Facts:
    export = run.read("export")
    names = {side: f"{export[side]['name']} {tuple(export[side]['shape'])}" for side in ("input", "output")}
    return Facts(
        f"The exported graph export/deit.onnx of {export['model']}",
        {
            "checkpoint": export["checkpoint"],
            "opset": export["opset"],
            **names,
            "parameters": f"{export['parameters']:,}",
            "checked with": f"{export['runtime']['backend']} {export['runtime']['version']}",
        },
    )


def parity(run: Run) -> Table:
    export = run.read("export")
    total = export["parity"]
    return from_records(
        f"torch against ONNX Runtime on {total['images']} real crops: largest difference {total['max_abs_diff']:.2g}, "
        f"logits' standard deviation {total['std']:.2g}, top-1 agreement {total['top1_agreement_percent']:.0f} %",
        export["parity_images"],
        {"image": "image", "torch_top1": "torch top-1", "onnx_top1": "ONNX top-1", "max_abs_diff": "max abs diff"},
        {"max_abs_diff": ".2e"},
    )
