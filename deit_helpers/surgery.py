"""02_optimize: the exported graph -> one static graph per batch size, with a certificate of equivalence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from . import accuracy, artifacts, freshness, images, labels
from .artifacts import Run
from .backends import open_backend
from .errors import GraphError

CERTIFICATE_IMAGES = 8
MAX_DIFF = 1e-4  # absolute or of the logits' std, whichever allows more: fp32 rounding; a real error is far larger
SEED = 0


def optimize(run: Run) -> dict[str, Any]:
    """Stage 02: fix the batch size, simplify, and certify the result against the exported graph.

    Returns:
        The content of `optimize.json`.

    Raises:
        GraphError: an unknown edit, a graph with another batch size than asked for, or one that is not equivalent.
    """
    if run.spec.edits:
        raise GraphError(f"edits: this version knows no graph edits, the spec asks for {', '.join(run.spec.edits)}: use []")
    labels.source_folder(run)
    freshness.ensure(run, "optimize", lambda: _optimize(run))
    return run.read("optimize")


def fix_batch(graph: onnx.ModelProto, batch_size: int) -> onnx.ModelProto:
    """Set the first dimension of every graph input and output, in place."""
    for value in [*graph.graph.input, *graph.graph.output]:
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = batch_size
    return graph


def simplify(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and remove what the symbolic batch left behind, with onnxsim.

    Raises:
        GraphError: onnxsim found its own result different from the original.
    """
    import onnxsim

    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.graph.input}
    simplified, same = onnxsim.simplify(graph, overwrite_input_shapes=shapes)
    if not same:
        raise GraphError("simplify: onnxsim reports that its graph differs from the original; try another onnxsim version")
    return simplified


def operators(graph: onnx.ModelProto) -> dict[str, int]:
    """How many nodes of each operator type, commonest first."""
    counts = Counter(node.op_type for node in graph.graph.node)
    return dict(sorted(counts.items(), key=lambda row: (-row[1], row[0])))


def static_batch(graph: onnx.ModelProto) -> int:
    """The batch size built into a graph.

    Raises:
        GraphError: inputs and outputs disagree, or a dimension is symbolic.
    """
    sizes = {value.type.tensor_type.shape.dim[0].dim_value for value in [*graph.graph.input, *graph.graph.output]}
    if len(sizes) != 1 or 0 in sizes:
        raise GraphError(f"the graph's inputs and outputs have batch sizes {sorted(sizes)}, expected one positive number")
    return sizes.pop()


def certify(name: str, before: Path, after: Path, inputs: np.ndarray) -> dict[str, Any]:
    """Run both graphs on the same tensors and say how far their logits differ.

    Args:
        inputs: (N, 3, H, W) float32; the last batch is padded to the batch size of the graph.

    Returns:
        A row of `optimize.json`: name, applied, exact, max_abs_diff, relative_diff, top1_agreement, images.
    """
    logits = []
    for path in (before, after):
        with open_backend("onnxruntime", path) as backend:
            step = backend.batch_size or len(inputs)
            batches = [images.pad(i, inputs[i : i + step], step) for i in range(0, len(inputs), step)]
            logits.append(np.concatenate([backend.infer(batch.tensor)[batch.valid] for batch in batches]))
    row = accuracy.compare(*logits)
    return {
        "name": name,
        "applied": True,
        "exact": row["max_abs_diff"] == 0.0,
        "max_abs_diff": row["max_abs_diff"],
        "relative_diff": row["max_abs_diff"] / row["std"] if row["std"] else row["max_abs_diff"],
        "top1_agreement": row["top1_agreement_percent"],
        "images": row["images"],
    }


def _optimize(run: Run) -> None:
    exported = onnx.load(run.file("onnx"))
    before = operators(exported)
    graph = simplify(fix_batch(exported, run.size))
    after = operators(graph)
    if static_batch(graph) != run.batch_size:
        raise GraphError(f"the graph came out with batch size {static_batch(graph)}, expected {run.batch_size}")
    if left := sorted({"Where", "Equal", "Expand"} & after.keys()):
        raise GraphError(f"simplify left {', '.join(left)} of the symbolic batch in the graph: ATC would convert it badly")
    onnx.checker.check_model(graph)
    with artifacts.atomic(run.file("static_onnx")) as temporary:
        onnx.save(graph, temporary)
        row = certify("simplify", run.file("onnx"), temporary, _inputs(run))
        if min(row["max_abs_diff"], row["relative_diff"]) > MAX_DIFF or row["top1_agreement"] < 100:
            raise GraphError(
                f"simplify: the graph is not equivalent, max abs diff {row['max_abs_diff']:.2g}, expected <= {MAX_DIFF:g}"
            )
    row |= {"nodes_before": sum(before.values()), "nodes_after": sum(after.values())}
    artifacts.write_json(
        run.file("optimize"),
        {
            "batch_size": run.batch_size,
            "input_name": graph.graph.input[0].name,
            "input_shape": [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim],
            "output_shape": [d.dim_value for d in graph.graph.output[0].type.tensor_type.shape.dim],
            "edits": [row],
            "operators_before": before,
            "operators_after": after,
        },
    )


def _inputs(run: Run) -> np.ndarray:
    """Real crops, and as many tensors of noise: CERTIFICATE_IMAGES in all."""
    _, crops = images.sample(run, CERTIFICATE_IMAGES // 2)
    noise = np.random.default_rng(SEED).standard_normal(crops.shape).astype(np.float32)
    return np.concatenate([crops, noise])
