"""Cards of the images whose answer the port changed, and of those it has wrong: crop, label and what both sides answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..data import batches, sources
from ..errors import ArtifactError, one_line
from ..files import read_json
from ..metrics import classification
from ..metrics.classification import TOP, among, softmax
from ..run import records
from ..run.expected import valid_classes
from ..run.folder import Run
from .elements import Banner, Gallery

if TYPE_CHECKING:
    import pandas as pd

MOST_CHANGED, MOST_WRONG = 24, 12
_MADE_BY = ("preprocess", "reference", "infer")  # the stages whose files are read
_RIGHT = ("only the reference is right", "neither is right", "only this run is right")  # the worst first


def changed(run: Run, count: int = MOST_CHANGED) -> Gallery | Banner:
    """Cards of the images whose top-1 answer differs from the fp32 reference's; see `_cards`."""
    return _cards(run, "changed", count)


def wrong(run: Run, count: int = MOST_WRONG) -> Gallery | Banner:
    """Cards of the images whose top-1 answer is not their label; see `_cards`."""
    return _cards(run, "wrong", count)


def predictions(run: Run) -> pd.DataFrame:
    """What 06 writes to `predictions.csv`, from the logits: see `metrics.classification.predictions`."""
    logits, reference = _logits(run)
    return classification.predictions(*sources.read_index(run), logits, reference, sources.class_words(run))


def _logits(run: Run) -> tuple[np.ndarray, np.ndarray]:
    valid = valid_classes(run)
    logits, reference = (among(np.load(run.file(name), mmap_mode="r"), valid) for name in ("logits", "reference"))
    return logits, reference


def _cards(run: Run, kind: str, count: int) -> Gallery | Banner:
    """The first `count` of the images; of a run across batch sizes, those of the size that agrees least. Reads files only.

    In the order of _RIGHT; within each the largest margin of the reference (its best logit minus its second) first. A card
    has both sides' best answers, their probabilities and the margin, and a crop where the images are here. `df` of the
    gallery has the rows of `predictions` of all of the images, in this order. A note where there are no answers yet.
    """
    sizes = [at for at in run.at_each(not run.batch_size) if at.file("logits").exists()]
    made = [at for at in sizes if not any(records.problem(at, stage, strict=False) for stage in _MADE_BY)]
    if not made:
        return Banner("missing", "No answers yet", "to compare with the reference: run notebooks/05_infer.ipynb.")
    run = min(made, key=lambda at: read_json(at.file("agreement")).get("top1_agreement_percent", 100.0))
    (names, labels), words = sources.read_index(run), sources.class_words(run)
    logits, reference = _logits(run)
    expected = reference.argmax(axis=1) if kind == "changed" else labels
    chosen = np.flatnonzero(logits.argmax(axis=1) != expected)  # the rest is not ranked: of 50,000 it takes seconds
    of_chosen = [names[i] for i in chosen], labels[chosen], logits[chosen], reference[chosen]
    rows = classification.predictions(*of_chosen, words).set_axis(chosen)
    right = np.select([rows["reference"] == rows["label"], rows["correct"]], [0, 2], 1)
    rows = rows.assign(right=[_RIGHT[place] for place in right]).iloc[np.lexsort((-rows["reference_margin"], right))]
    shown, images = rows.iloc[: max(count, 1)], f"{len(names)} images, bs{run.batch_size}"
    if shown.empty:
        return Gallery(None, [], f"No {kind} answer on {images}", df=rows)
    sides = {"fp32 reference": reference, f"{run.spec.backend} {run.spec.precision_text}": logits}
    answers = [{side: _answers(values[i], words) for side, values in sides.items()} for i in shown.index]
    files = (one_line(name.rpartition("/")[2]) for name in shown["image"])
    texts = [f"{file}: label {row.label_name}; {row.right}" for file, row in zip(files, shown.itertuples(), strict=True)]
    caption = f"{len(shown)} of {len(rows)} {kind} answers of {images}, the worst first"
    if len(rows) > len(shown) and (path := run.file("predictions")).exists():
        caption += f"; the other {len(rows) - len(shown)} are in {run.relative(path)}"
    try:
        crops = batches.crops_at(run, shown.index.tolist())
    except (ArtifactError, OSError):  # the run was carried here without them
        return Gallery(None, texts, f"{caption}; the images are not here", answers, rows)
    return Gallery(crops, texts, caption, answers, rows)


def _answers(logits: np.ndarray, words: sources.ClassWords) -> list[str]:
    best, shares = classification.ranking(logits[None], max(TOP))[0], 100 * softmax(logits[None])[0]
    margin = np.ptp(logits[best[:2]])
    return [*(f"{words[int(c)]}: {shares[c]:.1f}\u00a0%" for c in best), f"margin {margin:.3g}"]
