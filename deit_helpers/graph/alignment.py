"""A model, not a measurement: how the matrices of a graph fit the 16 × 16 blocks of Ascend's FRACTAL_NZ layout.

MatMul, Softmax and LayerNorm pass tensors on in blocks as long as their last two dimensions are multiples of 16. Where one
is not, it is padded in the blocks (the wasted share), and ATC has to convert it with TransData to reach its real values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import onnx_ir as ir

from ..errors import GraphError
from .graph import Graph, activations, is_static, shape
from .patterns import LAYOUT, attentions, layer_norms, norm_before
from .token_edits import BLOCK


def table(graph: Graph) -> list[dict[str, Any]]:
    """One row per kind of operator and matrix shape, in the order of the graph.

    Returns:
        Rows with operator, operand (`input`, `result`, …), rows, columns, padded_rows, padded_columns, count (places in the
        graph), waste_percent (share of the padded matrix that is padding), aligned.
    """
    rows = []
    places = Counter((operator, operand, shape(value)[-2:]) for operator, operand, value in _matrices(graph))
    for (operator, operand, sides), count in places.items():
        padded = tuple(-(-side // BLOCK) * BLOCK for side in sides)
        row = {"operator": operator, "operand": operand, "rows": sides[0], "columns": sides[1], "count": count}
        row |= {"padded_rows": padded[0], "padded_columns": padded[1], "aligned": padded == sides}
        rows.append({**row, "waste_percent": 100 * (1 - prod(sides) / prod(padded))})
    return rows


def broken_runs(graph: Graph) -> int | None:
    """How many tensors inside the blocks pass between these operators in dimensions that are no multiples of 16.

    None for a graph that could not be simplified: its shapes are symbolic.
    """
    if not all(is_static(node.inputs[0]) for node in graph.nodes("Softmax")):
        return None
    values = {id(value): value for _, _, value in _matrices(graph) if len(shape(value)) > 2}
    return sum(any(side % BLOCK for side in shape(value)[-2:]) for value in values.values())


def block(graph: Graph) -> list[dict[str, Any]]:
    """The first attention for drawing: from the norm before it (and a Slice before that) to the residual addition.

    Returns:
        Rows with op_type, name, inputs (names of activations), outputs, shape of the first output, aligned (None for layout
        work, which takes the blocks of its neighbours). Empty where no attention with a norm before it is found.
    """
    try:
        attention = attentions(graph)[0]
    except GraphError:
        return []
    norm = norm_before(attention, layer_norms(graph))
    if norm is None or not is_static(attention.softmax.inputs[0]):
        return []
    inside: list[ir.Node] = []
    below = {norm.output}
    for node in graph.below(norm.output):
        inside.append(node)
        below.update(node.outputs)
        # The residual addition: what comes from the attention, and what went past it.
        if attention.context in inside and node.op_type == "Add" and not below.issuperset(activations(node)):
            break
    needed = set(inside[-1].outputs)
    for node in reversed(inside):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
    on_the_way = [node for node in inside if node.outputs[0] in needed]
    rows = [_drawn(node.op_type, node.name, activations(node), node.outputs) for node in on_the_way]
    source = norm.readers[0].inputs[0]
    rows.insert(0, _drawn("LayerNorm", norm.output.name, [source], [norm.output]))
    cut = source.producer()
    return [_drawn("Slice", cut.name, [], [source]), *rows] if cut is not None and cut.op_type == "Slice" else rows


def _drawn(op_type: str, name: str, inputs: list[ir.Value], outputs: Sequence[ir.Value]) -> dict[str, Any]:
    sides = shape(outputs[0])
    return {
        "op_type": op_type,
        "name": name,
        "inputs": [value.name for value in inputs],
        "outputs": [value.name for value in outputs],
        "shape": list(sides),
        "aligned": None if op_type in LAYOUT else not any(side % BLOCK for side in sides[-2:]),
    }


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
