"""The planner's numbers, against the formulas by hand and against what runs of that size decide."""

from __future__ import annotations

import calibration
import pytest
from scipy.stats import binom

from deit_helpers.metrics import planner, proportions


@pytest.mark.parametrize(
    ("margin", "discordance", "drop", "images"),
    [
        (1.0, 0.0, 0.0, 299),  # 0.99^299 < 5 %
        (0.1, 0.0, 0.0, 2_995),
        (1.0, 0.02, 0.0, 1_497),  # √0.02236 at the margin: (1.645 · 0.14953 + 0.842 · 0.14142)² / 0.01² + 100
        (1.0, 0.02, 1.0, None),  # on the margin
        (0.1, 0.02, 0.0, None),  # more than the validation set has
        (0.0, 0.0, 0.0, None),
        (100.0, 0.5, 0.0, None),  # every run passes
    ],
)
def test_images_against_the_reference(margin: float, discordance: float, drop: float, images: int | None) -> None:
    assert planner.paired_images(margin, discordance, drop) == images


@pytest.mark.parametrize(
    ("margin", "expected", "drop", "images"),
    [
        (1.0, 79.9, 0.0, 10_269),  # (1.645 · 0.40788 + 0.842 · 0.40075)² / 0.01² + 100
        (1.0, 79.9, -1.7, 10_269),  # a gain by chance is not counted on
        (0.1, 79.9, 0.0, 50_000),
        (1.0, 79.9, 1.0, 50_000),
    ],
)
def test_images_against_a_published_figure(margin: float, expected: float, drop: float, images: int) -> None:
    assert planner.published_images(margin, expected, 50_000, drop) == images


@pytest.mark.parametrize(("margin", "changed", "drop"), calibration.PLANNED)
def test_so_many_images_decide_in_four_runs_of_five(margin: float, changed: float, drop: float) -> None:
    rates = calibration.simulate(calibration.planned(margin, changed, drop), draws=500)
    assert (rates.passed if drop < margin else rates.failed) >= 75  # of 80, 500 runs tell 4


def test_one_image_tells_nothing_from_a_published_figure() -> None:
    assert planner.loss_told(1, 79.9) == 100


@pytest.mark.parametrize(("margin", "expected"), [(1.0, 79.9), (2.0, 95.0), (5.0, 60.0)])
def test_so_many_images_pass_a_published_figure_with_80_percent(margin: float, expected: float) -> None:
    images = planner.published_images(margin, expected, 10**6)
    passing = [h for h in range(images + 1) if binom.sf(h - 1, images, (expected - margin) / 100) <= proportions.LEVEL]
    assert binom.sf(passing[0] - 1, images, expected / 100) == pytest.approx(planner.POWER, abs=0.015)
    assert planner.loss_told(images, expected) == margin
    assert planner.loss_told(images - 1, expected) == pytest.approx(margin + 0.1)
