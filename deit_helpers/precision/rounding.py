"""Float32 graphs that compute as fp16 or bf16 does on a chip whose sums are float32, to be run on any CPU.

Weights and the results of operators are rounded to nearest even, products and sums stay float32. What a chip computes as
one operator is rounded once: LayerNorm and GELU (also in their decomposed forms), Softmax, a convolution or Gemm with its
bias. A MatMul and the Add of its bias are two: not every chip fuses them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx import version_converter

from ..graph.graph import Graph, array, axis_of, is_constant, rank, shape, with_shapes
from ..graph.patterns import LAYOUT, gelus, layer_norms

Precision = Literal["fp16", "bf16"]
TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
BLOCK = 16  # terms of a sum between two roundings in the hostile case: k0 of Ascend's cube unit
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
    _Rounding(graph, precision, keep, float(TYPES[precision].max) if saturate else np.inf).apply(inner_steps(graph))
    return graph.proto()


def switchable(
    proto: onnx.ModelProto, precision: Precision, parts: Mapping[str, str], keep: Collection[str] = ()
) -> onnx.ModelProto:
    """As `rounded`, but a part is rounded only where the graph's boolean input of its name says so.

    Args:
        parts: node name -> its part, of all nodes.
    """
    graph, kind = at_opset(proto), ir.TensorType(ir.DataType.BOOL)
    inputs = {part: ir.Value(name=part, shape=ir.Shape([]), type=kind) for part in dict.fromkeys(parts.values())}
    graph.graph.inputs.extend(inputs.values())
    switches = {name: inputs[part] for name, part in parts.items()}
    _Rounding(graph, precision, keep, switches=switches).apply(inner_steps(graph))
    return graph.proto()


def rounded_throughout(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The hostile case, a static graph entirely in fp16: LayerNorm, GELU and Softmax are rounded after every step, and
    sums of products, means and the sum of a softmax after every 16 terms. A convolution's sum alone stays float32, and
    what of these is one operator of ONNX, as LayerNormalization from opset 17 on.

    Raises:
        GraphError: a shape is symbolic.
    """
    graph, inner = at_opset(proto), set[ir.Node]()
    for node in graph.nodes("MatMul", "Gemm", "ReduceMean", "Softmax"):
        value = node.outputs[0]
        if (result := _spelled_out(graph, node, inner)) is not None:
            result.shape, result.dtype = value.shape, value.dtype
            _pass_on(graph, value, result, value.uses(), output=True)
    _Rounding(graph, "fp16").apply(inner)
    return graph.proto()


def at_opset(proto: onnx.ModelProto) -> Graph:
    """The graph at OPSET or newer: same nodes, same names, same results."""
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), OPSET)
    return Graph(with_shapes(version_converter.convert_version(proto, OPSET) if opset < OPSET else proto))


def operators(graph: Graph) -> list[list[ir.Node]]:
    """The nodes of every decomposed LayerNorm and GELU, each one operator; its last node, whose result leaves it, first."""
    complete = []
    for start, end in [*((norm.input, norm.output) for norm in layer_norms(graph)), *gelus(graph)]:
        nodes, values = dict[ir.Node, None](), [end]
        while values:
            value = values.pop()
            if value is not start and (node := value.producer()) is not None:
                nodes[node] = None
                values += [operand for operand in node.inputs if operand is not None]
        complete.append(list(nodes))
    return complete


def inner_steps(graph: Graph) -> set[ir.Node]:
    """The nodes whose results never leave their operator."""
    return {node for operator in operators(graph) for node in operator[1:]}


