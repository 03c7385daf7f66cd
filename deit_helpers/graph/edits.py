"""The named graph edits. Each finds its place by pattern, changes a `Graph` in place and raises when it finds nothing.

Whether an edit is the identity is declared in `run/spec.py` and proved by the certificate, for every graph anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..errors import GraphError
from ..run.recipes import PreprocessSpec
from . import token_edits
from .graph import Graph, array, axis_of, is_constant, perm_of, rank, scale_factor, shape
from .patterns import Linear, attentions, qkv_exits, trace


@dataclass(frozen=True)
class Edit:
    """What an edit does, and in words."""

    apply: Callable[[Graph, PreprocessSpec], None]
    purpose: str


def fold_scale(graph: Graph, recipe: PreprocessSpec) -> None:
    """Multiply the factor 1/√d of the scores into the queries' weight and bias, and drop the multiplication.

    Raises GraphError: no attention is scaled by a constant.
    """
    folded = 0
    for attention in attentions(graph):
        path, linear = trace(attention.queries)
        of_scores = itertools.takewhile(scale_factor, reversed(attention.between))  # a scale after a mask scales it too
        before_values = trace(attention.values)[0]
        of_operands = [value.producer() for value in (*path, *trace(attention.keys)[0]) if value not in before_values]
        scales = [*filter(scale_factor, of_operands), *of_scores]
        if not scales:
            continue
        if linear is None:
            raise GraphError(f"fold_scale: the queries of {attention.name} do not come from a linear layer: leave the edit out")
        factor = 1.0
        for node in scales:
            by, value = scale_factor(node) or (1.0, node.inputs[0])
            factor *= by
            node.outputs[0].replace_all_uses_with(value)
        _scale_columns(graph, linear, _part_of(path, linear), np.float32(factor))
        folded += 1
    if not folded:
        raise GraphError("fold_scale: no scores are scaled by a constant, perhaps already folded: leave the edit out")


def split_qkv(graph: Graph, recipe: PreprocessSpec) -> None:
    """Three linear layers for queries, keys and values in place of one, its 5-D tensor, Split, Squeeze and Gather.

    Raises GraphError: no attention has one linear layer for all three.
    """
    fused = qkv_exits(graph)
    if not fused:
        raise GraphError("split_qkv: no attention takes queries, keys and values from one linear layer: leave the edit out")
    for exits in fused:
        for i, (value_before, labels, linear, reshape) in enumerate(exits):
            batch, tokens, _, heads, width = shape(reshape.outputs[0])
            columns = slice(i * heads * width, (i + 1) * heads * width)
            name = f"{linear.name}/{'qkv'[i]}"
            weight = graph.constant(f"{name}/weight", np.ascontiguousarray(linear.weight[:, columns]))
            value = graph.add("MatMul", [linear.node.inputs[0], weight], f"{name}/MatMul")
            if linear.bias is not None:
                value = graph.add("Add", [value, graph.constant(f"{name}/bias", linear.bias[columns])], f"{name}/Add")
            to = graph.constant("split_qkv_shape", np.array([batch, tokens, heads, width]))
            value = graph.add("Reshape", [value, to], f"{name}/Reshape")
            if labels != "bnhd":
                value = graph.transpose(value, ["bnhd".index(label) for label in labels], f"{name}/Transpose")
            value_before.replace_all_uses_with(value)


def merge_transpose(graph: Graph, recipe: PreprocessSpec) -> None:
    """Compute a Transpose that follows another in one, also across the Split of the 5-D tensor of queries, keys, values.

    Across the Split the 5-D Transpose becomes one per operand, and that of the keys takes in the one that follows it: one
    operator more, but one pass over the keys fewer. After `split_qkv` it is one operator fewer.

    Raises GraphError: no Transpose follows another.
    """
    crossed = 0
    for exits in qkv_exits(graph):
        transposed = any(exit_.labels != "bnhd" for exit_ in exits)  # the 5-D tensor
        if not transposed or not any(user.op_type == "Transpose" for exit_ in exits for user in exit_.value.consumers()):
            continue
        name = exits[0].linear.name
        inputs = [exits[0].reshape.outputs[0]]
        if graph.opset >= 13:
            inputs.append(graph.constant("split_parts", np.array([1, 1, 1])))
        attributes = {"split": [1, 1, 1]} if graph.opset < 13 else {}
        pieces = graph.add("Split", inputs, f"{name}/Split", outputs=3, axis=2, **attributes).producer().outputs
        for part, piece, exit_ in zip("qkv", pieces, exits, strict=True):
            value = graph.squeeze(piece, 2, f"{name}/{part}/Squeeze")
            perm = ["bnhd".index(label) for label in exit_.labels]
            exit_.value.replace_all_uses_with(graph.transpose(value, perm, f"{name}/{part}/Transpose"))
        crossed += 1
    if not _compose(graph) + crossed:
        raise GraphError("merge_transpose: no Transpose follows another: leave the edit out, or put it before softmax_axis")


def softmax_axis(graph: Graph, recipe: PreprocessSpec) -> None:
    """Compute attention transposed, K·Qᵀ then Vᵀ·P, so that the softmax runs over the last but one axis.

    The source is the profile of the recipe we replace: SoftmaxV2 is slow when it reduces the last axis. The transpositions
    this takes are absorbed by neighbouring Transposes; after `split_qkv` none is left over.

    Raises GraphError: opset below 13, or every attention is transposed already.
    """
    if graph.opset < 13:
        raise GraphError(
            f"softmax_axis: needs opset 13 or newer, this graph has {graph.opset} (before 13 Softmax flattens all axes from "
            "`axis` on, so it can only reduce the last ones): set opset: 13"
        )
    plain = [attention for attention in attentions(graph) if not attention.transposed]
    if not plain:
        raise GraphError("softmax_axis: every softmax runs over the last but one axis already: leave the edit out")
    for attention in plain:
        queries, keys, values = attention.queries, attention.keys, attention.values
        for node in attention.between:
            for i, value in enumerate(node.inputs):
                if is_constant(value) and array(value).size > 1:
                    swapped = np.ascontiguousarray(np.atleast_2d(array(value)).swapaxes(-1, -2))
                    node.replace_input_with(i, graph.constant(f"{value.name}_transposed", swapped))
        for i, value in enumerate((_swapped(graph, keys), _swapped(graph, queries))):
            attention.scores.replace_input_with(i, value)
        last = rank(attention.softmax.inputs[0])
        attention.softmax.attributes["axis"] = ir.AttrInt64("axis", -2 % last)
        probabilities = attention.softmax.outputs[0]
        context = graph.add("MatMul", [_swapped(graph, values), probabilities], f"{attention.context.name}_transposed")
        back = graph.transpose(context, _last_two_swapped(last), f"{attention.context.name}_back")
        attention.context.outputs[0].replace_all_uses_with(back)
    _compose(graph)


def uint8_input(graph: Graph, recipe: PreprocessSpec) -> None:
    """Take the crops as the store holds them, (N, H, W, 3) uint8, and normalise inside the graph.

    The steps are those of `transforms.tensors`, in its order, so that the result is the same to the bit. On a device AIPP does
    this work (`related_input_rank`, `min_chn`, `var_reci_chn` of its configuration).

    Raises GraphError: the input is not float NCHW.
    """
    image = graph.graph.inputs[0]
    if image.dtype != ir.DataType.FLOAT or rank(image) != 4:
        raise GraphError(f"uint8_input: the input is {image.dtype} {shape(image)}, expected float (N, 3, H, W)")
    batch, channels, height, width = shape(image)
    users = list(image.uses())
    value = graph.add("Cast", [graph.transpose(image, [0, 3, 1, 2], "preprocess/Transpose")], "preprocess/Cast", to=1)
    mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (recipe.mean, recipe.std))
    for name, op_type, operand in (("255", "Div", np.float32(255)), ("mean", "Sub", mean), ("std", "Div", std)):
        constant = graph.constant(f"preprocess/{name}", np.asarray(operand))
        value = graph.add(op_type, [value, constant], f"preprocess/{op_type}_{name}")
    for user, index in users:
        user.replace_input_with(index, value)
    image.shape, image.dtype = ir.Shape((batch, height, width, channels)), ir.DataType.UINT8


EDITS = {
    "fold_scale": Edit(fold_scale, "1/√d into the queries' weights"),
    "split_qkv": Edit(split_qkv, "three MatMuls instead of a 5-D tensor"),
    "merge_transpose": Edit(merge_transpose, "the keys transposed once, not twice"),
    "softmax_axis": Edit(softmax_axis, "softmax over the last but one axis"),
    "pad_tokens": Edit(token_edits.pad_tokens, "tokens to a multiple of 16, padded keys masked"),
    "pad_outside_attention": Edit(token_edits.pad_outside_attention, "residual stream, projection, MLP padded, not attention"),
    "pad_tokens_unmasked": Edit(token_edits.pad_tokens_unmasked, "the old recipe: padded keys take part in attention"),
    "class_token_only": Edit(token_edits.class_token_only, "the last block for the class token only"),
    "uint8_input": Edit(uint8_input, "uint8 crops in, normalisation inside the graph"),
}


def _part_of(path: list[ir.Value], linear: Linear) -> slice:
    """The columns of the linear layer's weight that reach an operand: a third of them behind a Split or Gather, else all."""
    width = linear.weight.shape[1]
    for value in path:
        node = value.producer()
        if node.op_type == "Split":
            parts, i = len(node.outputs), node.outputs.index(value)
        elif node.op_type == "Gather":
            parts, i = shape(node.inputs[0])[axis_of(node, 0)], int(array(node.inputs[1]))
        else:
            continue
        return slice(i * width // parts, (i + 1) * width // parts)
    return slice(width)


def _scale_columns(graph: Graph, linear: Linear, columns: slice, factor: np.float32) -> None:
    for node, old in ((linear.node, linear.weight), (linear.adding, linear.bias)):
        if node is None or old is None:
            continue
        new = old.copy()
        new[..., columns] *= factor
        index = next(i for i, value in enumerate(node.inputs) if is_constant(value))
        node.replace_input_with(index, graph.constant(f"{node.inputs[index].name}_scaled", new))


def _last_two_swapped(axes: int) -> list[int]:
    return [*range(axes - 2), axes - 1, axes - 2]


def _swapped(graph: Graph, value: ir.Value) -> ir.Value:
    """The value with its last two axes exchanged; a scale is passed, so that the Transposes around it can be merged."""
    node = value.producer()
    scaled = scale_factor(node)
    if node is not None and scaled and len(value.consumers()) == 1:
        node.replace_input_with(list(node.inputs).index(scaled[1]), _swapped(graph, scaled[1]))
        return value
    return graph.transpose(value, _last_two_swapped(rank(value)), f"{value.name}_swapped")


def _compose(graph: Graph) -> int:
    """Merge every Transpose whose input is a Transpose, and drop those that change nothing; returns how many."""
    merged = 0
    graph.graph.sort()
    for node in graph.nodes("Transpose"):
        perm = perm_of(node)
        before = node.inputs[0].producer()
        while before is not None and before.op_type == "Transpose":
            perm = [perm_of(before)[axis] for axis in perm]
            node.replace_input_with(0, before.inputs[0])
            node.attributes["perm"] = ir.AttrInt64s("perm", perm)
            before = node.inputs[0].producer()
            merged += 1
        if perm == sorted(perm):
            node.outputs[0].replace_all_uses_with(node.inputs[0])
    return merged
