"""The parts of a vision transformer, found in a graph by what they compute, never by node name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ..errors import GraphError
from .graph import Graph, activations, array, axis_of, is_constant, perm_of, rank, scale_factor, shape

LAYOUT = frozenset({"Transpose", "Reshape", "Squeeze", "Split", "Gather"})  # operators that move values and change none


@dataclass(frozen=True)
class Linear:
    """x · weight (in, out) + bias (out,): a MatMul, and the Add of the bias if there is one."""

    node: ir.Node
    weight: np.ndarray
    bias: np.ndarray | None
    adding: ir.Node | None

    @property
    def name(self) -> str:
        return (self.node.name or "linear").rpartition("/")[0] or (self.node.name or "linear")


@dataclass(frozen=True)
class Attention:
    """scores = queries · keysᵀ, softmax, context = probabilities · values (or all of it transposed).

    `between` are the scales and additions of constants (a mask, a position bias) before the softmax, the last one first.
    """

    scores: ir.Node
    between: tuple[ir.Node, ...]
    softmax: ir.Node
    context: ir.Node

    @property
    def transposed(self) -> bool:
        """Whether the softmax runs over the last but one axis."""
        return axis_of(self.softmax) == rank(self.softmax.inputs[0]) - 2

    @property
    def queries(self) -> ir.Value:
        return self.scores.inputs[1 if self.transposed else 0]

    @property
    def keys(self) -> ir.Value:
        return self.scores.inputs[0 if self.transposed else 1]

    @property
    def values(self) -> ir.Value:
        return self.context.inputs[0 if self.transposed else 1]

    @property
    def tokens(self) -> int:
        """How many keys enter the softmax."""
        return shape(self.softmax.inputs[0])[axis_of(self.softmax)]

    @property
    def name(self) -> str:
        return (self.softmax.name or "attention").rpartition("/")[0] or "attention"


@dataclass(frozen=True)
class LayerNorm:
    """One LayerNormalization or its decomposed form; `readers` are the nodes that read `input` for it."""

    input: ir.Value
    output: ir.Value
    readers: tuple[ir.Node, ...]


def attentions(graph: Graph) -> list[Attention]:
    """Every attention of the graph, in order, or a GraphError. Before opset 13 only a Softmax over the last axis is one."""
    complete = []
    for softmax in graph.nodes("Softmax"):
        between, scores = [], softmax.inputs[0].producer()
        while scores is not None and (scale_factor(scores) or _adds_constant(scores)):
            between.append(scores)
            scores = activations(scores)[0].producer()
        contexts = [user for user in softmax.outputs[0].consumers() if user.op_type == "MatMul"]
        flattens = graph.opset < 13 and axis_of(softmax) != rank(softmax.inputs[0]) - 1
        product = scores is not None and scores.op_type == "MatMul" and len(activations(scores)) == 2
        if product and len(contexts) == 1 and not flattens:
            complete.append(Attention(scores, tuple(between), softmax, contexts[0]))
    if not complete:
        kinds = ", ".join(sorted({node.op_type for node in graph.nodes()}))
        message = "no attention (MatMul, Softmax, MatMul) in this graph: the edits are for vision transformers, set edits: []"
        raise GraphError(f"{message} (operators: {kinds})")
    return complete


def _adds_constant(node: ir.Node) -> bool:
    return node.op_type == "Add" and len(activations(node)) == 1


def trace(value: ir.Value) -> tuple[list[ir.Value], Linear | None]:
    """Walk up from an operand of an attention through layout work and scales to the linear layer it comes from.

    Returns:
        The results of the nodes passed, nearest first, and the linear layer, None when something else is met.
    """
    path: list[ir.Value] = []
    while (node := value.producer()) is not None:
        scaled = scale_factor(node)
        if scaled is None and node.op_type not in LAYOUT:
            return path, _linear(node)
        path.append(value)
        value = scaled[1] if scaled else node.inputs[0]
    return path, None


def _linear(node: ir.Node) -> Linear | None:
    """The linear layer whose result this node makes, None if it is something else."""
    adding = node if _adds_constant(node) else None
    product = activations(adding)[0].producer() if adding else node
    if product is None or product.op_type != "MatMul" or not is_constant(product.inputs[1]):
        return None
    weight, bias = array(product.inputs[1]), next((array(v) for v in adding.inputs if is_constant(v)), None) if adding else None
    return Linear(product, weight, bias, adding) if weight.ndim == 2 else None


def layer_norms(graph: Graph) -> list[LayerNorm]:
    """Every LayerNorm: the operator of opset 17, or (x - mean(x)) / sqrt(var + eps), times weight, plus bias."""
    norms = []
    for node in graph.nodes("LayerNormalization", "Sub"):
        value = node.inputs[0]
        if node.op_type == "LayerNormalization":
            norms.append(LayerNorm(value, node.outputs[0], (node,)))
            continue
        mean = node.inputs[1].producer() if node.inputs[1] else None
        if mean is None or mean.op_type != "ReduceMean" or mean.inputs[0] is not value:
            continue
        output = node.outputs[0]
        for op_type in ("Div", "Mul", "Add"):
            step = next((user for user in output.consumers() if user.op_type == op_type), None)
            # The two last steps carry the constant weight and bias; without them the norm ends at the division.
            if step is None or (op_type != "Div" and not any(is_constant(v) and array(v).ndim for v in step.inputs)):
                break
            output = step.outputs[0]
        norms.append(LayerNorm(value, output, (mean, node)))
    return norms


def gelus(graph: Graph) -> list[tuple[ir.Value, ir.Value]]:
    """Input and result of every GELU in its decomposed form with Erf: x · (1 + erf(x / √2)) · 0.5, the half anywhere."""
    gelus = []
    for erf in graph.nodes("Erf"):
        scaled = scale_factor(erf.inputs[0].producer())
        steps = list(_single_users(erf.outputs[0], "Add", "Mul", "Mul"))
        if scaled is None or len(steps) < 2:
            continue
        value, product = scaled[1], steps[1]
        other = next(v for v in product.inputs if v is not steps[0].outputs[0])
        halved = scale_factor(other.producer())
        if other is value or (halved and halved[1] is value):
            gelus.append((value, steps[-1 if halved is None and scale_factor(steps[-1]) else 1].outputs[0]))
    return gelus


def _single_users(value: ir.Value, *op_types: str) -> Iterator[ir.Node]:
    """The only reader of a value, the only reader of its result and so on, as long as they are of these types."""
    for op_type in op_types:
        users = list(value.consumers())
        if len(users) != 1 or users[0].op_type != op_type:
            return
        yield users[0]
        value = users[0].outputs[0]


def norm_before(attention: Attention, norms: list[LayerNorm]) -> LayerNorm | None:
    """The LayerNorm whose result the queries are made from."""
    _, linear = trace(attention.queries)
    return next((norm for norm in norms if linear is not None and norm.output is linear.node.inputs[0]), None)


class Exit(NamedTuple):
    """Where queries, keys or values leave the 5-D tensor of one linear layer.

    Attributes:
        value: 4-D.
        labels: its axes in letters: b batch, n tokens, h heads, d width.
        reshape: the node that makes the 5-D tensor.
    """

    value: ir.Value
    labels: str
    linear: Linear
    reshape: ir.Node


def qkv_exits(graph: Graph) -> list[list[Exit]]:
    """The exits of queries, keys and values of every attention whose three come from one linear layer."""
    fused = []
    for attention in attentions(graph):
        operands = (attention.queries, attention.keys, attention.values)
        exits = [exit_ for part, operand in enumerate(operands) if (exit_ := _exit(operand, part)) is not None]
        if len(exits) == 3 and len({exit_.reshape for exit_ in exits}) == 1:
            fused.append(exits)
    return fused


def _exit(operand: ir.Value, part: int) -> Exit | None:
    """The exit of an operand that is this part of the 5-D tensor, None if it is not: its Split, Gather and Squeeze are read."""
    path, linear = trace(operand)
    reshape = path[-1].producer() if path else None
    if linear is None or reshape is None or reshape.op_type != "Reshape" or rank(path[-1]) != 5 or shape(path[-1])[2] != 3:
        return None
    labels, taken = "bn3hd", -1
    for value in reversed(path[:-1]):
        node = value.producer()
        if node.op_type == "Transpose":
            labels = "".join(labels[axis] for axis in perm_of(node))
        elif node.op_type == "Split" and labels[axis_of(node, 0)] == "3" and len(node.outputs) == 3:
            taken = node.outputs.index(value)
        elif node.op_type == "Gather" and labels[axis_of(node, 0)] == "3":
            taken, labels = int(array(node.inputs[1])), labels.replace("3", "")
        elif node.op_type == "Squeeze" and shape(node.inputs[0])[labels.index("3")] == 1:
            labels = labels.replace("3", "")
        else:
            return None
        if "3" not in labels:
            return Exit(value, labels, linear, reshape) if taken == part else None
    return None
