"""FLOPs counted by hand and by torch."""

from __future__ import annotations

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from runs import SIZES
from torch.utils.flop_counter import FlopCounterMode

from deit_helpers.graph.flops import flops_per_batch
from deit_helpers.model import checkpoint
from deit_helpers.run.folder import Run


def test_flops_are_those_counted_by_hand(finished: Run) -> None:
    tokens, width, heads, classes, patch = 197, 48, 3, 3, 16
    embed = 196 * width * 3 * patch * patch
    attention = tokens * width * 3 * width + 2 * heads * tokens * tokens * (width // heads) + tokens * width * width
    mlp = 2 * tokens * width * 4 * width
    by_hand = 2 * (embed + 2 * (attention + mlp) + width * classes)
    for size in SIZES:
        assert flops_per_batch(onnx.load(finished.at(size).file("static_onnx"))) == size * by_hand
        assert finished.at(size).read("perf")["flops_per_image"] == by_hand


def test_flops_are_those_torch_counts(finished: Run) -> None:
    module = checkpoint.load(finished)[0]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(4, 3, 224, 224))
    assert flops_per_batch(onnx.load(finished.file("static_onnx"))) == counter.get_total_flops()


@pytest.mark.parametrize(("flipped", "shape"), [(0, [5, 7]), (1, [7, 5])])
def test_a_transposed_factor_counts_the_same(flipped: int, shape: list[int]) -> None:
    values = {"a": shape, "b": [7, 3], "c": [5, 3]}
    a, b, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in values.items())
    graph = helper.make_graph([helper.make_node("Gemm", ["a", "b"], ["c"], transA=flipped)], "g", [a, b], [c])
    assert flops_per_batch(helper.make_model(graph)) == 2 * 5 * 7 * 3


def test_without_shapes_nothing_is_counted() -> None:
    a, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "ac")
    b = helper.make_tensor_value_info("b", TensorProto.FLOAT, [3, 4])
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [a, b], [c])
    assert flops_per_batch(helper.make_model(graph)) is None
