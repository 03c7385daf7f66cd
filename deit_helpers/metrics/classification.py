"""Logits and labels -> Acc@k, agreement, classes. Arrays in, numbers out."""

from __future__ import annotations

from typing import Any

import numpy as np

TOP = (1, 2, 3, 4, 5)
FEW_CLASSES = 20  # up to so many, the confusion matrix is kept and drawn


def label_ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes score above each image's label: 0 means the label is top-1.

    Among equal logits the lower class index ranks first.

    Args:
        logits: (N, C).
        labels: (N,) integers below C.

    Returns:
        (N,) integers.
    """
    scores = np.take_along_axis(logits, labels[:, None], axis=1)
    ties_before = (logits == scores) & (np.arange(logits.shape[1]) < labels[:, None])
    return (logits > scores).sum(axis=1) + ties_before.sum(axis=1)


def percent_within(ranks: np.ndarray, k: int) -> float:
    """Share of images whose label is among the top k, in percent."""
    return float(100 * np.mean(ranks < k))


def agreement_percent(a: np.ndarray, b: np.ndarray) -> float:
    """Share of rows of two logit arrays (N, C) with the same top-1 class, in percent."""
    return float(100 * np.mean(a.argmax(axis=1) == b.argmax(axis=1)))


def compare(expected: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """How far two sets of logits (N, C) lie apart: largest absolute difference, spread of the first, top-1 agreement."""
    return {
        "images": len(expected),
        "max_abs_diff": float(np.abs(expected - logits).max()),
        "std": float(expected.std()),
        "top1_agreement_percent": agreement_percent(expected, logits),
    }


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
