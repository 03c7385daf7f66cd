"""One table of operators from any profiler, in Ascend's operator families (`profile.csv`).

On a CPU the families are Ascend's names for the counterpart work; the `backend` column says what was measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["family", "op_type", "name", "calls", "total_us", "share_percent", "backend"]
UNKNOWN = "unknown"  # op_type of time that a profiler gives to no operator; its family is `Other`


class Family(NamedTuple):
    """A family and its operators in the words of each source; what no row names is `Other`."""

    name: str
    runtime: str = ""  # operators of ONNX Runtime and layers of OpenVINO's CPU plugin
    ascend: str = ""  # operator types in lower case, without version
    torch: str = ""  # parts of the names of operators and kernels in lower case


_FAMILIES = (  # in the order of tables and charts
    Family(
        "TransData",
        "Transpose Reorder ReorderInput ReorderOutput Split Concat Concatenation Reshape Squeeze Unsqueeze Slice StridedSlice "
        "Convert",
        "transdata transpose confusiontranspose reshape concat split slice stridedslice pad squeeze",
        "copy clone cat transpose contiguous reorder",
    ),
    Family("SoftmaxV2", "Softmax", "softmax", "softmax"),
    Family("BatchMatMulV2", "", "batchmatmul", "bmm"),
    Family("MatMulV2", "Gemm FusedGemm FullyConnected", "matmul", "addmm linear aten::mm gemm nvjet cutlass"),
    Family(
        "LayerNorm",
        "LayerNormalization SkipLayerNormalization SimplifiedLayerNormalization ReduceMean MVN",
        "layernorm addlayernorm",
        "layer_norm",
    ),
    Family("Gelu", "Gelu BiasGelu FastGelu Erf", "gelu fastgelu", "gelu"),
    Family("Conv2D", "Conv FusedConv Convolution", "conv2 conv2d", "fprop conv"),
    Family(
        "Elementwise",
        "Add Sub Mul Div Pow Sqrt Relu Sigmoid Tanh Clip Eltwise",
        "add sub mul muls adds div realdiv pow sqrt cast reciprocal tanh erf",
        "add mul div",
    ),
    Family("Other", torch="attention flash fmha"),  # fused attention is several families at once
)
# Of the families whose parts a name of torch holds, the first of these: kernels of cuDNN are Conv2D, some an implicit gemm.
_TORCH_ORDER = ["Other", "Conv2D", "SoftmaxV2", "BatchMatMulV2", "LayerNorm", "Gelu", "MatMulV2", "TransData", "Elementwise"]
FAMILIES = tuple(family.name for family in _FAMILIES)
NAMED_FIRST = FAMILIES[:3]  # the three the users must account for
LIMIT_PARTS = ("at the peak", "shapes of products", "other operators", "host", "other operators and host", "not profiled")
WITH_FLOPS = ("BatchMatMulV2", "MatMulV2", "Conv2D")  # what `graph/flops.py` counts
_MATMULS = frozenset({"MatMul", "FusedMatMul", "TransposeMatMul"})  # their family depends on what is multiplied


class OperatorProfile(NamedTuple):
    """What a profiler said: a table with COLUMNS over so many batches, ms of whole calls with it and of as many without."""

    table: pd.DataFrame
    batches: int
    profiled_ms: Sequence[float] = ()
    plain_ms: Sequence[float] = ()


def table_from_onnxruntime(events: list[dict[str, Any]]) -> pd.DataFrame:
    """The table with COLUMNS of ONNX Runtime's profile, one row per node.

    Its Chrome trace events of operators are of category `Node`, named `<node>_kernel_time`, their `dur` is in µs.
    """
    rows = []
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            name, arguments = event["name"].removesuffix("_kernel_time"), event["args"]
            kind = arguments["op_name"]
            # A packed constant weight is no longer among the inputs; one that was not packed counts as parameter bytes.
            two_activations = len(arguments["input_type_shape"]) > 1 and int(arguments["parameter_size"]) == 0
            rows.append((family_of(kind, two_activations), kind, name, 1, event["dur"]))
    return operator_table(rows, "onnxruntime")


def operator_table(rows: Iterable[tuple[str, str, str, int, float]] | pd.DataFrame, backend: str) -> pd.DataFrame:
    """The table with COLUMNS, most time first, of rows with its first five: those of one operator are added up."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=COLUMNS[:5]).groupby(COLUMNS[:3], as_index=False, sort=False).sum()
    table = table.assign(share_percent=100 * table["total_us"] / table["total_us"].sum(), backend=backend)
    return table.sort_values(["total_us", "name"], ascending=[False, True], ignore_index=True)[COLUMNS]


