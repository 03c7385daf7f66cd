"""The same points of a vision transformer in any graph of it: found along the residual stream, never by node name."""

from __future__ import annotations

import onnx_ir as ir

from ..errors import GraphError
from .graph import Graph, activations
from .patterns import layer_norms, trace


def tap_values(graph: Graph) -> list[ir.Value | None]:
    """What the first block reads, and of every block in order: its first norm's result, attention's projection, the residual
    stream after it, the second norm's result, the MLP's activation, the residual stream at the end.

    A block is twice a LayerNorm, a branch, and the addition of the branch. Shapes are not needed: the exported graph is read
    as it stands. The activation is None where no linear layer with a constant weight reads it.

    Raises:
        GraphError: there are no such blocks, as in networks that normalise last.
    """
    values: list[ir.Value | None] = []
    count, stream = 0, None
    for norm in layer_norms(graph):
        before, adding = _whole(norm.input), _addition(_whole(norm.input))
        if adding is None:  # another norm, such as the last
            continue
        if stream not in (None, before):
            count = -1
            break
        branch = _branch(adding, before)
        tap = branch if count % 2 == 0 else _activation(branch)
        stream = adding.outputs[0]
        values += [*([] if values else [before]), norm.output, tap, stream]
        count += 1
    if count < 2 or count % 2:
        raise GraphError(
            "no blocks of LayerNorm, attention, addition, LayerNorm, MLP, addition in this graph: compare graphs of a vision "
            "transformer that normalises first, whose operators no runtime has fused"
        )
    return values


def _whole(value: ir.Value) -> ir.Value:
    """The value before Slices of its tokens, as `pad_outside_attention` and `class_token_only` insert them."""
    while (node := value.producer()) is not None and node.op_type == "Slice":
        value = node.inputs[0]
    return value


def _addition(stream: ir.Value) -> ir.Node | None:
    """The addition of a computed value to the stream, or to a Slice of it."""
    for user in stream.consumers():
        if user.op_type == "Add" and len(activations(user)) == 2:
            return user
        if user.op_type == "Slice" and (adding := _addition(user.outputs[0])) is not None:
            return adding
    return None


def _branch(adding: ir.Node, stream: ir.Value) -> ir.Value:
    """What is added to the stream, before LayerScale."""
    branch = next(value for value in adding.inputs if _whole(value) is not stream)
    node = branch.producer()
    return activations(node)[0] if node is not None and node.op_type == "Mul" and len(activations(node)) == 1 else branch


def _activation(branch: ir.Value) -> ir.Value | None:
    _, linear = trace(branch)
    return linear.node.inputs[0] if linear else None
