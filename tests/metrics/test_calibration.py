"""What intervals and verdicts are worth: the claims of docs/calibration.md, on fewer runs and, slowly, on all."""

from __future__ import annotations

import re

import calibration
import pytest
from calibration import Rates, Setting, simulate

Results = dict[str, list[tuple[Setting, Rates]]]


@pytest.mark.parametrize("setting", [Setting(300, 1.2, 1.0, 1.0), Setting(450, 2.0, 1.0, 1.0), Setting(1_000, 4.0, 0.5, 0.5)])
def test_at_the_margin_both_verdicts_are_wrong_in_at_most_5_percent(setting: Setting) -> None:
    rates = simulate(setting, draws=1_000)
    assert max(rates.passed, rates.failed) < 5 + 1.4  # two deviations of 1,000 runs


@pytest.mark.parametrize("images", [1, 2, 13, 300, 50_000])
def test_a_lossless_port_never_fails(images: int) -> None:
    assert [simulate(Setting(images, 0.0, 0.0, margin), draws=1).failed for margin in (0.0, 0.1, 1.0)] == [0, 0, 0]


@pytest.fixture(scope="module")
def results() -> Results:
    return calibration.results()


@pytest.mark.slow
def test_the_acceptance_figures_hold_in_10_000_runs(results: Results) -> None:
    noise = 0.5  # two deviations of 10,000 runs at 5 %
    for setting, rates in results["At the margin"]:
        assert max(rates.passed, rates.failed) <= 5 + noise, setting
    for setting, rates in [row for rows in results.values() for row in rows]:
        if setting.images * setting.changed / 100 >= 7:
            assert rates.covered == pytest.approx(95, abs=1.5), setting
        if not setting.changed:
            assert rates.failed == 0, setting
    one_test, _, no_margin, _ = (rates for _, rates in results["True losses"])
    assert one_test.failed >= 99
    assert no_margin.failed >= 80
    for setting, rates in results["As many images as the planner says"]:
        assert max(rates.passed, rates.failed) >= 79, setting


@pytest.mark.slow
def test_the_page_shows_these_results(results: Results) -> None:
    shown, made = (
        [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text.replace(",", ""))]
        for text in (calibration.PAGE.read_text(encoding="utf-8"), calibration.page(results))
    )
    assert shown == pytest.approx(made, abs=0.5)
