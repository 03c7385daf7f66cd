"""The model of Ascend's 16×16 blocks: what is out of alignment before and after padding."""

from __future__ import annotations

import onnx
import pytest
from graphs import edited, exported, static

from deit_helpers.graph import alignment
from deit_helpers.graph.graph import Graph


def rows(graph: onnx.ModelProto) -> dict[tuple[str, str, int, int], dict]:
    return {(r["operator"], r["operand"], r["rows"], r["columns"]): r for r in alignment.table(Graph(graph))}


def test_every_matrix_of_a_block_is_listed_with_its_waste() -> None:
    matrices = rows(static(2))
    scores = matrices["Softmax", "input", 197, 197]
    assert (scores["count"], scores["padded_rows"], scores["padded_columns"], scores["aligned"]) == (2, 208, 208, False)
    assert scores["waste_percent"] == pytest.approx(100 * (1 - 197**2 / 208**2))
    keys = matrices["MatMul of two activations", "second factor", 16, 197]
    assert keys["waste_percent"] == pytest.approx(100 * 11 / 208)
    assert matrices["LayerNorm", "input", 197, 48]["count"] == 5
    # qkv and fc1 take the norm's result; the projection takes the context, which has the same shape
    assert matrices["MatMul of a weight", "input", 197, 48]["count"] == 6
    assert matrices["Gemm of a weight", "input", 2, 48]["waste_percent"] == 87.5


@pytest.mark.parametrize("opset", [11, 17])
def test_padded_graphs_have_no_broken_run_and_others_report_each(opset: int) -> None:
    before = static(2, opset=opset)
    # per block: two norms (input, result), qkv, q, k, scores, softmax, v, context, projection (input, result), fc1, fc2 (both)
    assert alignment.broken_runs(Graph(before)) == 2 * 16 + 2
    assert alignment.broken_runs(Graph(edited(before, "pad_tokens"))) == 0
    after = rows(edited(before, "pad_tokens"))
    assert all(row["aligned"] and row["waste_percent"] == 0 for key, row in after.items() if key[2] != 2)  # all but the head


def test_padding_outside_attention_leaves_the_runs_of_attention_broken() -> None:
    before, after = static(2), edited(static(2), "pad_outside_attention")
    assert 0 < alignment.broken_runs(Graph(after)) < alignment.broken_runs(Graph(before))
    matrices = rows(after)
    assert not matrices["Softmax", "input", 197, 197]["aligned"]
    assert matrices["MatMul of a weight", "result", 208, 192]["aligned"]  # fc1 of the MLP


def test_the_block_is_drawn_from_the_norm_to_the_residual() -> None:
    nodes = alignment.block(Graph(static(2)))
    kinds = [node["op_type"] for node in nodes]
    assert kinds.count("MatMul") == 4
    assert kinds.count("Softmax") == 1
    assert (kinds[0], kinds[1], kinds[-1]) == ("LayerNorm", "MatMul", "Add")
    produced = {name for node in nodes for name in node["outputs"]}
    assert all(name in produced for node in nodes[1:-1] for name in node["inputs"])
    assert len([name for name in nodes[-1]["inputs"] if name in produced]) == 1  # the other one went past the attention
    assert {node["aligned"] for node in nodes if node["op_type"] == "Softmax"} == {False}
    assert {node["aligned"] for node in nodes if node["op_type"] == "Reshape"} == {None}
    padded = alignment.block(Graph(edited(static(2), "pad_tokens")))
    assert {node["aligned"] for node in padded} == {True, None}


def test_the_slice_before_a_norm_is_drawn() -> None:
    nodes = alignment.block(Graph(edited(static(2), "pad_outside_attention")))
    assert [node["op_type"] for node in nodes[:2]] == ["Slice", "LayerNorm"]
    assert (nodes[1]["shape"], nodes[1]["aligned"]) == ([2, 197, 48], False)


def test_symbolic_shapes_are_not_counted() -> None:
    graph = Graph(exported())
    assert alignment.broken_runs(graph) is None
    assert alignment.block(graph) == []


def test_a_network_without_attention_has_no_block() -> None:
    assert alignment.block(Graph(static(1, "resnet18", 13, in_chans=3))) == []
