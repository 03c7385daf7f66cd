"""Intervals and exact tests of proportions, against formulas and published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import multinomial

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
    assert proportions.paired(ranks, reference_ranks, 4)["difference_points"] == 0  # all are among the first four


@pytest.mark.parametrize(
    ("gained", "lost", "count", "low", "high"),
    [
        (1, 7, 21, -51.7, -2.6),  # Bentur 2009 in Fagerland, Lydersen and Laake (2014), Statistics in Medicine 33, 2850
        (6, 16, 161, -12.40, -0.54),  # Cavo 2012 in Fagerland, Lydersen and Laake (2017), chapter 8
    ],
)
def test_the_paired_interval_is_tangos(gained: int, lost: int, count: int, low: float, high: float) -> None:
    assert proportions.score_interval(gained, lost, count) == pytest.approx([low, high], abs=0.05)


COUNTS = [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 13), (3, 4, 7), (0, 2, 300), (5, 11, 300), (300, 0, 300), (0, 300, 300)]
HUGE = [(0, 0, 50_000), (350, 1000, 50_000), (25_000, 25_000, 50_000), (1, 49_999, 50_000), (0, 50_000, 50_000)]


@pytest.mark.parametrize(("gained", "lost", "count"), COUNTS + HUGE)
def test_interval_and_bounds_hold_the_difference_and_keep_a_width(gained: int, lost: int, count: int) -> None:
    low, high = proportions.score_interval(gained, lost, count)
    least, most = proportions.drop_bounds(gained, lost, count, 0.025)
    assert -100 <= low <= 100 * (gained - lost) / count <= high <= 100
    assert -100 <= least <= 100 * (lost - gained) / count <= most <= 100
    assert low < high
    assert least < most
    mirrored = proportions.score_interval(lost, gained, count)
    assert mirrored == pytest.approx([-high, -low])
    if gained == lost == 0:  # the exact bound of a proportion of which none was seen
        assert most == pytest.approx(100 * (1 - 0.05 ** (1 / count)))


@pytest.mark.parametrize(("gained", "lost", "count"), [(0, 3, 40), (2, 5, 40), (7, 3, 200), (9, 60, 500), (0, 0, 5)])
def test_the_likeliest_shares_at_a_drop_are_those_of_a_search(gained: int, lost: int, count: int) -> None:
    for drop in (0.005, 0.01, 0.04, 0.3):

        def unlikeliness(share: float, drop: float = drop) -> float:
            shares = np.array([share, share + drop, 1 - 2 * share - drop])
            return -float(xlogy([gained, lost, count - gained - lost], shares).sum())

        searched = minimize_scalar(unlikeliness, bounds=(0, (1 - drop) / 2), method="bounded", options={"xatol": 1e-9}).x
        assert proportions.share_gained(gained, lost, count, drop) == pytest.approx(searched, abs=1e-5)


@pytest.mark.parametrize(
    ("gained", "lost", "count", "drop"), [(0, 0, 9, 0.1), (1, 2, 9, 0.2), (2, 1, 12, 0.05), (3, 5, 14, -0.1)]
)
def test_the_exact_p_value_is_the_sum_over_all_tables(gained: int, lost: int, count: int, drop: float) -> None:
    share = proportions.share_gained(gained, lost, count, drop)
    tables = [(g, m) for g in range(count + 1) for m in range(count + 1 - g) if m - g <= lost - gained]
    probabilities = [share, share + drop, 1 - 2 * share - drop]
    expected = sum(multinomial.pmf([g, m, count - g - m], count, probabilities) for g, m in tables)
    assert proportions.exact_p(gained, lost, count, drop) == pytest.approx(expected)


def test_the_normal_and_the_exact_p_value_meet_where_many_answers_differ() -> None:
    for drop in (0.011, 0.0125, 0.013, 0.015):
        normal, exact = (test(2000, 2650, 50_000, drop) for test in (proportions.score_p, proportions.exact_p))
        assert exact == pytest.approx(normal, abs=0.01)


@pytest.mark.parametrize("count", [7, 60, 301])
def test_a_drop_is_below_the_bound_just_when_its_test_rejects_it(count: int) -> None:
    for gained, lost in [(0, 0), (0, 2), (1, 1), (3, 1), (2, 5), (0, 7)]:
        least, most = proportions.drop_bounds(gained, lost, count, 0.025)
        for drop in np.linspace(-0.9, 0.9, 61):
            assert (most <= 100 * drop) == (proportions.exact_p(gained, lost, count, drop) <= 0.05)
            assert (least > 100 * drop) == (proportions.exact_p(lost, gained, count, -drop) < 0.025)


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (240, 300), (300, 300), (39_950, 50_000)])
def test_bounds_against_a_published_figure_are_the_exact_ones_of_one_proportion(hits: int, count: int) -> None:
    from statsmodels.stats.proportion import proportion_confint

    least, most = proportions.published_bounds(hits, count, 79.9, 0.01)
    low, high = proportion_confint(hits, count, 0.1, "beta")[0], proportion_confint(hits, count, 0.02, "beta")[1]
    assert [least, most] == pytest.approx([79.9 - 100 * high, 79.9 - 100 * low])


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
