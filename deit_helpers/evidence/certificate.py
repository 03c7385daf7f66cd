"""The certificate of an edit: the graph before against the graph after, on real crops, noise and hostile images.

Every graph is run once on all probes; a certificate compares two such observations.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..backends import Pool, open_backend
from ..data import batches, transforms
from ..data.batches import pad
from ..errors import GraphError
from ..graph.edits import EDITS
from ..graph.graph import Graph, axis_of, is_static, shape
from ..metrics import classification
from ..run.edits import INEXACT_EDITS
from ..run.folder import Run

REAL_CROPS, NOISE = 8, 4  # with the hostile images 20 in all
MAX_DIFF = 1e-4  # absolute, times the logits' spread where that is above 1: fp32 rounding; a real error is far larger
MAGNITUDE = 100  # of the probes that no 8-bit image can hold
TIMED_S = 1.0  # a graph runs for at least so long, and on all probes
SEED = 0
IDENTICAL, ROUNDING, UNEQUAL = "identical", "equal within rounding", "not equal"


@dataclass(frozen=True)
class Probe:
    """Some images of one kind: normalised (N, 3, H, W) float32, and as (N, H, W, 3) uint8 where 8 bits can hold them."""

    kind: str
    tensors: np.ndarray
    crops: np.ndarray | None

    def input(self, dtype: np.dtype) -> np.ndarray | None:
        """What a graph with this input type takes, None if it cannot take it."""
        return self.crops if dtype == np.uint8 else self.tensors


@dataclass(frozen=True)
class Observation:
    """What a graph did with the probes, which kinds it cannot take, and what it looks like."""

    logits: dict[str, np.ndarray]
    refused: list[str]
    batch_ms: list[float]
    operators: dict[str, int]
    softmax_tokens: list[int]
    interface: dict[str, Any]


def probes(run: Run) -> list[Probe]:
    """Real crops of the run's images, noise, and images chosen to break an edit."""
    recipe, side = run.spec.recipe, run.spec.recipe.crop_px
    rng = np.random.default_rng(SEED)
    _, crops = batches.sample_crops(run, REAL_CROPS)
    one = np.zeros((2, side, side, 3), np.uint8)
    one[0, side // 2, side // 2] = one[1, 0, -1] = 255
    colours = np.array([[255, 0, 0], [0, 128, 255]], np.uint8)[:, None, None].repeat(side, 1).repeat(side, 2)
    pictures = {
        "real crops": crops,
        "noise": rng.integers(0, 256, (NOISE, side, side, 3), dtype=np.uint8),
        "all 0": np.zeros((1, side, side, 3), np.uint8),
        "all 255": np.full((1, side, side, 3), 255, np.uint8),
        "one colour": colours,
        "one hot pixel": one,
    }
    normalised = [Probe(kind, transforms.tensors(pixels, recipe), pixels) for kind, pixels in pictures.items()]
    loud = np.concatenate([transforms.tensors(crops[:1], recipe), rng.standard_normal((1, 3, side, side)).astype(np.float32)])
    return [*normalised, Probe(f"magnitude ×{MAGNITUDE}", loud * np.float32(MAGNITUDE), None)]


def observe(path: Path, chosen: Sequence[Probe], batch_size: int) -> Observation:
    """Run a graph on the probes, in batches of `batch_size` whose last one is padded, and time it."""
    with open_backend("onnxruntime", path) as model:
        parts = {probe.kind: images for probe in chosen if (images := probe.input(model.dtype)) is not None}
        rows, batch_ms = _run(model, np.concatenate(list(parts.values())), batch_size)
    ends = np.cumsum([len(part) for part in parts.values()])
    logits = dict(zip(parts, np.split(rows, ends[:-1]), strict=True))
    graph = Graph(onnx.load(path))
    refused = [probe.kind for probe in chosen if probe.kind not in parts]
    return Observation(logits, refused, batch_ms, operators(graph), _softmax_tokens(graph), _interface(graph))


def certify(name: str, before: Observation, after: Observation) -> dict[str, Any]:
    """A row of `optimize.json`: how far the logits differ on each kind of image, and what else the edit changed.

    A kind that one of the graphs cannot take (an 8-bit input and tensors beyond 8 bits) is listed in `not_probed`.
    """
    kinds = [kind for kind in before.logits if kind in after.logits]
    rows = [_compared(kind, before.logits[kind], after.logits[kind]) for kind in kinds]
    logits_before, logits_after = (np.concatenate([seen.logits[kind] for kind in kinds]) for seen in (before, after))
    total = _compared("all", logits_before, logits_after)
    moved = spread(logits_before)
    limit = MAX_DIFF * max(1.0, moved)
    added = Counter(after.operators) - Counter(before.operators)
    removed = Counter(before.operators) - Counter(after.operators)
    return {
        "name": name,
        "applied": True,
        "verdict": _verdict(total["max_abs_diff"], total["top1_agreement"], limit),
        "exact": total["max_abs_diff"] == 0.0,
        **{key: total[key] for key in ("max_abs_diff", "top1_agreement", "images")},
        "relative_diff": total["max_abs_diff"] / moved if moved else total["max_abs_diff"],
        "max_abs_diff_allowed": limit,
        "probes": rows,
        "not_probed": sorted({*before.refused, *after.refused}),
        "nodes_before": sum(before.operators.values()),
        "nodes_after": sum(after.operators.values()),
        "operators_added": dict(added),
        "operators_removed": dict(removed),
        "softmax_tokens_before": before.softmax_tokens,
        "softmax_tokens_after": after.softmax_tokens,
        "interface_before": before.interface,
        "interface_after": after.interface,
        "batch_ms_before": before.batch_ms,
        "batch_ms_after": after.batch_ms,
    }


def declared(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row with what the edit claims.

    Raises:
        GraphError: an edit declared exact is not.
    """
    exact = name not in INEXACT_EDITS
    if exact and row["verdict"] == UNEQUAL:
        raise unequal(row)
    purpose = EDITS[name].purpose if name in EDITS else "what the symbolic batch left is folded"
    return {**row, "declared_exact": exact, "purpose": purpose}


def unequal(row: dict[str, Any]) -> GraphError:
    """The error to raise for a graph that had to be equivalent and is not."""
    worst = max(row["probes"], key=lambda probe: probe["max_abs_diff"])
    measured = f"max abs diff {row['max_abs_diff']:.2g} (on {worst['kind']}), top-1 agreement {row['top1_agreement']:.1f} %"
    expected = f"expected at most {row['max_abs_diff_allowed']:.2g} and 100 %"
    return GraphError(
        f"{row['name']}: the graph is not equivalent, {measured}, {expected}: leave the edit out and report the graph"
    )


def operators(graph: Graph) -> dict[str, int]:
    """How many nodes of each operator type, commonest first; constants are data, not work."""
    counts = Counter(node.op_type for node in graph.nodes())
    return dict(sorted(counts.items(), key=lambda row: (-row[1], row[0])))


def _run(model: Pool, inputs: np.ndarray, batch_size: int) -> tuple[np.ndarray, list[float]]:
    """Logits of all inputs, and ms per batch, the first (warm-up) left out unless it is the only one there is time for."""
    started = time.perf_counter()
    batches = [pad(i, inputs[i : i + batch_size], batch_size) for i in range(0, len(inputs), batch_size)]
    predictions = list(model.predictions(batches))
    times_ms = [prediction.latency_ms for prediction in predictions]
    while time.perf_counter() - started < TIMED_S:
        times_ms += [prediction.latency_ms for prediction in model.predictions(batches[:1])]
    logits = np.concatenate([prediction.logits[prediction.batch.valid] for prediction in predictions])
    return logits, times_ms[1:] or times_ms


def _compared(kind: str, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    if before.shape != after.shape:
        return {"kind": kind, "images": len(before), "max_abs_diff": float("inf"), "top1_agreement": 0.0}
    row = classification.compare(before, after)
    agreement = row["top1_agreement_percent"]
    return {"kind": kind, "images": row["images"], "max_abs_diff": row["max_abs_diff"], "top1_agreement": agreement}


def spread(logits: np.ndarray) -> float:
    """How much the images move a logit: the median over classes of its standard deviation.

    Over classes it would be inflated by constant offsets between them, and a real error would look like rounding.
    """
    return float(np.median(logits.std(axis=0)))


def _verdict(max_abs_diff: float, top1_agreement: float, limit: float) -> str:
    if max_abs_diff == 0.0:
        return IDENTICAL
    return ROUNDING if max_abs_diff <= limit and top1_agreement == 100 else UNEQUAL


def _softmax_tokens(graph: Graph) -> list[int]:
    """How many tokens enter the softmaxes; empty where no static shapes are noted, as in the exported graph."""
    inputs = ((node, node.inputs[0]) for node in graph.nodes("Softmax"))
    return sorted({shape(value)[axis_of(node)] for node, value in inputs if is_static(value)})


def _interface(graph: Graph) -> dict[str, Any]:
    """Name, shape (0 where it is symbolic) and dtype of input and output."""
    sides = {"input": graph.graph.inputs[0], "output": graph.graph.outputs[0]}
    return {
        side: {
            "name": value.name,
            "shape": [size if isinstance(size, int) else 0 for size in value.shape],
            "dtype": value.dtype.numpy().name,
        }
        for side, value in sides.items()
    }
