"""The rehearsal of a precision on the CPU, before a device is booked: how large activations get, what fp16 makes of them,
and which nodes to keep in float32. One graph, a few images; activations are counted inside the graph and never collected.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from ..errors import GraphError
from ..graph.graph import Graph, is_static
from ..graph.patterns import LayerNorm, attentions, layer_norms, norm_before
from ..metrics import classification, proportions
from .rounding import MOVES, at_opset, inner_steps, operators, rounded, rounded_throughout, switchable

WHOLE = ""  # the part of an embedding, a head, and of a graph without attention
# The least numbers that are not zero, not rounded to zero, normal, and infinite in fp16, rounded to nearest even.
BOUNDS = (np.nextafter(0, 1, dtype=np.float32), np.nextafter(2**-25, 1, dtype=np.float32), 2**-14 - 2**-25, 65520.0)
RANKED_IMAGES = 2
MOST_PARTS = 8  # beyond those that overflow, so many are tried
# What ATC's parser and fusions make of ONNX's types, where the name changes: Erf is of a GELU, Pow of a LayerNorm.
ASCEND = {"MatMul": "BatchMatMulV2", "Gemm": "MatMulV2", "Softmax": "SoftmaxV2", "Conv": "Conv2D"}
ASCEND |= {"LayerNormalization": "LayerNorm", "Erf": "Gelu", "Pow": "LayerNorm"}


def rehearse(proto: onnx.ModelProto, batches: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """Run a static graph in fp32, and as fp16 and bf16 compute; returns the content of `rehearsal.json`.

    Args:
        batches: the images, as the graph takes them, in batches of its size.
        labels: (N,) of the same images.

    A graph that was not simplified lacks the shapes that the hostile case needs: it goes without that row.
    """
    graph = at_opset(proto)
    places, inner = _places(graph), {node.name for node in inner_steps(graph)}
    counted, exact = _statistics(proto, places, batches)
    rows = [{**row, **places[name], "inner": name in inner, "saturated": 0} for name, row in counted.items()]
    overflowing = [row["node"] for row in rows if row["overflow"] and not row["inner"]]
    if overflowing:
        clamped, _ = _statistics(rounded(proto, "fp16", saturate=True), places, batches)
        rows = [{**row, "saturated": 0 if row["inner"] else clamped[row["node"]]["overflow"]} for row in rows]
    is_simplified = all(is_static(value) for node in graph.nodes() for value in node.outputs)
    few = batches[: -(-RANKED_IMAGES // len(batches[0]))]
    must = _kept(graph, overflowing)
    ranking = _ranking(proto, places, must, few)
    keep = _enough(proto, must, ranking, batches, exact)
    variants = {
        "fp16": lambda: rounded(proto, "fp16"),
        **({"fp16, saturating": lambda: rounded(proto, "fp16", saturate=True)} if overflowing else {}),
        **({"fp16, keep list": lambda: rounded(proto, "fp16", keep)} if keep else {}),
        **({"fp16 throughout": lambda: rounded_throughout(proto)} if is_simplified else {}),
        "bf16": lambda: rounded(proto, "bf16"),
    }
    return {
        "images": len(exact),
        "std": float(exact.std()),
        "nodes": rows,
        "comparison": {name: _compared(exact, logits(make(), batches), labels) for name, make in variants.items()},
        "ranking": ranking,
        "ranked_images": sum(map(len, few)),
        "overflowing": overflowing,
        "keep": keep,
        "keep_op_types": _ascend_types(graph, keep),
    }


def logits(proto: onnx.ModelProto, batches: Sequence[np.ndarray]) -> np.ndarray:
    """The graph's first output for all batches, (N, C)."""
    session = _session(proto)
    name, first = session.get_inputs()[0].name, session.get_outputs()[0].name
    return np.concatenate([session.run([first], {name: batch})[0] for batch in batches])


