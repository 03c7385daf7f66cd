"""The operator table: families and shares. Events are of ONNX Runtime 1.32."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from deit_helpers.metrics import operators
from deit_helpers.metrics.operators import FAMILIES, LIMIT_PARTS, chip_limit


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
    kernel(f"{BLOCK}/norm1/Mul/LayerNormFusion/", "LayerNormalization", 90, 3, 384),
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
    return operators.table_from_onnxruntime(EVENTS)


def test_only_operators_are_counted_each_once(table: pd.DataFrame) -> None:
    assert list(table.columns) == ["family", "op_type", "name", "calls", "total_us", "share_percent", "backend"]
    assert len(table) == 13
    assert table["total_us"].sum() == 529 + 41 + 90 + 227 + 400 + 144 + 160 + 70 + 150 + 90 + 25 + 19 + 5 + 21
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
        (f"{BLOCK}/norm1/Mul/LayerNormFusion/", "LayerNorm"),
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
    shares = operators.family_shares(operators.table_from_onnxruntime(EVENTS[:3]))
    assert shares["Conv2D"] == pytest.approx(100)
    assert shares["SoftmaxV2"] == 0.0


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
