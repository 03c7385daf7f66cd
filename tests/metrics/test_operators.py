"""The operator table: families, shares, and the LayerNorms of a decomposed graph. Events are of ONNX Runtime 1.32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper

from deit_helpers.metrics import operators
from deit_helpers.metrics.operators import FAMILIES, LIMIT_PARTS, chip_limit
from deit_helpers.run.folder import Run


def kernel(name: str, op: str, dur_us: int, inputs: int = 1, parameter_bytes: int = 0, **extra: Any) -> dict[str, Any]:
    """One operator as the profiler writes it, less the fields nobody reads."""
    arguments = {
        "op_name": op,
        "provider": "CPUExecutionProvider",
        "input_type_shape": [{"float": [4, 197, 48]}] * inputs,
        "parameter_size": str(parameter_bytes),
    }
    return {"cat": "Node", "ph": "X", "dur": dur_us, "ts": 1, "name": f"{name}_kernel_time", "args": arguments, **extra}


BLOCK = "/blocks/blocks.0"
EVENTS = [
    {"cat": "Session", "ph": "X", "dur": 9855, "ts": 1, "name": "model_run", "args": {}},
    {"cat": "Session", "ph": "X", "dur": 9743, "ts": 2, "name": "SequentialExecutor::Execute", "args": {}},
    kernel("/patch_embed/proj/Conv_output_0_nchwc", "Conv", 529, 3, 147648),
    kernel("ReorderOutput", "ReorderOutput", 41),
    kernel(f"{BLOCK}/norm1/Sub", "Sub", 30, 2),
    kernel(f"{BLOCK}/norm1/Mul/SimplifiedLayerNormFusion/", "SimplifiedLayerNormalization", 60, 2, 192),
    kernel(f"{BLOCK}/attn/qkv/MatMul", "MatMul", 227),  # its packed weight is no longer an input
    kernel(f"{BLOCK}/attn/MatMul/MatMulScaleFusion/", "FusedMatMul", 400, 2),
    kernel(f"{BLOCK}/attn/Softmax", "Softmax", 144),
    kernel(f"{BLOCK}/attn/MatMul_1", "MatMul", 160, 2),
    kernel(f"{BLOCK}/attn/Transpose_2", "Transpose", 70),
    kernel(f"{BLOCK}/mlp/fc1/MatMul", "MatMul", 150, 2, 36864),  # a weight that was not packed
    kernel("Gelu", "Gelu", 90),
    kernel(f"{BLOCK}/Add_1", "Add", 25, 2),
    kernel("/head/Gemm", "Gemm", 19, 2, 12),
    kernel("/Gather", "Gather", 5, 2, 8),
    kernel("/head/Gemm", "Gemm", 21, 2, 12),
]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return operators.table_from_onnxruntime(EVENTS, {f"{BLOCK}/norm1/Sub"})


def test_only_operators_are_counted_each_once(table: pd.DataFrame) -> None:
    assert list(table.columns) == ["family", "op_type", "name", "calls", "total_us", "share_percent", "backend"]
    assert len(table) == 14
    assert table["total_us"].sum() == 529 + 41 + 30 + 60 + 227 + 400 + 144 + 160 + 70 + 150 + 90 + 25 + 19 + 5 + 21
    gemm = table.set_index("name").loc["/head/Gemm"]
    assert (gemm["calls"], gemm["total_us"]) == (2, 40)
    assert set(table["backend"]) == {"onnxruntime"}
    assert table["total_us"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("name", "family"),
    [
        (f"{BLOCK}/attn/MatMul/MatMulScaleFusion/", "BatchMatMulV2"),
        (f"{BLOCK}/attn/MatMul_1", "BatchMatMulV2"),
        (f"{BLOCK}/attn/qkv/MatMul", "MatMulV2"),
        (f"{BLOCK}/mlp/fc1/MatMul", "MatMulV2"),
        ("/head/Gemm", "MatMulV2"),
        (f"{BLOCK}/attn/Softmax", "SoftmaxV2"),
        (f"{BLOCK}/attn/Transpose_2", "TransData"),
        ("ReorderOutput", "TransData"),
        (f"{BLOCK}/norm1/Sub", "LayerNorm"),
        (f"{BLOCK}/norm1/Mul/SimplifiedLayerNormFusion/", "LayerNorm"),
        ("Gelu", "Gelu"),
        ("/patch_embed/proj/Conv_output_0_nchwc", "Conv2D"),
        (f"{BLOCK}/Add_1", "Elementwise"),
        ("/Gather", "Other"),
    ],
)
def test_every_operator_has_its_family(table: pd.DataFrame, name: str, family: str) -> None:
    assert table.set_index("name").loc[name, "family"] == family


def test_shares_sum_to_100_with_the_named_three_first(table: pd.DataFrame) -> None:
    shares = operators.family_shares(table)
    assert list(shares)[:3] == ["TransData", "SoftmaxV2", "BatchMatMulV2"]
    assert list(shares) == list(operators.FAMILIES)
    assert sum(shares.values()) == pytest.approx(100)
    assert table["share_percent"].sum() == pytest.approx(100)
    total = table["total_us"].sum()
    assert shares["BatchMatMulV2"] == pytest.approx(100 * 560 / total)
    assert shares["TransData"] == pytest.approx(100 * 111 / total)


def test_a_family_nobody_used_has_share_zero() -> None:
    shares = operators.family_shares(operators.table_from_onnxruntime(EVENTS[:3], set()))
    assert shares["Conv2D"] == pytest.approx(100)
    assert shares["SoftmaxV2"] == 0.0


def layer_norm_between_matmuls() -> onnx.ModelProto:
    """x -> MatMul -> decomposed LayerNorm -> MatMul, and a residual Add and Mul that belong to no LayerNorm."""
    steps = [
        ("MatMul", ["x", "w"], "h"),
        ("ReduceMean", ["h"], "mean"),
        ("Sub", ["h", "mean"], "centred"),
        ("Pow", ["centred", "two"], "square"),
        ("ReduceMean", ["square"], "variance"),
        ("Add", ["variance", "eps"], "stable"),
        ("Sqrt", ["stable"], "std"),
        ("Div", ["centred", "std"], "normal"),
        ("Mul", ["normal", "gamma"], "scaled"),
        ("Add", ["scaled", "beta"], "y"),
        ("MatMul", ["y", "w"], "z"),
        ("Mul", ["z", "gamma"], "gated"),
        ("Add", ["gated", "h"], "out"),
    ]
    nodes = [
        helper.make_node(op, inputs, [output], name=f"n_{output}", **({"axes": [-1]} if op == "ReduceMean" else {}))
        for op, inputs, output in steps
    ]
    arrays = {"w": np.ones((4, 4)), "two": np.array(2.0), "eps": np.array(1e-6), "gamma": np.ones(4), "beta": np.ones(4)}
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    x, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in ("x", "out"))
    return helper.make_model(helper.make_graph(nodes, "g", [x], [out], constants))


def test_a_decomposed_layer_norm_is_found_and_its_neighbours_are_not() -> None:
    nodes = operators.layer_norm_nodes(layer_norm_between_matmuls())
    steps = ("mean", "centred", "square", "variance", "stable", "std", "normal", "scaled", "y")
    assert nodes == {f"n_{step}" for step in steps}


def test_the_layer_norms_of_a_vit_are_found_by_their_names(finished: Run) -> None:
    graph = onnx.load(finished.file("static_onnx"))
    nodes = operators.layer_norm_nodes(graph)
    by_name = {node.name for node in graph.graph.node if "/norm" in node.name and node.op_type != "Constant"}
    assert len(nodes) == 5 * 9  # two in each of two blocks and the last one, nine steps each
    assert nodes == by_name


def perf_json(**keys: object) -> dict:
    """A batch of 10 in 100 ms of which 4 ms are FLOPs at the peak, an image; 80 ms of products, 12 other, 8 outside."""
    shares = {"MatMulV2": 70.0, "BatchMatMulV2": 12.0, "Conv2D": 4.956521739130435, "SoftmaxV2": 13.043478260869565}
    families = {name: {"share_percent": shares.get(name, 0.0)} for name in FAMILIES}
    profile = {"families": families, "operators_ms": 92.0, "profiled_ms": 100.0}
    pure = {"images_per_s": 100.0}
    return (
        {"batch_size": 10, "pure": pure, "flops_per_image": 4e9, "peak_flops_per_s": 1e12, "images_per_s": 90.0}
        | profile
        | keys
    )


def test_from_the_peak_to_the_measured_rate_nothing_is_left_over() -> None:
    parts = chip_limit(perf_json())
    assert parts == pytest.approx({"at the peak": 4, "shapes of products": 4, "other operators": 1.2, "host": 0.8})
    assert sum(parts.values()) == pytest.approx(10)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"operators_ms": 184.0, "profiled_ms": 200.0}, {"shapes of products": 4, "host": 0.8}),  # a profiler that doubles all
        ({"operators_ms": 184.0, "profiled_ms": 90.0}, {"shapes of products": 8.696 - 4, "other operators": 1.304}),  # no host
        ({"profiled_ms": None}, {"shapes of products": 4, "other operators and host": 2}),
        ({"families": {}, "operators_ms": None, "profiled_ms": None}, {"not profiled": 6}),
        ({"peak_flops_per_s": 4e11}, {"at the peak": 8, "other operators": 1.2}),  # products faster than the peak
        ({"pure": None}, {"at the peak": 4}),
    ],
)
def test_what_the_profile_cannot_tell_apart_is_one_part_and_the_sum_stays(keys: dict, expected: dict) -> None:
    perf = perf_json(**keys)
    parts = chip_limit(perf)
    assert {name: parts[name] for name in expected} == pytest.approx(expected, abs=1e-3)
    assert sum(parts.values()) == pytest.approx(1000 / (90.0 if perf["pure"] is None else 100.0))
    assert list(parts) == [name for name in LIMIT_PARTS if name in parts]
    assert min(parts.values()) > 0


@pytest.mark.parametrize("missing", ["peak_flops_per_s", "flops_per_image"])
def test_without_a_peak_or_flops_nothing_is_made_up(missing: str) -> None:
    assert chip_limit(perf_json(**{missing: None})) == {}
