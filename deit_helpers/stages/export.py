"""01_export: torch module -> `export/deit.onnx` with a symbolic batch, and how closely the two agree (`export.json`)."""

from __future__ import annotations

import warnings
from typing import Any

from .. import files
from ..backends import open_backend
from ..data import batches, transforms
from ..errors import GraphError
from ..metrics import classification
from ..model import checkpoint
from ..run import records
from ..run.folder import Run

INPUT, OUTPUT = "image", "class"  # the names the recipe's ATC command and dumps use
PARITY_IMAGES = 8
MAX_RELATIVE_DIFF = 1e-4  # of the logits' standard deviation or 1, whichever is larger; fp32 rounding is near 1e-6


def export(run: Run) -> dict[str, Any]:
    """Stage 01: export the model and compare torch with ONNX Runtime on real crops.

    Returns:
        The content of `export.json`.

    Raises:
        GraphError: the ONNX graph does not compute what the torch module computes.
    """
    records.ensure(run, "export", lambda: _export(run))
    return run.read("export")


def _export(run: Run) -> None:
    import torch

    module = checkpoint.build(run)
    names, pixels = batches.sample_crops(run, PARITY_IMAGES)
    crops = transforms.tensors(pixels, run.spec.recipe)
    with torch.inference_mode():
        expected = module(torch.from_numpy(crops)).numpy()
    with files.atomic(run.file("onnx")) as temporary:
        with warnings.catch_warnings():
            # The tracer's notes on Python branches, and on the TorchScript exporter we need for opset 11.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                torch.from_numpy(crops[:1]),
                str(temporary),
                dynamo=False,
                opset_version=run.spec.opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
        with open_backend("onnxruntime", temporary) as backend:
            found = backend.infer(crops)
            runtime = backend.describe()
        parity = classification.compare(expected, found)
        if parity["top1_agreement_percent"] < 100 or parity["max_abs_diff"] > MAX_RELATIVE_DIFF * max(1.0, parity["std"]):
            raise GraphError(f"export: the ONNX graph differs from the torch module ({parity}); try another opset or torch")
    rows = [
        {"image": name, "torch_top1": int(e.argmax()), "onnx_top1": int(f.argmax()), "max_abs_diff": float(abs(e - f).max())}
        for name, e, f in zip(names, expected, found, strict=True)
    ]
    files.write_json(
        run.file("export"),
        {
            "model": run.spec.model,
            "checkpoint": run.spec.checkpoint,
            "opset": run.spec.opset,
            "input": {"name": INPUT, "shape": ["batch", *crops.shape[1:]]},
            "output": {"name": OUTPUT, "shape": ["batch", expected.shape[1]]},
            "parameters": sum(p.numel() for p in module.parameters()),
            "classes": expected.shape[1],
            "parity": parity,
            "parity_images": rows,
            "runtime": runtime,
        },
    )
