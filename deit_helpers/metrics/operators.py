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

    `profiled_ms` are the whole calls and `plain_ms` as many without it, where it knows.
    """

    table: pd.DataFrame
    batches: int
    profiled_ms: Sequence[float] = ()
    plain_ms: Sequence[float] = ()


_FAMILIES = {  # of ONNX Runtime's operators, and of the layers of OpenVINO's CPU plugin
    "SoftmaxV2": "Softmax",
    "LayerNorm": "LayerNormalization SkipLayerNormalization SimplifiedLayerNormalization ReduceMean MVN",
    "Gelu": "Gelu BiasGelu FastGelu Erf",
    "Conv2D": "Conv FusedConv Convolution",
    "MatMulV2": "Gemm FusedGemm FullyConnected",
    "TransData": "Transpose Reorder ReorderInput ReorderOutput Split Concat Concatenation Reshape Squeeze Unsqueeze Slice "
    "StridedSlice Convert",
    "Elementwise": "Add Sub Mul Div Pow Sqrt Relu Sigmoid Tanh Clip Eltwise",
}
_MATMULS = frozenset({"MatMul", "FusedMatMul", "TransposeMatMul"})
# Operators and kernels of torch's profiler, by a part of their name, the first that fits.
_BY_TORCH_NAME = {
    "Other": "attention flash fmha",  # fused attention is several at once
    "Conv2D": "fprop conv",  # before the rest: kernels of cuDNN, some of them an implicit gemm
    "SoftmaxV2": "softmax",
    "BatchMatMulV2": "bmm",
    "LayerNorm": "layer_norm",
    "Gelu": "gelu",
    "MatMulV2": "addmm linear aten::mm gemm nvjet cutlass",
    "TransData": "copy clone cat transpose contiguous reorder",
    "Elementwise": "add mul div",
}
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
    """The Ascend family of an ONNX operator or a layer of OpenVINO; a fused subgraph belongs to none.

    Args:
        two_activations: for a matrix product, that neither factor is a constant weight.
        in_layer_norm: that the node is a step of a decomposed LayerNorm.
    """
    if in_layer_norm:
        return "LayerNorm"
    if op_type in _MATMULS:
        return "BatchMatMulV2" if two_activations else "MatMulV2"
    return listed(op_type, _FAMILIES)


def listed(name: str, families: dict[str, str]) -> str:
    """The family among whose words `name` is, or `Other`."""
    return next((family for family, words in families.items() if name in words.split()), "Other")


def family_of_torch(name: str) -> str:
    """The Ascend family of an operator or kernel of torch; fused attention is several at once and belongs to none."""
    plain = name.lower()
    return next((family for family, parts in _BY_TORCH_NAME.items() if any(p in plain for p in parts.split())), "Other")


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
