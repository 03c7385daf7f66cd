"""Intervals and exact tests of proportions, against formulas and published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deit_helpers.metrics import proportions


@pytest.mark.parametrize(("hits", "count"), [(8, 10), (0, 13), (13, 13), (39950, 50000)])
def test_the_interval_is_wilsons(hits: int, count: int) -> None:
    z, p = 1.959963984540054, hits / count
    centre, half = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    expected = [100 * (centre + sign * half) / (1 + z * z / count) for sign in (-1, 1)]
    assert proportions.wilson_percent(hits, count) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"), [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 22 / 1024), (9, 1, 22 / 1024), (0, 6, 2 / 64)]
)
def test_paired_test_is_mcnemars_exact_one(gained: int, lost: int, p_value: float) -> None:
    ranks = np.array([0] * gained + [1] * lost + [0, 0, 3])
    reference_ranks = np.array([2] * gained + [0] * lost + [0, 0, 1])
    comparison = proportions.paired(ranks, reference_ranks)
    assert (comparison["only_this_right"], comparison["only_reference_right"]) == (gained, lost)
    assert comparison["p_value"] == pytest.approx(p_value)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [  # Newcombe 1998, table III, and Bentur 2009 in Fagerland, Lydersen and Laake
        ((36, 12, 2, 0), 5.69, 34.04),
        ((1, 1, 7, 12), -50.7, -2.6),
    ],
)
def test_the_paired_interval_is_newcombes(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    assert proportions.difference_interval(*counts) == pytest.approx([low, high], abs=0.05)


def test_the_paired_interval_holds_the_difference_and_keeps_a_width() -> None:
    ranks = np.array([0] * 270 + [1] * 30)
    same = proportions.paired(ranks, ranks)
    assert same["difference_points"] == 0
    low, high = same["difference_ci95_points"]
    assert low < 0 < high
    assert high < 2
    worse = proportions.paired(np.roll(ranks, 20), ranks)  # 20 lost, 20 gained
    assert worse["difference_ci95_points"][1] > high


@pytest.mark.parametrize(
    ("hits", "count", "classes", "guessing"),
    [(1, 1, 10, False), (2, 2, 2, False), (4, 4, 1, False), (0, 40, 10, True), (5, 10, 2, True), (15, 1000, 1000, True)],
)
def test_of_few_images_all_right_nobody_says_they_are_guessed(hits: int, count: int, classes: int, guessing: bool) -> None:
    assert proportions.is_guessing(hits, count, classes) is guessing


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.06 again
        ([0.9, 0.8], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_p_values_of_several_tests_are_adjusted_by_holm(given: list[float], adjusted: list[float]) -> None:
    assert proportions.holm(given) == pytest.approx(adjusted)


def test_the_adjusted_p_values_are_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    for seed in range(20):
        given = np.random.default_rng(seed).beta(0.3, 2, 1 + seed)
        assert proportions.holm(list(given)) == pytest.approx(multipletests(given, method="holm")[1])
