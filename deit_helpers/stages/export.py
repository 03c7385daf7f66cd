"""01_export: torch module -> `export/deit.onnx` with a symbolic batch, and how closely the two agree (`export.json`)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..backends import open_backend
from ..data import batches, sources, transforms
from ..errors import GraphError
from ..metrics import classification
from ..model import checkpoint
from ..run.folder import Run
from ..run.records import makes

INPUT, OUTPUT = "image", "class"  # the names the recipe's ATC command and dumps use
PARITY_IMAGES = 8
MAX_RELATIVE_DIFF = 1e-4  # of the logits' standard deviation or 1, whichever is larger; fp32 rounding is near 1e-6


@makes("export")
def export(run: Run) -> dict[str, Any]:
    """Stage 01: export the model and compare torch with ONNX Runtime on real crops; returns the content of `export.json`.

    Raises:
        GraphError: the ONNX graph does not compute what the torch module computes.
        SpecError: labels that are not clear, or outside the checkpoint's classes.
    """
    import torch

    module = checkpoint.build(run)
    names, pixels = batches.sample_crops(run, PARITY_IMAGES)
    crops = transforms.tensors(pixels, run.spec.recipe)
    with torch.inference_mode():
        torch_logits = module(torch.from_numpy(crops)).numpy()
    sources.label_images(run, sources.list_folder(run), torch_logits.shape[1])  # wrong ones stop here, not after inference
    with files.atomic(run.file("onnx")) as temporary:
        _write_onnx(module, crops[:1], run.spec.opset, temporary)
        with open_backend("onnxruntime", temporary) as backend:
            onnx_logits = backend.infer(crops)
            runtime = backend.describe()
        parity = classification.compare(torch_logits, onnx_logits)
        if parity["top1_agreement_percent"] < 100 or parity["max_abs_diff"] > MAX_RELATIVE_DIFF * max(1.0, parity["std"]):
            raise GraphError(f"export: the ONNX graph differs from the torch module ({parity}); try another opset or torch")
    parity_images = [
        {"image": name, "torch_top1": int(t.argmax()), "onnx_top1": int(o.argmax()), "max_abs_diff": float(abs(t - o).max())}
        for name, t, o in zip(names, torch_logits, onnx_logits, strict=True)
    ]
    return {
        "model": run.spec.model,
        "checkpoint": run.spec.checkpoint,
        "opset": run.spec.opset,
        "input": {"name": INPUT, "shape": ["batch", *crops.shape[1:]]},
        "output": {"name": OUTPUT, "shape": ["batch", torch_logits.shape[1]]},
        "parameters": sum(p.numel() for p in module.parameters()),
        "classes": torch_logits.shape[1],
        "parity": parity,
        "parity_images": parity_images,
        "runtime": runtime,
    }


def _write_onnx(module: Any, crop: np.ndarray, opset: int, path: Path) -> None:
    """Trace the module with one crop (1, 3, H, W) into an ONNX file with a symbolic batch."""
    import torch

    with warnings.catch_warnings():
        # The tracer's notes on Python branches, and on the TorchScript exporter we need for opset 11.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            torch.from_numpy(crop),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        )
