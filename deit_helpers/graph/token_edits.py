"""The edits that change how many tokens are computed: padding to the blocks of Ascend's FRACTAL_NZ layout, and leaving out."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from ..errors import GraphError
from ..run.recipes import PreprocessSpec
from .graph import Graph, activations, array, axis_of, is_constant, rank, shape
from .patterns import Attention, LayerNorm, attentions, layer_norms, norm_before, trace

BLOCK = 16  # k0 and n0 of FRACTAL_NZ in fp16
MASKED = -1e4  # exp of it is 0 in fp32 and fp16 beside real scores, which are tens or hundreds; and fp16 can hold it


def pad_tokens(graph: Graph, recipe: PreprocessSpec) -> None:
    """Pad the tokens everywhere and keep the padded keys out of every softmax with an additive mask.

    Raises GraphError: no attention, or the tokens are a multiple of 16 already.
    """
    layers, tokens, padded = _plan(graph, "pad_tokens")
    _resize(graph, _pad_stream(graph, layers, tokens, padded), tokens, padded)
    add_mask(graph, layers, tokens, padded)


def pad_tokens_unmasked(graph: Graph, recipe: PreprocessSpec) -> None:
    """Pad the tokens everywhere and forget the mask, as the old recipe does. Not an identity: kept to measure its damage."""
    layers, tokens, padded = _plan(graph, "pad_tokens_unmasked")
    _resize(graph, _pad_stream(graph, layers, tokens, padded), tokens, padded)


def pad_outside_attention(graph: Graph, recipe: PreprocessSpec) -> None:
    """Pad residual stream, projection and MLP; a Slice returns to the real tokens for attention and the norm before it.

    The other norms work on the padded stream: they treat every token alone, and a Slice there would break the run.

    Raises GraphError: no attention, or the tokens are a multiple of 16 already.
    """
    layers, tokens, padded = _plan(graph, "pad_outside_attention")
    norms = layer_norms(graph)
    before_attention = [_norm("pad_outside_attention", attention, norms) for attention in layers]
    projections = [_projection(attention) for attention in layers]
    stream = _pad_stream(graph, layers, tokens, padded)
    cuts = set()
    for norm in before_attention:
        cut = graph.slice(norm.readers[0].inputs[0], tokens, 1, f"{norm.output.name}_tokens")
        for reader in norm.readers:
            reader.replace_input_with(0, cut)
        cuts.add(cut)
    _resize(graph, stream, tokens, padded, cuts)
    for node, value in projections:
        zeros = _zeros(graph, value, padded - tokens)
        node.replace_input_with(0, graph.add("Concat", [value, zeros], f"{value.name}_padded", axis=1))


def class_token_only(graph: Graph, recipe: PreprocessSpec) -> None:
    """Compute queries, projection and MLP of the last block for the class token only: nobody reads the other tokens.

    Keys and values stay whole. Where the tokens are padded, one block of them is kept, so that nothing falls out of line.

    Raises GraphError: the head reads every token, or the last block is none that this edit knows.
    """
    last = attentions(graph)[-1]
    norm = _norm("class_token_only", last, layer_norms(graph))
    stream, tokens = norm.input, last.tokens
    residual = [(user, index) for user, index in stream.uses() if user not in norm.readers]
    if not residual:  # the Slice of pad_outside_attention lies in between
        raise GraphError("class_token_only: nothing passes the last attention: leave this edit or pad_outside_attention out")
    if any(len(shape(v)) > 1 and min(shape(v)[-2:]) > 1 for node in last.between for v in node.inputs if is_constant(v)):
        raise GraphError(f"class_token_only: {last.name} adds a bias per position, which this edit does not cut: leave it out")
    read = _tokens_read(graph, last, tokens)
    kept = -(-read // BLOCK) * BLOCK if tokens % BLOCK == 0 else read
    if kept >= tokens:
        raise GraphError("class_token_only: the head reads every token: leave the edit out")
    path, linear = trace(last.queries)
    shared = any(value.producer().op_type in ("Split", "Gather") for value in path)  # the layer makes keys and values too
    if linear is not None and not shared:
        cut = graph.slice(norm.output, kept, 1, f"{norm.output.name}_class_token")
        linear.node.replace_input_with(0, cut)
    else:
        cut = graph.slice(last.queries, kept, rank(last.queries) - (1 if last.transposed else 2), f"{last.name}/class_token")
        last.scores.replace_input_with(1 if last.transposed else 0, cut)
    past = graph.slice(stream, kept, 1, f"{stream.name}_class_token")
    for user, index in residual:
        user.replace_input_with(index, past)
    _resize(graph, cut, tokens, kept)


def _tokens_read(graph: Graph, last: Attention, tokens: int) -> int:
    """How many tokens, the first ones, are read of what the last attention makes; all of them unless picked by index."""
    most = 0
    for node in graph.below(last.context.outputs[0]):
        if _picks_tokens(node, tokens):
            return tokens
        if node.op_type == "Gather" and rank(node.inputs[0]) == 3 and axis_of(node, 0) == 1:
            most = max(most, int(np.max(array(node.inputs[1]))) + 1)
    return most or tokens


def add_mask(graph: Graph, layers: list[Attention], tokens: int, padded: int) -> None:
    """Add a constant to the scores: 0 for real keys, MASKED for padded ones, along the axis of the softmax."""
    for attention in layers:
        axes = [1] * rank(attention.softmax.inputs[0])
        axes[axis_of(attention.softmax)] = padded
        scores = attention.softmax.inputs[0]
        row = np.where(np.arange(padded) < tokens, 0, MASKED).astype(scores.dtype.numpy())
        mask = graph.constant("padded_keys", row.reshape(axes))
        attention.softmax.replace_input_with(0, graph.add("Add", [scores, mask], f"{attention.name}/mask_padded_keys"))


def _plan(graph: Graph, name: str) -> tuple[list[Attention], int, int]:
    """The attentions, their number of tokens, and the multiple of BLOCK to pad it to."""
    layers = attentions(graph)
    counts = sorted({attention.tokens for attention in layers})
    if len(counts) != 1:
        raise GraphError(f"{name}: attentions over {counts} tokens, expected one number: this model cannot be padded")
    padded = -(-counts[0] // BLOCK) * BLOCK
    if padded == counts[0]:
        raise GraphError(f"{name}: the graph has {padded} tokens, a multiple of {BLOCK}, perhaps padded already: leave it out")
    edited = {attention.softmax for attention in layers}
    for softmax in graph.nodes("Softmax"):
        if softmax not in edited and shape(softmax.inputs[0])[axis_of(softmax)] == counts[0]:
            raise GraphError(f"{name}: {softmax.name} runs over the tokens but is no attention this edit knows: leave it out")
    for attention in layers:
        if any(counts[0] in shape(v) for node in attention.between for v in node.inputs if is_constant(v)):
            raise GraphError(f"{name}: {attention.name} adds a bias per position, which this edit does not pad: leave it out")
    return layers, counts[0], padded


def _norm(name: str, attention: Attention, norms: list[LayerNorm]) -> LayerNorm:
    norm = norm_before(attention, norms)
    if norm is None:
        raise GraphError(f"{name}: no LayerNorm right before {attention.name}: only blocks that normalise first can be padded")
    return norm


def _projection(attention: Attention) -> tuple[ir.Node, ir.Value]:
    """The MatMul that projects the context of an attention, and the (B, N, C) tensor that enters it.

    Raises GraphError: there is none.
    """
    value = attention.context.outputs[0]
    while len(users := value.consumers()) == 1 and users[0].op_type in ("Transpose", "Reshape"):
        value = users[0].outputs[0]
    node = users[0] if users else None
    if node is None or node.op_type != "MatMul" or rank(value) != 3:
        raise GraphError(f"no projection right after {attention.name}: pad_outside_attention cannot pad it")
    return node, value


def _pad_stream(graph: Graph, layers: list[Attention], tokens: int, padded: int) -> ir.Value:
    """Append zero tokens where the residual stream begins, to the Concat of the class token or in a new one; returns it."""
    stream = _norm("padding", layers[0], layer_norms(graph)).input
    extra = padded - tokens
    node = stream.producer()
    embedding = None  # of the positions, added to the tokens
    if node is not None and node.op_type == "Add" and len(activations(node)) == 1:
        embedding = next(value for value in node.inputs if is_constant(value))
        node = activations(node)[0].producer()
    joins = node is not None and node.op_type == "Concat" and axis_of(node) == 1
    if not joins or (embedding is not None and (rank(embedding) != 3 or shape(embedding)[1] != tokens)):
        node, embedding = None, None
    value = stream if node is None else node.outputs[0]
    users = list(value.uses())
    parts = [stream] if node is None else list(node.inputs)
    joined = graph.add("Concat", [*parts, _zeros(graph, value, extra)], f"{value.name}_padded", axis=1)
    for user, index in users:
        user.replace_input_with(index, joined)
    if embedding is not None:  # (1, N, C)
        rows = np.pad(array(embedding), ((0, 0), (0, extra), (0, 0)))
        adding = stream.producer()
        adding.replace_input_with(list(adding.inputs).index(embedding), graph.constant(f"{embedding.name}_padded", rows))
    return joined


def _resize(graph: Graph, stream: ir.Value, tokens: int, now: int, cuts: Collection[ir.Value] = ()) -> None:
    """Let the Reshapes behind `stream`, up to `cuts`, deal with so many tokens, and what picks tokens see the real ones."""
    graph.graph.sort()
    for node in graph.below(stream, cuts=cuts):
        if node.op_type == "Reshape":
            to = array(node.inputs[1])
            if len(to) >= 3 and to[1] == tokens:
                resized = graph.constant("resized_shape", np.concatenate([to[:1], [now], to[2:]]))
                node.replace_input_with(1, resized)
        elif _picks_tokens(node, tokens):
            cut = graph.slice(node.inputs[0], tokens, 1, f"{node.name}_tokens")
            node.replace_input_with(0, cut)


def _picks_tokens(node: ir.Node, tokens: int) -> bool:
    """Whether a node must not see padded tokens: a mean over them, a Slice that may reach the end, an index from the end."""
    value = node.inputs[0]
    if value is None or value.shape is None or len(value.shape) != 3 or value.shape[1] != tokens:
        return False
    if node.op_type == "Gather":
        return axis_of(node, 0) == 1 and int(np.min(array(node.inputs[1]))) < 0
    if node.op_type.startswith("Reduce"):
        by_input = array(node.inputs[1]).tolist() if len(node.inputs) > 1 else []
        axes = node.attributes.get_ints("axes") or by_input
        return not axes or any(axis % 3 == 1 for axis in axes)
    return node.op_type == "Slice"


def _zeros(graph: Graph, like: ir.Value, count: int) -> ir.Value:
    """Zeros (B, count, C) for a tensor (B, N, C), one constant for the whole graph."""
    batch, _, width = shape(like)
    name = f"padding_{batch}x{count}x{width}"
    if name in graph.graph.initializers:
        return graph.graph.initializers[name]
    return graph.constant(name, np.zeros((batch, count, width), like.dtype.numpy()))
