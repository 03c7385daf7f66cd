"""A float32 graph that computes as fp16 or bf16 does on a chip whose sums are float32, to be run on any CPU.

Weights and the results of operators are rounded to nearest even, products and sums stay float32. What a chip computes as
one operator is rounded once: LayerNorm and GELU (also in their decomposed forms), Softmax, a convolution or Gemm with its
bias. A MatMul and the Add of its bias are two: not every chip fuses them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx import version_converter

from ..graph.graph import Graph, array, with_shapes
from ..graph.patterns import LAYOUT, gelus, layer_norms

Precision = Literal["fp16", "bf16"]
TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
MAX_FP16 = 65504.0
OPSET = 13  # the first whose Cast knows bf16
MOVES = LAYOUT | {"Concat", "Slice", "Unsqueeze", "Flatten", "Identity", "Expand", "Pad"}  # rounded values stay as they are


def rounded(
    proto: onnx.ModelProto, precision: Precision, keep: Collection[str] = (), saturate: bool = False
) -> onnx.ModelProto:
    """The graph with every weight and result rounded to `precision`; its inputs and outputs stay float32.

    Args:
        keep: names of nodes that compute in float32, with their weights as they are. Between two of them a value is not
            rounded; where only one of two neighbours is kept, the value passes in `precision`.
        saturate: values beyond the largest number become that number instead of infinity. CANN's aclrtFloatOverflowMode
            documents infinity as the default of Atlas A2 and A3 (Ascend 910B, 910C) and saturation, to "a maximum value",
            as the only mode of Atlas inference products (310P), Atlas 200I/500 A2 (310B) and Atlas training products
            (910A); which value that is, and what Ascend 310 does, it does not say. GPUs give infinity.

    Raises:
        GraphError: the graph's shapes contradict each other.
    """
    graph = at_opset(proto)
    round_values(graph, precision, inner_steps(graph), keep, saturate)
    return graph.proto()


def at_opset(proto: onnx.ModelProto) -> Graph:
    """The graph at OPSET or newer: same nodes, same names, same results."""
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), OPSET)
    return Graph(with_shapes(version_converter.convert_version(proto, OPSET) if opset < OPSET else proto))


def inner_steps(graph: Graph) -> set[ir.Node]:
    """The nodes of decomposed LayerNorms and GELUs whose results never leave the operator."""
    ends = [*((norm.input, norm.output) for norm in layer_norms(graph)), *gelus(graph)]
    return {node for start, end in ends for node in steps(start, end)[1:]}


def steps(start: ir.Value, end: ir.Value) -> list[ir.Node]:
    """The nodes that compute `end` from `start`, the last one first."""
    nodes, values = dict[ir.Node, None](), [end]
    while values:
        value = values.pop()
        if value is not start and (node := value.producer()) is not None:
            nodes[node] = None
            values += [operand for operand in node.inputs if operand is not None]
    return list(nodes)


def round_values(
    graph: Graph, precision: Precision, inner: Collection[ir.Node], keep: Collection[str] = (), saturate: bool = False
) -> None:
    """Round the weights, the inputs and the results of all nodes but the inner ones, in place."""
    largest = float(TYPES[precision].max) if saturate else np.inf
    _round_weights(graph, precision, inner, keep, largest)
    moving = {node for node in graph.nodes() if node.op_type in MOVES and node.name not in keep}
    results = [value for node in graph.nodes() if node not in inner and node not in moving for value in node.outputs]
    for value in [*graph.graph.inputs, *results]:
        if value.dtype in (None, ir.DataType.FLOAT):  # new nodes have none yet, and are all float
            _round(graph, value, precision, keep, largest)


def _round(graph: Graph, value: ir.Value, precision: Precision, keep: Collection[str], largest: float) -> None:
    """Let the readers of a value read it rounded, but for a kept reader of a kept node, or of the graph's input."""
    maker = value.producer()
    kept = maker is None or maker.name in keep
    uses = [use for use in value.uses() if not (kept and use.node.name in keep)]
    name = value.name
    result = graph.add("Cast", [value], f"{name}/{precision}", to=TYPES[precision])
    result = graph.add("Cast", [result], f"{name}/fp32", to=ir.DataType.FLOAT)
    if np.isfinite(largest):
        bounds = [graph.constant(f"bound_{bound:g}", np.array(bound, np.float32)) for bound in (-largest, largest)]
        result = graph.add("Clip", [result, *bounds], f"{name}/saturated")
    if any(node.op_type == "ReduceMean" for node, _ in uses):
        # ONNX Runtime takes a Cast before a decomposed LayerNorm into its own, and then finds no kernel for bf16.
        result = graph.add("Sum", [result], f"{name}/same")
    for node, index in uses:
        node.replace_input_with(index, result)
    if value.is_graph_output() and not kept:
        graph.graph.outputs[graph.graph.outputs.index(value)] = result
        result.shape, result.dtype = value.shape, value.dtype
        value.name, result.name = f"{name}/exact", name


def _round_weights(
    graph: Graph, precision: Precision, inner: Collection[ir.Node], keep: Collection[str], largest: float
) -> None:
    """Let the nodes that are not kept read rounded weights. The numbers of an inner step (eps, √2) are no weights."""
    for value in list(graph.graph.initializers.values()):
        if value.dtype != ir.DataType.FLOAT:
            continue
        exact = array(value)
        with np.errstate(over="ignore"):
            low = np.clip(exact, -largest, largest).astype(TYPES[precision].numpy()).astype(np.float32)
        uses = [(n, i) for n, i in value.uses() if n.name not in keep and not (exact.size == 1 and n in inner)]
        if uses and not np.array_equal(low, exact):
            rounded_value = graph.constant(f"{value.name}/{precision}", low)
            for node, index in uses:
                node.replace_input_with(index, rounded_value)