def family_of(op_type: str, two_activations: bool) -> str:
    """The Ascend family of an ONNX operator or a layer of OpenVINO; a fused subgraph belongs to none.

    `two_activations` says of a matrix product that neither factor is a constant weight.
    """
    if op_type in _MATMULS:
        return "BatchMatMulV2" if two_activations else "MatMulV2"
    return next((family.name for family in _FAMILIES if op_type in family.runtime.split()), "Other")


def family_of_ascend(op_type: str) -> str:
    """The family of an Ascend operator type, whatever its version: BatchMatMulV3, MatMulV2, ConcatD, AddLayerNorm."""
    plain = re.sub(r"(?:V?D|V\d+)+$", "", op_type[:80]).lower()  # the D of ConcatD, the VD of SplitVD, versions
    return next((family.name for family in _FAMILIES if plain in family.ascend.split()), "Other")


def family_of_torch(name: str) -> str:
    """The Ascend family of an operator or kernel of torch; fused attention is several at once and belongs to none."""
    plain = name.lower()
    ordered = sorted(_FAMILIES, key=lambda family: _TORCH_ORDER.index(family.name))
    return next((family.name for family in ordered if any(part in plain for part in family.torch.split())), "Other")


def family_shares(table: pd.DataFrame) -> dict[str, float]:
    """Percent of the operators' time by family: all of FAMILIES, the named three first."""
    shares = table.groupby("family")["share_percent"].sum()
    return {family: float(shares.get(family, 0.0)) for family in FAMILIES}


def chip_limit(perf: dict[str, Any]) -> dict[str, float]:
    """What the ms of an image go to by `perf.json`, from the chip's peak to the measured rate; they add up to the measured ms.

    The counted FLOPs at the peak; what the products take longer, for want of better shapes; all other operators; outside
    operators. Parts that the profile cannot tell apart are one. Empty without a peak or FLOPs. The profiler slows what it
    measures: its shares are laid on the time without it.
    """
    peak, flops = perf.get("peak_flops_per_s"), perf.get("flops_per_image")
    if not peak or not flops:
        return {}
    measured = 1000 / (perf["pure"] or perf)["images_per_s"]
    at_peak = min(1000 * flops / peak, measured)
    if not perf["families"]:
        return {LIMIT_PARTS[0]: at_peak, LIMIT_PARTS[-1]: measured - at_peak}
    whole = max(perf["operators_ms"], perf["profiled_ms"] or measured * perf["batch_size"])
    operators = measured * perf["operators_ms"] / whole
    products = operators * sum(perf["families"][name]["share_percent"] for name in WITH_FLOPS) / 100
    at_peak = min(at_peak, products)  # a peak below what the products reach is none
    known = [at_peak, products - at_peak, operators - products, measured - operators]
    if perf["profiled_ms"] is None:
        known[2:] = [0.0, 0.0, measured - products]
    return {name: ms for name, ms in zip(LIMIT_PARTS, known, strict=False) if ms}


def unattributed(table: pd.DataFrame) -> dict[str, float]:
    """How many calls, and their µs, of a table with COLUMNS have no operator type."""
    rows = table[table["op_type"] == UNKNOWN]
    return {"calls": int(rows["calls"].sum()), "total_us": float(rows["total_us"].sum())}
