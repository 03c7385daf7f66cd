"""The flip gallery: images whose top-1 answer differs between the fp32 reference and a batch size, the worst first."""

from __future__ import annotations

import numpy as np

from ..data import batches, sources
from ..errors import ArtifactError, one_line
from ..files import read_json
from ..metrics.classification import TOP, among, softmax
from ..run import records
from ..run.expected import valid_classes
from ..run.folder import Run
from .elements import Banner, Gallery, Table

MOST = 24
_MADE_BY = ("preprocess", "reference", "infer")  # the stages whose files are read
_RIGHT = ("only the reference is right", "neither is right", "only this run is right")  # the worst first


def flips(run: Run, count: int = MOST) -> Gallery | Table | Banner:
    """The images whose answer changed; of a run across batch sizes, those of the size that agrees least. Reads files only.

    In the order of _RIGHT; within each the largest margin of the reference (its best logit minus its second) first. A card
    per image has both sides' five best answers, their probabilities and the margin; without the images it is a table, and
    where no answer changed, or there are none yet, a note.
    """
    sizes = [at for at in run.at_each(not run.batch_size) if at.file("logits").exists()]
    made = [at for at in sizes if not any(records.problem(at, stage, strict=False) for stage in _MADE_BY)]
    if not made:
        return Banner("missing", "No answers yet", "to compare with the reference: run notebooks/05_infer.ipynb.")
    run = min(made, key=lambda at: read_json(at.file("agreement")).get("top1_agreement_percent", 100.0))
    (names, labels), valid, words = sources.read_index(run), valid_classes(run), sources.class_words(run)
    reference, here = (among(np.load(run.file(name), mmap_mode="r"), valid) for name in ("reference", "logits"))
    before, now = reference.argmax(axis=1), here.argmax(axis=1)
    changed = np.flatnonzero(before != now)
    if not len(changed):
        return Banner("note", "No answer changed", f"on {len(names)} images, bs{run.batch_size}.")
    right, best = np.select([before == labels, now == labels], [0, 2], 1), np.sort(reference[changed], axis=1)
    chosen = changed[np.lexsort((best[:, -2] - best[:, -1], right[changed]))][: max(count, 1)].tolist()
    caption = f"{len(chosen)} of {len(changed)} changed answers of {len(names)} images, bs{run.batch_size}, the worst first"
    texts = [(one_line(names[i].rpartition("/")[2]), words[int(labels[i])], _RIGHT[right[i]]) for i in chosen]
    sides = {"fp32 reference": reference, f"{run.spec.backend} {run.spec.precision_text}": here}
    answers = [{side: _answers(logits[i], words) for side, logits in sides.items()} for i in chosen]
    try:
        crops = batches.crops_at(run, chosen)
    except (ArtifactError, OSError):  # the run was carried here without them
        rows = [[*text, *map(", ".join, both.values())] for text, both in zip(texts, answers, strict=True)]
        return Table(f"{caption}; the images are not here", " | ".join(["image | label | right", *sides]), rows)
    return Gallery(crops, [f"{name}: label {label}; {who}" for name, label, who in texts], caption, answers)


def _answers(logits: np.ndarray, words: sources.ClassWords) -> list[str]:
    best, shares = np.argsort(-logits, kind="stable")[: max(TOP)], 100 * softmax(logits[None])[0]
    return [*(f"{words[int(c)]}: {shares[c]:.1f}\u00a0%" for c in best), f"margin {logits[best[0]] - logits[best[1]]:.3g}"]
