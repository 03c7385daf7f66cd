"""Logits and labels -> Acc@k, agreement, classes. Arrays in, numbers out."""

from __future__ import annotations

from typing import Any

import numpy as np

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


def per_class(logits: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Images, Acc@1 (percent) and the commonest wrong answer of every class that has images, by class index."""
    counts = confusion(logits, labels)
    rows = []
    for label in np.unique(labels):
        images, hits = int(counts[label].sum()), int(counts[label, label])
        counts[label, label] = 0
        common = int(counts[label].argmax()) if hits < images else None
        rows.append({"class": int(label), "images": images, "top1_percent": 100 * (hits / images), "mistaken_for": common})
    return rows


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts (C, C): row = label, column = top-1 answer."""
    classes = logits.shape[1]
    return np.bincount(labels * classes + logits.argmax(axis=1), minlength=classes**2).reshape(classes, classes)
