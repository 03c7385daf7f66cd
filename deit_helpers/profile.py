"""One table of operators from any profiler, in Ascend's operator families (`profile.csv`).

On a CPU the families are Ascend's names for the counterpart work; the `backend` column says what was measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import onnx
import pandas as pd

COLUMNS = ["family", "op_type", "name", "calls", "total_us", "share_percent", "backend"]
NAMED_FIRST = ("TransData", "SoftmaxV2", "BatchMatMulV2")  # the three the users must account for
FAMILIES = (*NAMED_FIRST, "MatMulV2", "LayerNorm", "Gelu", "Conv2D", "Elementwise", "Other")


class OperatorProfile(NamedTuple):
    """What a profiler said: a table with COLUMNS over so many batches.

    `profiled_ms` are the whole calls, where it knows; `plain_ms` the same calls without it, where those are not the ones timed
    as the model alone.
    """

    table: pd.DataFrame
    batches: int
    profiled_ms: Sequence[float] = ()
    plain_ms: Sequence[float] = ()


_BY_TYPE = {
    "Softmax": "SoftmaxV2",
    "LayerNormalization": "LayerNorm",
    "SkipLayerNormalization": "LayerNorm",
    "SimplifiedLayerNormalization": "LayerNorm",
    "ReduceMean": "LayerNorm",
    "Gelu": "Gelu",
    "BiasGelu": "Gelu",
    "FastGelu": "Gelu",
    "Erf": "Gelu",
    "Conv": "Conv2D",
    "FusedConv": "Conv2D",
    "Gemm": "MatMulV2",
    "FusedGemm": "MatMulV2",
    **dict.fromkeys(
        ("Transpose", "ReorderInput", "ReorderOutput", "Split", "Concat", "Reshape", "Squeeze", "Unsqueeze", "Slice"),
        "TransData",
    ),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Relu", "Sigmoid", "Tanh", "Clip"), "Elementwise"),
}
_MATMULS = frozenset({"MatMul", "FusedMatMul", "TransposeMatMul"})
_LAYER_NORM_STEPS = frozenset({"ReduceMean", "Sub", "Pow", "Add", "Sqrt", "Div", "Mul"})


def table_from_onnxruntime(events: list[dict[str, Any]], layer_norm: set[str]) -> pd.DataFrame:
    """Operators of ONNX Runtime's profile.

    Args:
        events: Chrome trace events; operators are category `Node`, named `<node>_kernel_time`, `dur` in us.
        layer_norm: names of the nodes that belong to a decomposed LayerNorm.

    Returns:
        A table with COLUMNS, one row per node, most time first; shares are of the sum of all operators.
    """
    calls: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for event in events:
        if event["cat"] != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        arguments = event["args"]
        name = event["name"].removesuffix("_kernel_time")
        # A packed constant weight is no longer among the inputs; one that was not packed counts as parameter bytes.
        two_activations = len(arguments["input_type_shape"]) > 1 and int(arguments["parameter_size"]) == 0
        family = family_of(arguments["op_name"], two_activations, name in layer_norm)
        calls[family, arguments["op_name"], name].append(event["dur"])
    rows = [(*key, len(durations), sum(durations)) for key, durations in calls.items()]
    return with_shares(pd.DataFrame(rows, columns=COLUMNS[:5]), "onnxruntime")


def with_shares(table: pd.DataFrame, backend: str) -> pd.DataFrame:
    """Add share and backend to a table of the first five COLUMNS and sort it, most time first."""
    shares = 100 * table["total_us"] / table["total_us"].sum()
    table = table.assign(share_percent=shares, backend=backend)
    return table.sort_values(["total_us", "name"], ascending=[False, True], ignore_index=True)[COLUMNS]


def family_of(op_type: str, two_activations: bool, in_layer_norm: bool) -> str:
    """The Ascend family of an ONNX operator.

    Args:
        two_activations: for a matrix product, that neither factor is a constant weight.
        in_layer_norm: that the node is a step of a decomposed LayerNorm.
    """
    if in_layer_norm:
        return "LayerNorm"
    if op_type in _MATMULS:
        return "BatchMatMulV2" if two_activations else "MatMulV2"
    return _BY_TYPE.get(op_type, "Other")


def family_shares(table: pd.DataFrame) -> dict[str, float]:
    """Percent of the operators' time by family: all of FAMILIES, the named three first."""
    shares = table.groupby("family")["share_percent"].sum()
    return {family: float(shares.get(family, 0.0)) for family in FAMILIES}


def layer_norm_nodes(graph: onnx.ModelProto) -> set[str]:
    """Names of the nodes that make up decomposed LayerNorms (ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt, Div, Mul, Add).

    Found by walking forward from every ReduceMean through those operators; a matrix product or a Gather ends the walk.
    """
    users = defaultdict(list)
    for node in graph.graph.node:
        for name in node.input:
            users[name].append(node)
    found: set[str] = set()
    means = [node for node in graph.graph.node if node.op_type == "ReduceMean"]
    todo = means + [user for node in means for user in users[node.input[0]] if user.op_type == "Sub"]
    while todo:
        node = todo.pop()
        if node.op_type in _LAYER_NORM_STEPS and node.name not in found:
            found.add(node.name)
            todo += [user for name in node.output for user in users[name]]
    return found


# OpenVINO's CPU plugin names its layers after their kind, not after ONNX.
_BY_OPENVINO_TYPE = {
    "FullyConnected": "MatMulV2",
    "MatMul": "BatchMatMulV2",
    "Softmax": "SoftmaxV2",
    "MVN": "LayerNorm",
    "Gelu": "Gelu",
    "Convolution": "Conv2D",
    "Eltwise": "Elementwise",
    **dict.fromkeys(("Reorder", "Transpose", "Reshape", "Concatenation", "Split", "Convert", "StridedSlice"), "TransData"),
}


def family_of_openvino(node_type: str) -> str:
    """The Ascend family of a layer of OpenVINO's CPU plugin; a fused subgraph belongs to none."""
    return _BY_OPENVINO_TYPE.get(node_type, "Other")


# Operators of torch's profiler, by a part of their name, the first that fits.
_BY_TORCH_NAME = {
    **dict.fromkeys(("fprop", "convolve"), "Conv2D"),  # kernels of cuDNN, some of them an implicit gemm
    "softmax": "SoftmaxV2",
    "bmm": "BatchMatMulV2",
    "layer_norm": "LayerNorm",
    "gelu": "Gelu",
    "conv": "Conv2D",
    **dict.fromkeys(("addmm", "linear", "aten::mm", "gemm", "nvjet", "cutlass"), "MatMulV2"),
    **dict.fromkeys(("copy", "clone", "cat", "transpose", "contiguous", "reorder"), "TransData"),
    **dict.fromkeys(("add", "mul", "div"), "Elementwise"),
}


def family_of_torch(name: str) -> str:
    """The Ascend family of an operator or kernel of torch; fused attention is several at once and belongs to none."""
    if any(part in name for part in ("attention", "flash", "fmha")):
        return "Other"
    return next((family for part, family in _BY_TORCH_NAME.items() if part in name), "Other")
