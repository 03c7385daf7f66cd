"""01_export: torch module -> `export/deit.onnx` with a symbolic batch, and how closely the two agree (`export.json`)."""

from __future__ import annotations

from typing import Any

from .. import files
from ..backends import open_backend
from ..data import batches, sources, transforms
from ..errors import GraphError
from ..metrics import classification
from ..model import trace
from ..run.folder import Run
from ..run.records import makes

PARITY_IMAGES = 8
MAX_RELATIVE_DIFF = 1e-4  # of the logits' standard deviation or 1, whichever is larger; fp32 rounding is near 1e-6


@makes("export")
def export(run: Run) -> dict[str, Any]:
    """Stage 01: export the model and compare torch with ONNX Runtime on real crops; returns the content of `export.json`.

    Raises:
        GraphError: torch cannot export the model, or the graph does not compute what the torch module computes.
        SpecError: labels that are not clear, or outside the checkpoint's classes.
        DeitError: as `trace.trace`.
    """
    names, pixels = batches.sample_crops(run, PARITY_IMAGES)
    crops = transforms.tensors(pixels, run.spec.recipe)
    with files.atomic(run.file("onnx")) as temporary:
        torch_logits, module = trace.trace(run, crops, temporary)
        sources.label_images(run, sources.list_folder(run), torch_logits.shape[1])  # wrong ones stop here, not after inference
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
        "input": {"name": trace.INPUT, "shape": ["batch", *crops.shape[1:]]},
        "output": {"name": trace.OUTPUT, "shape": ["batch", torch_logits.shape[1]]},
        "parameters": module["parameters"],
        "classes": torch_logits.shape[1],
        "weights": module["weights"],
        "timm_config": module["timm_config"],
        "parity": parity,
        "parity_images": parity_images,
        "runtime": runtime,
    }
