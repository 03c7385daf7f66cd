"""A model, not a measurement: how the matrices of a graph fit the 16 × 16 blocks of Ascend's FRACTAL_NZ layout.

MatMul, Softmax and LayerNorm pass tensors on in blocks as long as their last two dimensions are multiples of 16. Where one
is not, it is padded in the blocks (the wasted share), and ATC has to convert it with TransData to reach its real values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from .graph import Graph, activations, is_static, shape
from .padding import BLOCK
from .pattern import LAYOUT, layer_norms


def table(graph: Graph) -> list[dict[str, Any]]:
    """One row per kind of operator and matrix shape, in the order of the graph.

    Returns:
        Rows with operator, operand (`input`, `result`, …), rows, columns, padded_rows, padded_columns, count (places in the
        graph), waste_percent (share of the padded matrix that is padding), aligned, carries_tokens.
    """
    found: dict[tuple, dict[str, Any]] = {}
    for operator, operand, value in _matrices(graph):
        rows, columns = shape(value)[-2:]
        key = (operator, operand, rows, columns, len(shape(value)) > 2)
        if key in found:
            found[key]["count"] += 1
            continue
        padded = [-(-side // BLOCK) * BLOCK for side in (rows, columns)]
        found[key] = {
            "operator": operator,
            "operand": operand,
            "rows": rows,
            "columns": columns,
            "padded_rows": padded[0],
            "padded_columns": padded[1],
            "count": 1,
            "waste_percent": 100 * (1 - rows * columns / (padded[0] * padded[1])),
            "aligned": padded == [rows, columns],
            "carries_tokens": len(shape(value)) > 2,  # the classifier's matrices have lost the axis of the tokens
        }
    return list(found.values())


def broken_runs(graph: Graph) -> int:
    """How many tensors inside the blocks pass between these operators in dimensions that are no multiples of 16."""
    values = {id(value): value for _, _, value in _matrices(graph) if len(shape(value)) > 2}
    return sum(any(side % BLOCK for side in shape(value)[-2:]) for value in values.values())


def block(graph: Graph) -> list[dict[str, Any]]:
    """The nodes of the first attention, from the norm before it to the residual addition, for drawing.

    Returns:
        Rows with op_type, name, inputs (names of activations), outputs, shape of the first output, aligned (None for layout
        work, which takes the blocks of its neighbours). Empty without attention.
    """
    softmax = next(graph.nodes("Softmax"), None)
    norms = layer_norms(graph)
    if softmax is None or len(norms) < 2 or not is_static(softmax.inputs[0]):
        return []
    first, last = norms[0].output, norms[1].input
    below, inside = {id(first)}, []
    for node in graph.nodes():
        if any(id(value) in below for value in node.inputs):
            below.update(id(value) for value in node.outputs)
            inside.append(node)
        if any(value is last for value in node.outputs):
            break
    above = {id(last)}
    for node in reversed(inside):
        if any(id(value) in above for value in node.outputs):
            above.update(id(value) for value in node.inputs)
    return [
        {
            "op_type": node.op_type,
            "name": node.name,
            "inputs": [value.name for value in activations(node)],
            "outputs": [value.name for value in node.outputs],
            "shape": list(shape(node.outputs[0])),
            "aligned": None if node.op_type in LAYOUT else not any(side % BLOCK for side in shape(node.outputs[0])[-2:]),
        }
        for node in inside
        if any(id(value) in above for value in node.outputs)
    ]


def _matrices(graph: Graph) -> Iterator[tuple[str, str, ir.Value]]:
    """Operator, operand and tensor of everything that is laid out in blocks; constant weights are laid out beforehand."""
    norms = {id(norm.output.producer()): norm for norm in layer_norms(graph)}
    for node in graph.nodes():
        if id(node) in norms:
            operator, values = "LayerNorm", {"input": norms[id(node)].input}
        elif node.op_type == "Softmax":
            operator, values = "Softmax", {"input": node.inputs[0]}
        elif node.op_type in ("MatMul", "Gemm"):
            factors = activations(node)
            operator = f"{node.op_type} of {'two activations' if len(factors) == 2 else 'a weight'}"
            values = dict(zip(("first factor", "second factor") if len(factors) == 2 else ("input",), factors, strict=True))
        else:
            continue
        for operand, value in (values | {"result": node.outputs[0]}).items():
            if is_static(value):  # a graph that could not be simplified has symbolic shapes
                yield operator, operand, value
