"""Graph edits: exact ones leave the logits as they are, on every opset, batch size and model; nothing to edit is an error."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import RECIPE, crops, edited, infer, static

from deit_helpers.data import transforms
from deit_helpers.errors import GraphError
from deit_helpers.graph import alignment
from deit_helpers.graph.edits import EDITS
from deit_helpers.graph.graph import Graph, shape, with_shapes
from deit_helpers.graph.patterns import attentions, layer_norms, trace
from deit_helpers.run.edits import EXACT_EDITS, INEXACT_EDITS

ALL = ("uint8_input", "fold_scale", "split_qkv", "merge_transpose", "softmax_axis")
CHAINS = [(*ALL, "pad_tokens", "class_token_only"), ("pad_outside_attention", *ALL)]


def kinds(graph: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node)


def changed(before: onnx.ModelProto, after: onnx.ModelProto) -> dict[str, int]:
    difference = kinds(after)
    difference.subtract(kinds(before))
    return {op: count for op, count in difference.items() if count}


def difference(before: onnx.ModelProto, after: onnx.ModelProto) -> float:
    """Largest difference of a logit on random crops, whichever input the edited graph takes."""
    pixels = crops(before)
    own = after.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    tensors = transforms.tensors(pixels, RECIPE)
    return float(np.abs(infer(before, tensors) - infer(after, pixels if own else tensors)).max())


def test_the_edits_a_spec_may_name_are_those_there_are() -> None:
    assert sorted(EDITS) == sorted([*EXACT_EDITS, *INEXACT_EDITS])


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("name", EXACT_EDITS)
def test_an_exact_edit_alone_leaves_the_logits(name: str, batch_size: int, opset: int) -> None:
    if name == "softmax_axis" and opset < 13:
        pytest.skip("refused, see test_softmax_axis_needs_opset_13")
    before = static(batch_size, opset=opset)
    after = edited(before, name)
    assert difference(before, after) <= 1e-5
    onnx.checker.check_model(after, full_check=True)
    assert abs(after.ByteSize() / before.ByteSize() - 1) < 0.25  # of a graph of 0.4 MB: constants weigh
    assert [v.name for v in (after.graph.input[0], after.graph.output[0])] == ["image", "class"]


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("chain", CHAINS, ids=" ".join)
def test_all_exact_edits_together_leave_the_logits(chain: tuple[str, ...], opset: int) -> None:
    before = static(8, opset=opset)
    assert difference(before, edited(before, *chain)) <= 1e-5


def test_all_exact_edits_of_opset_11_together_leave_the_logits() -> None:
    before = static(8)
    assert difference(before, edited(before, *(name for name in CHAINS[0] if name != "softmax_axis"))) <= 1e-5


@pytest.mark.parametrize("name", ["pad_tokens", "fold_scale", "uint8_input"])
def test_these_are_identical_to_the_bit(name: str) -> None:
    assert difference(static(8), edited(static(8), name)) == 0.0


def test_padding_without_a_mask_moves_the_logits() -> None:
    assert difference(static(8), edited(static(8), "pad_tokens_unmasked")) > 1e-2


@pytest.mark.parametrize(
    ("model", "tokens", "padded"),
    [
        ("deit_tiny_patch16_224", 197, 208),
        ("deit_base_patch16_224", 197, 208),
        ("deit_small_distilled_patch16_224", 198, 208),
        ("vit_small_patch32_224", 50, 64),
        ("deit_base_patch16_384", 577, 592),
    ],
)
def test_the_same_patterns_match_other_models(model: str, tokens: int, padded: int) -> None:
    before = static(1, model, 13, depth=2)
    assert [attention.tokens for attention in attentions(Graph(before))] == [tokens] * 2
    for chain in [(name,) for name in EXACT_EDITS] + CHAINS:
        after = edited(before, *chain)
        assert difference(before, after) <= 1e-4, chain
        if "pad_tokens" in chain:
            assert {attention.tokens for attention in attentions(Graph(after))} == {padded}


@pytest.mark.parametrize("name", [name for name in EDITS if name != "uint8_input"])
def test_a_network_without_attention_is_refused_in_words(name: str) -> None:
    with pytest.raises(GraphError, match=r"no attention .* for vision transformers, set edits: \[\] \(operators: .*Conv"):
        edited(static(1, "resnet18", 13, in_chans=3), name)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (("fold_scale", "fold_scale"), "fold_scale: no scores are scaled"),
        (("split_qkv", "split_qkv"), "split_qkv: no attention takes"),
        (("merge_transpose", "merge_transpose"), "merge_transpose: no Transpose follows another"),
        (("softmax_axis", "softmax_axis"), "softmax_axis: every softmax runs over the last but one"),
        (("pad_tokens", "pad_outside_attention"), "pad_outside_attention: the graph has 208 tokens, a multiple of 16"),
        (("pad_tokens", "pad_tokens_unmasked"), "pad_tokens_unmasked: the graph has 208 tokens"),
        (("uint8_input", "uint8_input"), "uint8_input: the input is UINT8"),
        (("pad_outside_attention", "class_token_only"), "class_token_only: nothing passes the last attention"),
        (("class_token_only", "class_token_only"), "class_token_only: no LayerNorm right before"),
    ],
)
def test_an_edit_that_finds_nothing_raises(chain: tuple[str, ...], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        edited(static(1, opset=13), *chain)


def test_softmax_axis_needs_opset_13() -> None:
    with pytest.raises(GraphError, match=r"softmax_axis: needs opset 13 or newer, this graph has 11 .* set opset: 13"):
        edited(static(1), "softmax_axis")


def test_fold_scale_removes_one_multiplication_per_block() -> None:
    assert changed(static(1), edited(static(1), "fold_scale")) == {"Mul": -2}


def test_split_qkv_removes_the_five_dimensional_tensor() -> None:
    after = edited(static(1), "split_qkv")
    assert changed(static(1), after)["MatMul"] == 4
    assert not kinds(after).keys() & {"Split", "Squeeze"}
    ranks = [len(value.type.tensor_type.shape.dim) for value in after.graph.value_info]
    assert max(ranks) == 4


def test_softmax_axis_after_split_qkv_adds_no_transpose() -> None:
    before = edited(static(1, opset=13), "split_qkv")
    after = edited(before, "softmax_axis")
    assert kinds(after)["Transpose"] <= kinds(before)["Transpose"]
    axes = {attribute.i for node in after.graph.node if node.op_type == "Softmax" for attribute in node.attribute}
    assert axes == {2}


@pytest.mark.parametrize("order", [("pad_tokens", "softmax_axis"), ("softmax_axis", "pad_tokens")])
def test_mask_and_transposed_softmax_combine_in_either_order(order: tuple[str, str]) -> None:
    before = static(2, opset=13)
    assert difference(before, edited(before, *order)) <= 1e-5


def test_pad_outside_attention_keeps_attention_at_the_real_tokens() -> None:
    after = edited(static(1), "pad_outside_attention")
    assert {attention.tokens for attention in attentions(Graph(after))} == {197}
    assert changed(static(1), after) == {"Concat": 2, "Slice": 2}  # one of each per block


@pytest.mark.parametrize(("before", "rows"), [((), 1), (("split_qkv",), 1), (("softmax_axis",), 1), (("pad_tokens",), 16)])
def test_class_token_only_computes_one_token_or_one_block_of_the_last_block(before: tuple[str, ...], rows: int) -> None:
    whole = edited(static(2, opset=13), *before)
    proto = edited(whole, "class_token_only")
    assert difference(whole, proto) <= 1e-5
    after = Graph(proto)
    first, last = attentions(after)
    tokens = 208 if "pad_tokens" in before else 197
    assert (first.tokens, last.tokens) == (tokens, tokens)  # keys and values stay whole
    assert shape(last.context.outputs[0])[3 if last.transposed else 2] == rows
    assert [shape(norm.input)[1] for norm in layer_norms(after)] == [tokens] * 3 + [rows] * 2
    if "pad_tokens" in before:
        assert alignment.broken_runs(after) == 0
    if "split_qkv" in before:  # the queries have a layer of their own
        _, linear = trace(last.queries)
        assert linear is not None
        assert shape(linear.node.inputs[0])[1] == 1


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}, "the head reads every token"),
        (
            "beit_base_patch16_224",
            {"use_rel_pos_bias": True, "use_abs_pos_emb": True, "global_pool": "token"},
            "a bias per position",
        ),
    ],
)
def test_class_token_only_refuses_a_model_it_would_change(model: str, arguments: dict[str, object], message: str) -> None:
    graph = static(1, model, 13, depth=1, embed_dim=48, num_heads=3, **arguments)
    with pytest.raises(GraphError, match=f"class_token_only: .*{message}"):
        edited(graph, "class_token_only")


@pytest.mark.parametrize("arguments", [{"global_pool": "avg", "fc_norm": False}, {"class_token": False, "global_pool": "avg"}])
def test_a_mean_over_the_tokens_sees_real_tokens_only(arguments: dict[str, object]) -> None:
    before = static(2, depth=2, embed_dim=48, num_heads=3, **arguments)
    for name in ("pad_tokens", "pad_outside_attention"):
        assert difference(before, edited(before, name)) <= 1e-5


def test_layer_norms_are_found_decomposed_and_whole() -> None:
    for opset in (11, 17):
        assert len(layer_norms(Graph(static(1, opset=opset)))) == 5  # two per block and the last


def test_batch_sizes_that_equal_the_token_count_are_not_mistaken_for_it() -> None:
    before = static(50, "vit_small_patch32_224", 11, depth=1, embed_dim=48, num_heads=3)
    assert difference(before, edited(before, "pad_tokens")) == 0.0


def test_names_of_nodes_and_values_do_not_matter() -> None:
    before = onnx.ModelProto()
    before.CopyFrom(static(2, opset=13))
    renamed = {value: f"v{i}" for i, value in enumerate(v for node in before.graph.node for v in node.output if v != "class")}
    for node in before.graph.node:
        node.name = ""
        node.input[:] = [renamed.get(value, value) for value in node.input]
        node.output[:] = [renamed.get(value, value) for value in node.output]
    for value in before.graph.value_info:
        value.name = renamed.get(value.name, value.name)
    for chain in CHAINS:
        assert difference(before, edited(before, *chain)) <= 1e-5


def test_a_scale_of_queries_keys_and_values_alike_is_not_folded() -> None:
    graph = Graph(edited(static(2), "fold_scale"))
    for attention in attentions(graph):
        _, linear = trace(attention.values)
        assert linear is not None
        tripled = graph.add("Mul", [linear.adding.outputs[0], graph.constant("three", np.float32(3))], f"{linear.name}/tripled")
        for user, index in list(linear.adding.outputs[0].uses()):
            if user is not tripled.producer():
                user.replace_input_with(index, tripled)
    with pytest.raises(GraphError, match="fold_scale: no scores are scaled"):
        edited(graph.proto(), "fold_scale")


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("vit_tiny_patch16_224", {"global_pool": "map", "class_token": False}, "pad_tokens: .* runs over the tokens but is no"),
        ("beit_base_patch16_224", {}, "pad_tokens: .* adds a bias per position"),
    ],
)
def test_what_padding_does_not_know_is_named(model: str, arguments: dict[str, object], message: str) -> None:
    graph = static(1, model, 13, depth=1, embed_dim=48, num_heads=3, **arguments)
    with pytest.raises(GraphError, match=message):
        edited(graph, "pad_tokens")


@pytest.mark.parametrize(
    "name", ["fold_scale", "split_qkv", "merge_transpose", "pad_tokens", "pad_outside_attention", "class_token_only"]
)
def test_half_precision_graphs_can_be_edited(name: str) -> None:
    before = Graph(static(2))
    for value in [*before.graph.initializers.values(), *(v for node in before.nodes() for v in node.outputs)]:
        if value.dtype == ir.DataType.FLOAT:
            value.dtype = ir.DataType.FLOAT16
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float16), name=value.name)
    for value in (*before.graph.inputs, *before.graph.outputs):
        value.dtype = ir.DataType.FLOAT16
    half = before.proto()
    image = transforms.tensors(crops(half), RECIPE).astype(np.float16)
    assert np.abs(infer(half, image) - infer(edited(half, name), image)).max() <= 2e-2


def test_an_index_that_is_computed_is_refused_in_words() -> None:
    graph = Graph(static(1))
    gather = next(node for node in graph.nodes("Gather"))
    gather.replace_input_with(1, graph.add("Neg", [gather.inputs[1]], "computed"))
    with pytest.raises(GraphError, match="computed_output_0 is computed, an edit expected a constant"):
        edited(graph.proto(), "pad_tokens")


def test_contradicting_shapes_are_an_error() -> None:
    graph = onnx.ModelProto()
    graph.CopyFrom(static(1))
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    with pytest.raises(GraphError, match="shapes contradict each other"):
        with_shapes(graph)
