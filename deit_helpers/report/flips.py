"""The flip gallery: images whose top-1 answer differs between the fp32 reference and a batch size, the worst first."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..data import batches, sources
from ..errors import ArtifactError, one_line
from ..metrics.classification import TOP, among, softmax
from ..run import records
from ..run.expected import valid_classes
from ..run.folder import Run
from .elements import Banner, Gallery, Table

MOST = 24
PICTURE_PX = 160  # two dozen photographs of 224 px would double the page
_RIGHT = ("only the reference is right", "neither is right", "only this run is right")  # the worst first


def flips(run: Run, count: int = MOST) -> Gallery | Table | Banner:
    """The images whose answer changed; of a run across batch sizes, those of the size that agrees least. Reads files only.

    In the order of _RIGHT; within each the largest margin of the reference (its best logit minus its second) first.

    Returns:
        A card per image with both sides' five best answers, their probabilities and the margin; a table where the images
        are not here, a note where no answer changed.

    Raises:
        ArtifactError: 05 was not run, or its files are not current; the notebook to run.
    """
    if run.batch_size is None:
        agreements = records.per_batch(run, "agreement", "agreement")
        compared = {size: row for size, row in agreements.items() if isinstance(row, dict)}
        if not compared:
            return Banner("note", "No answers yet", "to compare with the reference: run notebooks/05_infer.ipynb.")
        run = run.at(min(compared, key=lambda size: compared[size]["top1_agreement_percent"]))
    records.require(run, "logits", "index", "reference")
    names, labels = sources.read_index(run)
    valid = valid_classes(run)
    reference, here = (among(np.load(run.file(name), mmap_mode="r"), valid) for name in ("reference", "logits"))
    sides = {"fp32 reference": reference, f"{run.spec.backend} {run.spec.precision_text}": here}
    changed, right = _changed(reference, here, labels)
    if not len(changed):
        return Banner("note", "No answer changed", f"on {len(names)} images, bs{run.batch_size}.")
    chosen, words = changed[: max(count, 1)].tolist(), sources.class_words(run)
    caption = f"{len(chosen)} of {len(changed)} changed answers of {len(names)} images, bs{run.batch_size}, the worst first"
    texts = [(one_line(names[i].rpartition("/")[2]), words[int(labels[i])], who) for i, who in zip(chosen, right, strict=False)]
    answers = [{side: _answers(values[i], words) for side, values in sides.items()} for i in chosen]
    crops = _crops(run, chosen)
    if crops is None:
        rows = [[*text, *map(", ".join, both.values())] for text, both in zip(texts, answers, strict=True)]
        return Table(f"{caption}; the images are not here", " | ".join(["image | label | right", *sides]), rows)
    return Gallery(crops, [f"{name}: label {label}; {who}" for name, label, who in texts], caption, answers)


def _changed(reference: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The numbers of the images whose answer changed, in the order in which they are shown, and who of the two is right."""
    before, now = reference.argmax(axis=1), logits.argmax(axis=1)
    changed = np.flatnonzero(before != now)
    who = np.select([before == labels, now == labels], [0, 2], 1)[changed]
    best = np.sort(reference[changed], axis=1)[:, -2:]
    order = np.lexsort((best[:, 0] - best[:, 1], who))
    return changed[order], [_RIGHT[i] for i in who[order]]


def _answers(logits: np.ndarray, words: sources.ClassWords) -> list[str]:
    ranking = np.argsort(-logits, kind="stable")[: max(TOP)]
    shares = 100 * softmax(logits[None])[0]
    return [*(f"{words[int(c)]}: {shares[c]:.1f} %" for c in ranking), f"margin {logits[ranking[0]] - logits[ranking[1]]:.3g}"]


def _crops(run: Run, indices: list[int]) -> np.ndarray | None:
    """Small crops (N, H, W, 3) uint8, or None where the run was carried here without its images."""
    try:
        crops = batches.crops_at(run, indices)
    except (ArtifactError, OSError):
        return None
    side = min(PICTURE_PX, crops.shape[1])
    return np.stack([np.asarray(Image.fromarray(pixels).resize((side, side))) for pixels in crops])