@dataclass(frozen=True)
class _Rounding:
    """How a graph is rounded, in place; `switches` says of every node which boolean value switches its rounding on."""

    graph: Graph
    precision: Precision
    keep: Collection[str] = ()
    largest: float = np.inf
    switches: Mapping[str, ir.Value] | None = None

    def apply(self, inner: Collection[ir.Node]) -> None:
        """Round the weights, the input and the results of all nodes but the inner ones."""
        moving = {node for node in self.graph.nodes() if node.op_type in MOVES and node.name not in self.keep}
        nodes = [node for node in self.graph.nodes() if node not in inner and node not in moving]
        for value in list(self.graph.graph.initializers.values()):
            if value.dtype == ir.DataType.FLOAT:
                self._round_weight(value, inner)
        for value in [*self.graph.graph.inputs, *(value for node in nodes for value in node.outputs)]:
            if value.dtype in (None, ir.DataType.FLOAT):  # new nodes have none yet, and are all float
                self._round(value)

    def _round(self, value: ir.Value) -> None:
        """Let the readers of a value read it rounded, but for a kept reader of a kept node, or of the graph's input."""
        maker, name, add = value.producer(), value.name, self.graph.add
        kept = maker is None or maker.name in self.keep
        uses = [use for use in value.uses() if not (kept and use.node.name in self.keep)]
        if kept and not uses:
            return
        result = add("Cast", [value], f"{name}/{self.precision}", to=TYPES[self.precision])
        result = add("Cast", [result], f"{name}/fp32", to=ir.DataType.FLOAT)
        if np.isfinite(self.largest):
            bounds = [self.graph.constant("bound", np.array(bound, np.float32)) for bound in (-self.largest, self.largest)]
            result = add("Clip", [result, *bounds], f"{name}/saturated")
        result = self._switched(maker or uses[0].node, result, value, name)
        if any(node.op_type == "ReduceMean" for node, _ in uses):
            # ONNX Runtime takes a Cast before a decomposed LayerNorm into its own, and then finds no kernel for bf16.
            result = add("Sum", [result], f"{name}/same")
        _pass_on(self.graph, value, result, uses, output=not kept)

    def _round_weight(self, value: ir.Value, inner: Collection[ir.Node]) -> None:
        """Let the nodes that are not kept read it rounded. The numbers of an inner step (eps, √2) are no weights."""
        exact = array(value)
        with np.errstate(over="ignore"):
            low = np.clip(exact, -self.largest, self.largest).astype(TYPES[self.precision].numpy()).astype(np.float32)
        uses = [(n, i) for n, i in value.uses() if n.name not in self.keep and not (exact.size == 1 and n in inner)]
        if uses and not np.array_equal(low, exact):
            weight = self.graph.constant(f"{value.name}/{self.precision}", low)
            for node, index in uses:
                node.replace_input_with(index, self._switched(node, weight, value, f"{value.name}/{node.name}"))

    def _switched(self, node: ir.Node, low: ir.Value, exact: ir.Value, name: str | None) -> ir.Value:
        if self.switches is None:
            return low
        return self.graph.add("Where", [self.switches[node.name or ""], low, exact], f"{name}/switched")


def _pass_on(graph: Graph, value: ir.Value, by: ir.Value, uses: Iterable[tuple[ir.Node, int]], output: bool) -> None:
    """Let these readers read `by` instead of a value, and with `output` the graph's output, which keeps its name."""
    for node, index in list(uses):
        node.replace_input_with(index, by)
    if output and value.is_graph_output():
        graph.graph.outputs[graph.graph.outputs.index(value)] = by
        by.shape, by.dtype, name = value.shape, value.dtype, value.name
        value.name, by.name = f"{name}/exact", name


def _spelled_out(graph: Graph, node: ir.Node, inner: set[ir.Node]) -> ir.Value | None:
    """The node's result computed in steps, None where it is left as it is; steps that are not rounded are added to `inner`."""
    value, name, last = node.inputs[0], node.name or "", shape(node.inputs[0])[-1]
    ones = graph.constant("ones", np.ones((last, 1), np.float32))
    if node.op_type == "MatMul":
        return _product(graph, value, node.inputs[1], last, name, inner)
    if node.op_type == "Gemm" and is_constant(node.inputs[1]) and not node.attributes.get_int("transA", 0):
        weight = array(node.inputs[1])
        right = graph.constant(f"{name}/weight", weight.T if node.attributes.get_int("transB", 0) else weight)
        product = _product(graph, value, right, last, name, inner)
        return graph.add("Add", [product, node.inputs[2]], f"{name}/bias") if len(node.inputs) > 2 else product
    if node.op_type == "ReduceMean" and shape(node.outputs[0]) == (*shape(value)[:-1], 1):
        share = graph.constant("share", np.array(1 / last, np.float32))
        return graph.add("Mul", [_product(graph, value, ones, last, name, inner), share], f"{name}/mean")
    if node.op_type == "Softmax" and axis_of(node) == rank(value) - 1:
        largest = graph.add("ReduceMax", [value], f"{name}/largest", axes=[-1])
        powers = graph.add("Exp", [graph.add("Sub", [value, largest], f"{name}/below")], f"{name}/exp")
        return graph.add("Div", [powers, _product(graph, powers, ones, last, name, inner)], f"{name}/share")
    return None


def _product(graph: Graph, left: ir.Value, right: ir.Value, depth: int, name: str, inner: set[ir.Node]) -> ir.Value:
    """left · right, summed over `depth` in blocks: the sum of all blocks so far is rounded, within a block it is not."""
    sizes = graph.constant(f"{name}/blocks", np.array([min(BLOCK, depth - start) for start in range(0, depth, BLOCK)]))
    parts = []
    for value, axis in ((left, -1), (right, -2)):
        part = graph.add("Split", [value, sizes], f"{name}/of {value.name}", len(array(sizes)), axis=axis)
        parts.append(part.producer().outputs)
        inner.add(part.producer())  # parts of rounded values are rounded
    total: ir.Value | None = None
    for number, pair in enumerate(zip(*parts, strict=True)):
        product = graph.add("MatMul", list(pair), f"{name}/block_{number}")
        if total is not None:
            inner.add(product.producer())
            product = graph.add("Add", [total, product], f"{name}/sum_{number}")
        total = product
    return total
