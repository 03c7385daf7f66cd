"""Taps in graphs: found by pattern in every opset and after every edit, checked against the names that the exporter gave."""

from __future__ import annotations

import onnx
import pytest
from graphs import edited, exported, static

from deit_helpers.errors import GraphError
from deit_helpers.graph.graph import Graph
from deit_helpers.graph.taps import tap_values

IN_BLOCK = ("norm1/", "attn/proj/Add", "Add", "norm2/", "mlp/act/Mul_1", "Add_1")


def nodes(graph: onnx.ModelProto) -> list[str]:
    return [value.producer().name for value in tap_values(Graph(graph))]


def assert_named_as_exported(found: list[str], depth: int = 2) -> None:
    """The torch exporter names nodes by module: an oracle that the search itself never looks at."""
    assert found[0] == "/Add"  # of the position embedding
    expected = [f"/blocks/blocks.{block}/{part}" for block in range(depth) for part in IN_BLOCK]
    assert len(found) == len(expected) + 1
    for node, name in zip(found[1:], expected, strict=True):
        assert node.startswith(name) if name.endswith("/") else node == name


@pytest.mark.parametrize("opset", [11, 17])
def test_taps_are_found_in_the_exported_graph_and_in_the_simplified_one(opset: int) -> None:
    assert_named_as_exported(nodes(exported(opset=opset)))
    assert_named_as_exported(nodes(static(opset=opset)))


@pytest.mark.parametrize(
    "edits",
    [
        ("pad_tokens",),
        ("pad_outside_attention",),
        ("class_token_only",),
        ("pad_tokens", "class_token_only"),
        ("fold_scale", "split_qkv", "merge_transpose"),
        ("uint8_input", "pad_tokens_unmasked"),
    ],
)
def test_taps_are_found_after_edits(edits: tuple[str, ...]) -> None:
    assert_named_as_exported(nodes(edited(static(), *edits)))


def test_taps_are_found_in_transposed_attention() -> None:
    assert_named_as_exported(nodes(edited(static(opset=13), "split_qkv", "merge_transpose", "softmax_axis")))


def test_attention_is_tapped_before_layer_scale() -> None:
    small = {"depth": 2, "embed_dim": 48, "num_heads": 3}
    assert nodes(static(model="deit3_small_patch16_224", **small))[2] == "/blocks/blocks.0/attn/proj/Add"


def test_names_play_no_part() -> None:
    nameless = onnx.ModelProto()
    nameless.CopyFrom(static())
    for number, node in enumerate(nameless.graph.node):
        node.name = f"n{number}"
    numbers = [int(name[1:]) for name in nodes(nameless)]
    assert_named_as_exported([static().graph.node[number].name for number in numbers])


def test_a_graph_without_such_blocks_is_one_line() -> None:
    nodes_ = [onnx.helper.make_node("Relu", ["a"], ["b"])]
    values = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "ab"]
    graph = onnx.helper.make_model(onnx.helper.make_graph(nodes_, "g", values[:1], values[1:]))
    with pytest.raises(GraphError, match="no blocks of LayerNorm, attention"):
        tap_values(Graph(graph))
