"""Accuracies as proportions: the interval of one, and of the difference of two taken on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def wilson_percent(hits: int, count: int) -> list[float]:
    """Wilson's 95 % interval of a proportion, in percent, [lo, hi]."""
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(method="wilson")
    return [100 * float(interval.low), 100 * float(interval.high)]


def is_guessing(hits: int, count: int, classes: int) -> bool:
    """Whether so many right answers of `count` are no better than guessing among the classes, or next to it.

    An exact one-sided binomial test at 5 %. Next to it is a twentieth of the way from guessing to all right: with labels
    off by one, or given to folders in another order, ImageNet's 1000 classes still come out 1 to 2 % right.
    """
    from scipy.stats import binomtest

    if hits / count >= 0.5 * (1 + 1 / classes):  # nearer to all right: of so few images nothing follows
        return False
    share = 1 / classes + 0.05 * (1 - 1 / classes)
    return float(binomtest(hits, count, share, alternative="greater").pvalue) > 0.05


def paired(ranks: np.ndarray, reference_ranks: np.ndarray) -> dict[str, Any]:
    """Acc@1 of two models on the same images: the difference in points with its 95 % interval, and McNemar's exact test.

    The test asks whether the images that only one of the two gets right split other than evenly.
    """
    from scipy.stats import binomtest

    right, reference_right = ranks == 0, reference_ranks == 0
    gained, lost = int(np.sum(right & ~reference_right)), int(np.sum(~right & reference_right))
    both, neither = int(np.sum(right & reference_right)), int(np.sum(~right & ~reference_right))
    return {
        "only_this_right": gained,
        "only_reference_right": lost,
        "difference_points": 100 * (gained - lost) / len(ranks),
        "difference_ci95_points": difference_interval(both, gained, lost, neither),
        "p_value": float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
    }


def difference_interval(both: int, only_first: int, only_second: int, neither: int) -> list[float]:
    """95 % interval in points of the difference between two proportions of the same images, [lo, hi].

    Method 10 of Newcombe (1998), Statistics in Medicine 17, 2635: Wilson's intervals of both, squared and added, with their
    correlation. It keeps a width where no image tells the two apart.
    """
    count = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    shares = np.array([100 * first / count, 100 * second / count])
    low, high = np.array([wilson_percent(hits, count) for hits in (first, second)]).T
    margins = float(first) * (count - first) * second * (count - second)
    agreement = both * neither - only_first * only_second
    correlation = (max(agreement - count / 2, 0) if agreement > 0 else agreement) / margins**0.5 if margins else 0.0
    below, above = shares - low, high - shares

    def distance(a: float, b: float) -> float:
        return float(a * a - 2 * correlation * a * b + b * b) ** 0.5

    difference = float(shares[0] - shares[1])
    return [difference - distance(below[0], above[1]), difference + distance(above[0], below[1])]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for several tests, in the given order: at most 5 % of such families reject a true hypothesis at 5 %.

    Holm (1979), Scandinavian Journal of Statistics 6, 65-70: the smallest of m times m, the next times m - 1, and so on,
    none smaller than one before it. Nothing is assumed of how the tests depend on each other.
    """
    given = np.asarray(p_values, float)
    order = np.argsort(given)
    adjusted = np.empty(len(given))
    adjusted[order] = np.minimum(np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)), 1)
    return [float(value) for value in adjusted]
