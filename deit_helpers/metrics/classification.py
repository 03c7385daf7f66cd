"""Logits and labels -> Acc@k, agreement, classes. Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

TOP = (1, 2, 3, 4, 5)
FEW_CLASSES = 20  # up to so many, the confusion matrix is kept and drawn


def label_ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes score above each image's label, (N,) integers: 0 means the label is top-1.

    Among equal logits (N, C) the lower class index ranks first; labels (N,) are integers below C.
    """
    scores = np.take_along_axis(logits, labels[:, None], axis=1)
    ties_before = (logits == scores) & (np.arange(logits.shape[1]) < labels[:, None])
    return (logits > scores).sum(axis=1) + ties_before.sum(axis=1)


def percent_within(ranks: np.ndarray, k: int) -> float:
    """Share of images whose label is among the top k, in percent."""
    return float(100 * np.mean(ranks < k))


def among(logits: np.ndarray, classes: list[int] | None) -> np.ndarray:
    """Logits (N, C) of which only these classes can be answers: all others are set far below. None: as they are.

    So timm scores ImageNet-A and -R, of 200 of the 1000 classes: `output[:, valid_labels]` in its `validate.py`.
    """
    if classes is None:
        return logits
    low = np.full_like(logits, -1e9)
    low[:, classes] = logits[:, classes]
    return low


def compare(expected: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """How far two logit arrays (N, C) lie apart: largest absolute difference, spread of the first, percent of equal top-1."""
    return {
        "images": len(expected),
        "max_abs_diff": float(np.abs(expected - logits).max()),
        "std": float(expected.std()),
        "top1_agreement_percent": float(100 * np.mean(expected.argmax(axis=1) == logits.argmax(axis=1))),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) float64 of logits (N, C)."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def ranking(logits: np.ndarray, count: int) -> np.ndarray:
    """The `count` best classes of every image (N, count), best first; among equal logits (N, C) the lower index is first.

    A few passes of argmax: sorting 1000 logits of each of 50,000 images takes ten times as long.
    """
    left, rows = np.array(logits), np.arange(len(logits))
    places = np.empty((len(logits), min(count, logits.shape[1])), np.int64)
    for place in range(places.shape[1]):
        places[:, place] = left.argmax(axis=1)
        left[rows, places[:, place]] = -np.inf
    return places


def predictions(
    names: list[str], labels: np.ndarray, logits: np.ndarray, reference: np.ndarray, words: Mapping[int, str]
) -> pd.DataFrame:
    """What a model and its reference, both logits (N, C), say of every image: a row each, in order.

    Returns:
        image, label and answer (class indices), label_name, answer_name (their words), correct, top5 (class indices, best
        first), margin (logit of the best class minus that of the second), probability (softmax of the answer), reference
        (its answer), agrees (the two answers), reference_margin.
    """
    import pandas as pd

    best, reference_best = ranking(logits, max(TOP)), ranking(reference, 2)
    answers = best[:, 0]
    table = pd.DataFrame({"image": names, "label": labels, "label_name": [words[label] for label in labels.tolist()]})
    table["answer"], table["answer_name"] = answers, [words[answer] for answer in answers.tolist()]
    table["correct"] = answers == labels
    table["top5"] = best.tolist()
    table["margin"] = np.ptp(np.take_along_axis(logits, best[:, :2], axis=1), axis=1)
    table["probability"] = softmax(logits).max(axis=1)
    table["reference"] = reference_best[:, 0]
    table["agrees"] = table["reference"] == answers
    table["reference_margin"] = np.ptp(np.take_along_axis(reference, reference_best, axis=1), axis=1)
    return table


def per_class(logits: np.ndarray, labels: np.ndarray, reference: np.ndarray) -> list[dict[str, Any]]:
    """Every class that has images, by class index: images, Acc@1 (percent) and the commonest wrong answer; Acc@1 of the
    reference (N, C), and how many images only this model (`gained`) or only the reference (`lost`) has right."""
    counts, right, before = confusion(logits, labels), logits.argmax(axis=1) == labels, reference.argmax(axis=1) == labels
    gained, lost = (np.bincount(labels[only], minlength=len(counts)).tolist() for only in (right & ~before, before & ~right))
    rows = []
    for label in np.unique(labels):
        images, hits = int(counts[label].sum()), int(counts[label, label])
        counts[label, label] = 0
        common = int(counts[label].argmax()) if hits < images else None
        row = {"class": int(label), "images": images, "top1_percent": 100 * (hits / images), "mistaken_for": common}
        row["reference_top1_percent"] = 100 * ((hits - gained[label] + lost[label]) / images)
        rows.append(row | {"gained": gained[label], "lost": lost[label]})
    return rows


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts (C, C): row = label, column = top-1 answer."""
    classes = logits.shape[1]
    return np.bincount(labels * classes + logits.argmax(axis=1), minlength=classes**2).reshape(classes, classes)
