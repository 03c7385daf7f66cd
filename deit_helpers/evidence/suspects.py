"""Known mistakes: which of them explains the answers that 05 brought back?

The exported graph is run with each mistake on a few images of the run; the one whose logits are the device's is found out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..backends import open_backend
from ..data import sources
from ..errors import DeitError
from ..graph.edits import EDITS
from ..metrics.proportions import is_guessing
from ..run import records
from ..run.folder import Run
from ..run.recipes import BGR, CHANGES, RECIPES
from .inputs import Input, tensor_batches
from .rungs import simplified
from .taps import TOLERANCES

IMAGES, BATCH_SIZE = 32, 4
UNMASKED = "pad_tokens_unmasked"
MUCH_NEARER = 3.0  # a mistake explains what it brings within rounding, and nearer than it was by more than this


def find(run: Run) -> dict[str, Any]:
    """Measure how far the logits of every batch size that was inferred lie from those of each mistake.

    Returns:
        The content of `suspects.json`: `mistakes`, rows of `mistake` and `distance` by batch size, in spreads of a logit (or
        `reason` why it was not tried), the first `none`; `causes` by batch size; `labels`, the reference's Acc@1 with labels
        moved; `images`; `tolerance`. Or `reason` alone: 05 has not been run.

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
    indices = np.arange(count) * len(labels) // count
    reference = np.load(run.file("reference"), mmap_mode="r")
    answers = {str(at.size): np.load(at.file("logits"), mmap_mode="r")[indices] for at in sizes}
    spread = float(reference[indices].std(axis=0).mean()) or 1.0  # over images: offsets between classes would hide errors

    def row(mistake: str, make: Callable[[], np.ndarray]) -> dict[str, Any]:
        try:
            logits = make()
        except DeitError as err:  # such as images that were left at home
            return {"mistake": mistake, "distance": {}, "reason": str(err)}
        distance = {size: float(np.sqrt(np.mean((device - logits) ** 2))) / spread for size, device in answers.items()}
        return {"mistake": mistake, "distance": distance, "reason": None}

    moved = {"none": 0, "one_late": -1, "one_early": 1}
    rows = [row(name, partial(np.take, reference, indices + by, axis=0, mode="wrap")) for name, by in moved.items()]
    rows += [row(name, partial(_logits, run, run.file("onnx"), given, indices)) for name, given in _inputs(run)]
    rows.append(row(UNMASKED, partial(_unmasked, run, indices)))
    # ATC keeps fp32, but the matrix unit of most chips has fp16 alone
    tolerance = TOLERANCES["fp16" if run.spec.backend_row.needs_om and run.spec.precision == "fp32" else run.spec.precision]
    return {
        "images": count,
        "tolerance": tolerance,
        "mistakes": rows,
        "causes": {size: _cause(size, rows, tolerance) for size in answers},
        "labels": moved_labels(np.asarray(reference.argmax(axis=1)), labels, reference.shape[1]),
    }


def moved_labels(answers: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, Any]:
    """Acc@1 of answers (N,) with the labels as they are and moved by one, and the move that alone is no guessing, or None."""
    hits = {by: int(np.sum(answers == labels + by)) for by in (0, -1, 1)}
    right = [by for by, count in hits.items() if not is_guessing(count, len(labels), classes)]
    percent = {str(by): 100 * count / len(labels) for by, count in hits.items()}
    return {"top1_percent": percent, "off_by": right[0] if len(right) == 1 and right[0] else None}


def _inputs(run: Run) -> Iterator[tuple[str, Input]]:
    """Every mistake in preparing images, once: a recipe may be the run's own by another name."""
    right = Input(run.spec.recipe)
    tried = [_unnamed(right)]
    for name in (BGR, *CHANGES, *RECIPES):
        if (given := _unnamed(right.changed(name))) not in tried:
            tried.append(given)
            yield name, given


def _unnamed(given: Input) -> Input:
    return given._replace(recipe=given.recipe.model_copy(update={"name": ""}))


def _logits(run: Run, graph: Path, given: Input, indices: np.ndarray) -> np.ndarray:
    with open_backend("onnxruntime", graph) as model:
        predictions = list(model.predictions(tensor_batches(run, given, BATCH_SIZE, indices.tolist())))
    return np.concatenate([prediction.logits[prediction.batch.valid] for prediction in predictions])


def _unmasked(run: Run, indices: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="deit-report-") as folder:
        graph, edited = simplified(run.file("onnx"), BATCH_SIZE), Path(folder) / "edited.onnx"
        EDITS[UNMASKED].apply(graph, run.spec.recipe)
        onnx.save(graph.proto(), edited)
        return _logits(run, edited, Input(run.spec.recipe), indices)


def _cause(size: str, rows: list[dict[str, Any]], tolerance: float) -> dict[str, Any]:
    """What explains the answers: `mistake` none or the one they are within rounding of, None if none; and the nearest one."""
    tried = {row["mistake"]: row["distance"][size] for row in rows if row["distance"]}
    without = tried.pop("none")
    nearest = min(tried, key=lambda name: tried[name])
    explains = tried[nearest] <= tolerance and tried[nearest] * MUCH_NEARER < without
    mistake = "none" if without <= tolerance else nearest if explains else None
    return {"mistake": mistake, "distance": without, "nearest": nearest, "distance_of_nearest": tried[nearest]}
