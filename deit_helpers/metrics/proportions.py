"""Accuracies as proportions: the interval of one, and of the difference of two on the same images; several tests at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # whose parts are loaded when they are first used

LEVEL = 0.05  # of errors: intervals of 95 %, bounds of 95 % on one side


def wilson_percent(hits: int, count: int) -> list[float]:
    """Wilson's 95 % interval of a proportion, in percent, [lo, hi]."""
    return [100 * float(bound) for bound in scipy.stats.binomtest(hits, count).proportion_ci(method="wilson")]


def is_guessing(hits: int, count: int, classes: int) -> bool:
    """Whether so many right answers of `count` are no better than guessing among the classes, or next to it.

    An exact one-sided binomial test at 5 %. Next to it is a twentieth of the way from guessing to all right: with labels
    off by one, or given to folders in another order, ImageNet's 1000 classes still come out 1 to 2 % right.
    """
    if hits / count >= 0.5 * (1 + 1 / classes):  # nearer to all right: of so few images nothing follows
        return False
    share = 1 / classes + 0.05 * (1 - 1 / classes)
    return bool(scipy.stats.binomtest(hits, count, share, alternative="greater").pvalue > LEVEL)


def paired(ranks: np.ndarray, reference_ranks: np.ndarray, within: int = 1) -> dict[str, Any]:
    """Acc@`within` of two models on the same images: the difference in points with Tango's 95 % interval, and McNemar's test.

    The exact test asks whether the images that only one of the two gets right split other than evenly.
    """
    right, reference_right = ranks < within, reference_ranks < within
    gained, lost = int(np.sum(right & ~reference_right)), int(np.sum(~right & reference_right))
    return {
        "only_this_right": gained,
        "only_reference_right": lost,
        "difference_points": 100 * (gained - lost) / len(ranks),
        "difference_ci95_points": score_interval(gained, lost, len(ranks)),
        "p_value": float(mcnemar_p(gained, lost)),
    }


def mcnemar_p(gained: npt.ArrayLike, lost: npt.ArrayLike) -> np.ndarray:
    """P-values of McNemar's exact test: images that only one of two models gets right are as often the one's as the other's."""
    return np.minimum(2 * scipy.stats.binom.cdf(np.minimum(gained, lost), np.add(gained, lost), 0.5), 1)


def score_interval(gained: int, lost: int, count: int) -> list[float]:
    """95 % interval in points of (gained - lost) / count, [lo, hi]. It keeps a width where no image tells the two apart."""
    return [-largest_drop(score_p, gained, lost, count, LEVEL / 2), largest_drop(score_p, lost, gained, count, LEVEL / 2)]


def drop_bounds(gained: int, lost: int, count: int, fail_level: float = LEVEL) -> list[float]:
    """Bounds in points of the drop (lost - gained) / count: [at least, with 1 - `fail_level`; at most, with 95 % certainty]."""
    return [-largest_drop(exact_p, lost, gained, count, fail_level), largest_drop(exact_p, gained, lost, count, LEVEL)]


def largest_drop(test: Callable[..., float], gained: int, lost: int, count: int, level: float) -> float:
    """The largest drop in points that a test does not reject at a level."""
    observed = (lost - gained) / count
    if observed == 1:
        return 100.0
    largest = scipy.optimize.brentq(lambda drop: test(gained, lost, count, drop) - level, observed + 1e-12, 1 - 1e-12)
    return 100 * float(largest)


def score_p(gained: int, lost: int, count: int, drop: float) -> float:
    """P-value of "the true drop is `drop` or more", a share: the score test of Tango (1998), Statistics in Medicine 17, 891."""
    variance = count * (2 * share_gained(gained, lost, count, drop) + drop - drop**2)
    return NormalDist().cdf((lost - gained - count * drop) / variance**0.5)


def exact_p(gained: int, lost: int, count: int, drop: float) -> float:
    """As `score_p`, by the exact distribution of lost - gained at the likeliest shares given the drop.

    Where few answers differ the normal one errs in up to 9 % of the runs instead of 5 (docs/calibration.md). With nothing lost
    or gained this is the exact test of one proportion. Lloyd and Moldovan (2008), Statistics in Medicine 27, 3540-3549.
    """
    binom = scipy.stats.binom
    share = share_gained(gained, lost, count, drop)
    reach = 8 * (count * share) ** 0.5 + 30  # beyond it lies nothing that counts
    gains = np.arange(max(int(count * share - reach), 0), min(int(count * share + reach), count) + 1)
    of_the_others = min((share + drop) / (1 - share), 1)
    return float(binom.pmf(gains, count, share) @ binom.cdf(lost - gained + gains, count - gains, of_the_others))


def share_gained(gained: float, lost: float, count: float, drop: float) -> float:
    """The likeliest share of gained images where that of the lost ones is larger by `drop` (Tango 1998, closed form)."""
    linear = (2 * count - lost + gained) * drop - (lost + gained)
    root = max(linear**2 + 8 * count * gained * drop * (1 - drop), 0) ** 0.5
    return min(max((root - linear) / (4 * count), -drop, 0), (1 - drop) / 2)


def published_bounds(hits: int, count: int, expected_percent: float, fail_level: float = LEVEL) -> list[float]:
    """As `drop_bounds`, of the drop below a published figure: the exact bounds of Clopper and Pearson."""
    at_most, at_least = (scipy.stats.binomtest(hits, count).proportion_ci(1 - 2 * p, "exact") for p in (LEVEL, fail_level))
    return [expected_percent - 100 * float(at_least.high), expected_percent - 100 * float(at_most.low)]


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