def _compared(exact: np.ndarray, answers: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Logits against those of fp32, image by image. An answer that is not finite is a wrong one."""
    finite = np.isfinite(answers).all(axis=1)
    ranks = np.where(finite, classification.label_ranks(answers, labels), answers.shape[1])
    same = finite & (answers.argmax(axis=1) == exact.argmax(axis=1))
    difference = np.abs(answers - exact)[finite]
    return {
        "top1_agreement_percent": float(100 * same.mean()),
        "changed": int(np.sum(~same)),
        "not_finite": int(np.sum(~finite)),
        "max_abs_diff": float(difference.max()) if difference.size else None,
        "rms_diff": float(np.sqrt(np.mean(difference**2))) if difference.size else None,
        "top1_percent": classification.percent_within(ranks, 1),
        "paired": proportions.paired(ranks, classification.label_ranks(exact, labels)),
    }


def _session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; warnings are about its own optimiser
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _statistics(
    proto: onnx.ModelProto, names: Collection[str], batches: Sequence[np.ndarray]
) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """Of every node of these names that computes a float: its largest |x| and counts of what fp16 cannot hold; the logits."""
    graph, columns = at_opset(proto), list[ir.Value]()
    flat, bounds = graph.constant("flat", np.array([-1])), [graph.constant("bound", np.array(b, np.float32)) for b in BOUNDS]
    nodes = [node for node in graph.nodes() if node.name in names and node.op_type not in MOVES]
    nodes = [node for node in nodes if node.outputs[0].dtype == ir.DataType.FLOAT]
    for node in nodes:
        size = graph.add("Reshape", [graph.add("Abs", [node.outputs[0]], f"{node.name}/abs"), flat], f"{node.name}/flat")
        columns.append(graph.add("ReduceMax", [size], f"{node.name}/max", keepdims=1))
        for number, bound in enumerate(bounds):
            reached = graph.add("GreaterOrEqual", [size, bound], f"{node.name}/reaches_{number}")
            ones = graph.add("Cast", [reached], f"{node.name}/ones_{number}", to=ir.DataType.FLOAT)
            columns.append(graph.add("ReduceSum", [ones], f"{node.name}/count_{number}", keepdims=1))
    table = graph.add("Concat", columns, "statistics", axis=0)
    table.dtype, table.shape = ir.DataType.FLOAT, ir.Shape([len(columns)])
    graph.graph.outputs.append(table)
    session = _session(ir.to_proto(graph.model))  # onnx's inference of these shapes takes gigabytes
    runs = [session.run(None, {session.get_inputs()[0].name: batch}) for batch in batches]
    seen = np.stack([table for _, table in runs]).reshape(len(runs), len(nodes), -1).astype(float)
    rows = {}
    for node, largest, counts in zip(nodes, seen.max(axis=0)[:, 0], seen.sum(axis=0)[:, 1:].astype(int).tolist(), strict=True):
        lost = {"overflow": counts[3], "to_zero": counts[0] - counts[1], "subnormal": counts[1] - counts[2]}
        rows[node.name or ""] = {"node": node.name, "op_type": node.op_type, "max_abs": float(largest), **lost}
    return rows, np.concatenate([answers for answers, _ in runs])


def _places(graph: Graph) -> dict[str, dict[str, str]]:
    """Block and part of every node, by the last of a block's ends that it depends on; blocks count from 0, as timm's do."""
    norms, ends = layer_norms(graph), list[tuple[ir.Value, str, str]]()
    try:
        layers = attentions(graph)
    except GraphError:  # no transformer
        layers = []
    behind: list[LayerNorm] = []
    for number, layer in enumerate(layers):
        if (first := norm_before(layer, norms)) is not None:
            ends += [(first.input, str(number), "LayerNorm 1"), (first.output, str(number), "attention")]
        after = set(graph.below(layer.context.outputs[0]))
        behind = [norm for norm in norms if norm.readers[0] in after]
        for norm in behind[:1]:
            ends += [(norm.input, str(number), "LayerNorm 2"), (norm.output, str(number), "MLP")]
    ends += [(norm.input, "head", WHOLE) for norm in behind[1:2]]
    places = {node: {"block": "embedding" if ends else "graph", "part": WHOLE} for node in graph.nodes()}
    for value, block, part in ends:
        places |= {node: {"block": block, "part": part} for node in graph.below(value)}
    for value, _, part in ends:
        maker = value.producer() if part != "attention" and part != "MLP" else None
        while maker is not None and maker.op_type in MOVES:
            maker = maker.inputs[0].producer()
        if maker is not None and places[maker]["part"]:
            places[maker] = {**places[maker], "part": "residual"}
    return {node.name or "": place for node, place in places.items()}


def _kept(graph: Graph, overflowing: Collection[str]) -> list[str]:
    """The nodes to keep in float32 where the results of these do not fit: they, and all that read the results.

    A reader in fp16 would get infinity. Of an operator of several nodes all are kept.
    """
    whole = {node: operator for operator in operators(graph) for node in operator}
    kept, todo = set[ir.Node](), [(node, False) for node in graph.nodes() if node.name in overflowing]
    while todo:
        node, is_reader = todo.pop()
        kept.update(whole.get(node, [node]))
        if not is_reader or node.op_type in MOVES:  # what is moved is as large as before
            todo += [(reader, True) for value in node.outputs for reader in value.consumers()]
    return [node.name or "" for node in graph.nodes() if node in kept]


def _ranking(
    proto: onnx.ModelProto, places: dict[str, dict[str, str]], kept: Collection[str], batches: Sequence[np.ndarray]
) -> list[dict[str, Any]]:
    """The parts by the error of the logits when that part alone is in fp16, largest first."""
    parts: dict[str, list[str]] = {}
    for name, place in places.items():
        parts.setdefault(f"{place['block']}/{place['part']}", []).append(name)
    session = _session(switchable(proto, "fp16", {name: part for part, names in parts.items() for name in names}, kept))
    image = session.get_inputs()[0].name

    def answers(rounded_part: str) -> np.ndarray:
        switches = {part: np.array(part == rounded_part) for part in parts}
        return np.concatenate([session.run(None, {image: batch, **switches})[0] for batch in batches])

    exact = answers("none of them")
    errors = {part: float(np.sqrt(np.mean(np.square(answers(part) - exact)))) for part in parts}
    rows = [{**places[parts[part][0]], "rms_diff": error, "nodes": parts[part]} for part, error in errors.items()]
    return sorted(rows, key=lambda row: -row["rms_diff"])


def _enough(
    proto: onnx.ModelProto, kept: list[str], ranking: list[dict[str, Any]], batches: Sequence[np.ndarray], exact: np.ndarray
) -> list[str]:
    """The nodes to keep: those that overflow, and parts from the top of the ranking until every image keeps its top-1.

    Where MOST_PARTS of them do not bring that about, none is added.
    """
    top1 = exact.argmax(axis=1).reshape(len(batches), -1)
    changed = np.arange(len(batches))
    for count in range(MOST_PARTS + 1):
        keep = {*kept, *(name for row in ranking[:count] for name in row["nodes"])}
        answers = logits(rounded(proto, "fp16", keep), [batches[int(i)] for i in changed])
        changed = changed[(answers.argmax(axis=1).reshape(len(changed), -1) != top1[changed]).any(axis=1)]
        if not changed.size:
            return [node.name for node in proto.graph.node if node.name in keep]
    return kept


def _ascend_types(graph: Graph, names: Collection[str]) -> list[str]:
    """Ascend's types of the operators of these nodes."""
    nodes, types = set(graph.nodes()), set[str]()
    for operator in operators(graph):
        nodes -= set(operator)
        types |= {ASCEND[node.op_type] for node in operator if node.name in names and node.op_type in ("Erf", "Pow")}
    return sorted(types | {ASCEND.get(node.op_type, node.op_type) for node in nodes if node.name in names})


def configurations(facts: dict[str, Any]) -> dict[str, str]:
    """The keep list as programs take it, by the name of the file in the lineage: an empty one keeps nothing.

    Sources: ATC's --keep_dtype (a node's name a line) and --modify_mixlist (types of Ascend's operators, all of a type at
    once; mixed precision only); the arguments of `convert_float_to_float16` of onnxconverter-common and
    onnxruntime.transformers, where null stands for their own list; `trtexec --help`. Both converters cast to fp16 between
    kept nodes, too, and the first (1.16) takes the casts out again only where a value has one reader.
    """
    names = facts["keep"]
    kept = {"keep_io_types": True, "op_block_list": None, "node_block_list": names}
    layers = ",".join(f"{name}:fp32" for name in names)
    flags = ["--precisionConstraints=obey", f"--layerPrecisions={layers}", f"--layerOutputTypes={layers}"] if names else []
    return {
        "keep_dtype": "".join(f"{name}\n" for name in names),
        "modify_mixlist": json.dumps({"black-list": {"to-add": facts["keep_op_types"]}}, indent=1) + "\n",
        "onnxruntime_fp16": json.dumps(kept, indent=1) + "\n",
        "tensorrt_precisions": shlex.join(["--fp16", *flags]) + "\n",
    }
