"""Known mistakes: which of them explains the answers that 05 brought back?

The exported graph is run with each mistake on a few images of the run; the one whose logits are the device's is found out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..backends import open_backend
from ..data import sources
from ..errors import DeitError, GraphError
from ..graph import simplify
from ..graph.edits import EDITS
from ..graph.graph import Graph, fix_batch, with_shapes
from ..metrics.proportions import is_guessing
from ..run import records
from ..run.folder import Run
from ..run.recipes import BGR, CHANGES, RECIPES
from .inputs import Input, tensor_batches
from .taps import TOLERANCES

IMAGES, BATCH_SIZE = 32, 4
UNMASKED = "pad_tokens_unmasked"
MUCH_NEARER = 3.0  # a mistake explains what it brings within rounding and by more than this nearer


def find(run: Run) -> dict[str, Any]:
    """Measure how far the logits of every batch size that was inferred lie from those of each mistake.

    Returns:
        The content of `suspects.json`: `mistakes`, rows of `mistake` and `distance` by batch size (or `reason` why it was not
        tried), the first `none`; `causes` by batch size; `labels`, the reference's Acc@1 with labels moved; `images`. Or
        `reason` alone: 05 has not been run.

    Raises:
        ArtifactError: the exported graph or the reference is missing or stale.
    """
    problems = [(at, records.problem(at, "infer", strict=False)) for at in run.at_each()]
    sizes = [at for at, why in problems if why is None]
    if not sizes:
        return {"reason": f"05 has to run first: bs{problems[0][0].size}/logits.npy {problems[0][1]}"}
    records.require(sizes[0], "onnx", "reference")
    _, labels = sources.read_index(run)
    count = min(IMAGES, len(labels))
    indices = [i * len(labels) // count for i in range(count)]
    reference = np.load(run.file("reference"), mmap_mode="r")
    answers = {at.size: np.load(at.file("logits"), mmap_mode="r")[indices] for at in sizes}
    moved = float(reference[indices].std(axis=0).mean()) or 1.0  # by the images: offsets between classes would hide errors
    rows = []
    for mistake, logits in _mistakes(run, indices, reference):
        distance = {} if isinstance(logits, str) else {str(n): _rms(device - logits) / moved for n, device in answers.items()}
        rows.append({"mistake": mistake, "distance": distance, "reason": logits if isinstance(logits, str) else None})
    precision = "fp16" if run.spec.backend_row.needs_om and run.spec.precision == "fp32" else run.spec.precision
    tolerance = TOLERANCES[precision]
    return {
        "images": count,
        "tolerance": tolerance,
        "mistakes": rows,
        "causes": {str(n): _cause(str(n), rows, tolerance) for n in answers},
        "labels": _moved_labels(np.asarray(reference.argmax(axis=1)), labels, reference.shape[1]),
    }


def _mistakes(run: Run, indices: list[int], reference: np.ndarray) -> Iterator[tuple[str, np.ndarray | str]]:
    """Every mistake with its logits (N, C), or the reason why it was not tried; the first is none."""
    yield "none", reference[indices]
    for mistake, by in (("one_late", -1), ("one_early", 1)):
        yield mistake, reference[[(i + by) % len(reference) for i in indices]]
    right = Input(run.spec.recipe)
    tried = [right._replace(recipe=right.recipe.model_copy(update={"name": ""}))]
    for name in (BGR, *CHANGES, *RECIPES):
        given = right.changed(name)
        given = given._replace(recipe=given.recipe.model_copy(update={"name": ""}))
        if given not in tried:
            tried.append(given)
            yield name, _logits(run, run.file("onnx"), given, indices)
    with tempfile.TemporaryDirectory(prefix="deit-report-") as folder:
        try:
            yield UNMASKED, _logits(run, _unmasked(run, Path(folder)), right, indices)
        except GraphError as err:
            yield UNMASKED, str(err)


def _logits(run: Run, graph: Path, given: Input, indices: list[int]) -> np.ndarray | str:
    try:
        with open_backend("onnxruntime", graph) as model:
            predictions = list(model.predictions(tensor_batches(run, given, BATCH_SIZE, indices)))
    except DeitError as err:  # such as images that were left at home
        return str(err)
    return np.concatenate([prediction.logits[prediction.batch.valid] for prediction in predictions])


def _unmasked(run: Run, folder: Path) -> Path:
    fixed, edited = folder / "fixed.onnx", folder / "edited.onnx"
    onnx.save(fix_batch(onnx.load(run.file("onnx")), BATCH_SIZE), fixed)
    if why := simplify.simplify(fixed, edited):
        raise GraphError(f"simplify: {why}")
    graph = Graph(with_shapes(onnx.load(edited)))
    EDITS[UNMASKED].apply(graph, run.spec.recipe)
    onnx.save(graph.proto(), edited)
    return edited


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _cause(size: str, rows: list[dict[str, Any]], tolerance: float) -> dict[str, Any]:
    """What explains the answers: `mistake` none or the one they are within rounding of, None if none; and the nearest one."""
    tried = {row["mistake"]: row["distance"][size] for row in rows if row["distance"]}
    without = tried.pop("none")
    nearest = min(tried, key=lambda name: tried[name])
    explains = tried[nearest] <= tolerance and tried[nearest] * MUCH_NEARER < without
    mistake = "none" if without <= tolerance else nearest if explains else None
    return {"mistake": mistake, "distance": without, "nearest": nearest, "distance_of_nearest": tried[nearest]}


def _moved_labels(answers: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, Any]:
    """The reference's Acc@1 with the labels as they are and moved by one, and which of these is not guessing alone."""
    hits = {by: int(np.sum(answers == labels + by)) for by in (0, -1, 1)}
    right = [by for by, count in hits.items() if not is_guessing(count, len(labels), classes)]
    percent = {str(by): 100 * count / len(labels) for by, count in hits.items()}
    return {"top1_percent": percent, "off_by": right[0] if len(right) == 1 and right[0] else None}
