"""The torch half of 01, in a process of its own with a limit of time: checkpoint -> ONNX graph, torch's logits, facts.

When an operator cannot be exported, torch prints its whole graph, 170 to 290 KB, while it holds Python's lock. In a notebook
the reader of that pipe is another thread of the same process, and both would wait for ever.

`python -m deit_helpers.model.trace FOLDER RUN ROOT ONNX` does it with the files of a folder; `trace` runs that.
"""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GraphError, SpecError, one_line
from ..run.folder import Run
from . import apart, checkpoint, timm_config

INPUT, OUTPUT = "image", "class"  # the names the recipe's ATC command and dumps use
LIMIT_S = 900  # most of it for a download of `checkpoint: hub`; DeiT-base takes 20 s


def trace(run: Run, tensors: np.ndarray, onnx: Path, limit_s: float = LIMIT_S) -> tuple[np.ndarray, dict[str, Any]]:
    """Export the spec's model to the file `onnx`, with a symbolic batch.

    Args:
        tensors: normalised crops (N, 3, H, W) float32, to compare torch with the graph on.

    Returns:
        torch's logits (N, C); and facts: `parameters`, `weights` (of `checkpoint.load`), `timm_config`.

    Raises:
        GraphError: torch cannot export the model at this opset; names the operator and the first opset that has it.
        DeitError: as `checkpoint.load`, or the model does not take crops of this size.
    """
    with tempfile.TemporaryDirectory(prefix="deit-report-") as name:
        folder = Path(name)
        facts, why = apart.work(run, __name__, folder, tensors, str(onnx), limit_s=limit_s)
        if why:
            what = f"{one_line(run.spec.model, 60)} at opset {run.spec.opset}: torch's exporter {why}"
            raise GraphError(f"export: {what}; try another opset, model_args or torch")
        return np.load(folder / "logits.npy"), facts


def main(folder: Path, run_folder: Path, root: Path, onnx: Path) -> None:
    """Do the work in that process."""
    with apart.working(folder, run_folder, root) as (run, tensors, facts):
        module, weights = checkpoint.load(run)
        np.save(folder / "logits.npy", _logits(run, module, tensors))
        _write_onnx(run, module, tensors[:1], onnx)
        parameters = sum(weight.numel() for weight in module.parameters())
        facts |= {"parameters": parameters, "weights": weights, "timm_config": timm_config.configuration(module)}


def _logits(run: Run, module: Any, tensors: np.ndarray) -> np.ndarray:
    import torch

    try:
        with torch.inference_mode():
            return module(torch.from_numpy(tensors)).numpy()
    except (AssertionError, RuntimeError, ValueError, TypeError, AttributeError, LookupError) as err:
        what = f"crops of {run.spec.recipe.crop_px} px, {one_line(run.spec.model, 60)} cannot take them ({one_line(err)})"
        raise SpecError(f"preprocess: {what}; `preprocess: model` makes them as its timm configuration says") from err


def _write_onnx(run: Run, module: Any, crop: np.ndarray, onnx: Path) -> None:
    """Trace the module with one crop (1, 3, H, W) into an ONNX file with a symbolic batch."""
    import torch

    with warnings.catch_warnings():
        # The tracer's notes on Python branches, and on the TorchScript exporter we need for opset 11.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module,
                torch.from_numpy(crop),
                str(onnx),
                dynamo=False,
                opset_version=run.spec.opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
        except torch.onnx.errors.UnsupportedOperatorError as err:
            operator, first = (re.search(pattern, str(err)) for pattern in (r"operator '([^']+)'", r"added in version (\d+)"))
            if operator is None:
                raise
            has_it = f"the first opset that has it is {first[1]}: set opset: {first[1]}" if first else "no opset of it has it"
            other = "" if first else ": take another model, or model_args that do without"
            what = f"torch's exporter does not have the operator {operator[1]} at opset {run.spec.opset}"
            raise GraphError(f"export: {one_line(run.spec.model, 60)}: {what}; {has_it}{other}") from err


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
