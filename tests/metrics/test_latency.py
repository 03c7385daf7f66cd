"""Statistics of timings against independent oracles; nothing here depends on how fast this machine is."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import scipy.stats

from deit_helpers.metrics import latency
from deit_helpers.run import host

RNG = np.random.default_rng(0)


def test_percentiles_interpolate_and_p99_needs_a_hundred_samples() -> None:
    summary = latency.latency_ms(np.arange(1.0, 101.0)[::-1])
    assert summary == pytest.approx({"mean": 50.5, "p50": 50.5, "p90": 90.1, "p99": 99.01, "n": 100})
    assert latency.latency_ms(np.arange(1.0, 100.0))["p99"] is None
    assert latency.latency_ms([]) == {"mean": None, "p50": None, "p90": None, "p99": None, "n": 0}


def slow_rule(samples: list[float]) -> int:
    """The marginal standard error rule, cut by cut."""
    cuts = range(len(samples) // 2 + 1)
    return min(cuts, key=lambda cut: (np.var(samples[cut:]) / len(samples[cut:]), cut))


@pytest.mark.parametrize("warm", [0, 3, 17])
def test_warm_up_is_found(warm: int) -> None:
    samples = [30.0 - i for i in range(warm)] + list(10 + 0.1 * RNG.standard_normal(60))
    count = latency.warmup_count(samples)
    assert count == slow_rule(samples)
    assert warm <= count <= warm + 8


def test_a_steady_series_loses_little_and_at_most_half_is_ever_cut() -> None:
    assert latency.warmup_count([5.0, 5.0, 5.0]) == 0
    assert latency.warmup_count([9.0, *[5.0] * 10]) == 0  # too few to tell
    rising = np.linspace(1, 100, 50)
    assert latency.warmup_count(rising) <= 25


def test_the_interval_of_the_median_holds_it_as_often_as_it_says() -> None:
    intervals = [latency.interval(RNG.normal(1, 0.2, 61), 0.5) for _ in range(300)]
    held = [low <= 1.0 <= high for low, high in filter(None, intervals)]
    assert 0.92 <= np.mean(held) <= 0.99
    few = np.array([1.0, 2.0, 3.0])
    assert latency.interval(few, 0.9) is None


def test_the_interval_of_independent_samples_is_hardly_wider_for_looking_at_blocks() -> None:
    draws = [RNG.normal(1, 0.2, 100) for _ in range(300)]
    intervals = [latency.median_interval(samples) for samples in draws]
    assert 0.93 <= np.mean([low <= 1.0 <= high for low, high in filter(None, intervals)]) <= 0.995
    widths, plain = (np.mean([high - low for low, high in filter(None, rows)])
                     for rows in (intervals, [latency.interval(samples, 0.5) for samples in draws]))  # fmt: skip
    assert widths < 1.35 * plain


def test_the_interval_of_a_rate_that_wanders_holds_its_level() -> None:
    """Neighbours alike, as where others come and go: order statistics are then far too sure of themselves."""
    innovations = RNG.normal(0, 0.05, (300, 400))
    paths = np.zeros((300, 400))
    for i in range(1, 400):
        paths[:, i] = 0.9 * paths[:, i - 1] + innovations[:, i]

    def held(of: Callable[[np.ndarray], tuple[float, float] | None]) -> float:
        return float(np.mean([low <= 10.0 <= high for low, high in filter(None, map(of, 10 + paths))]))

    assert held(lambda samples: latency.interval(samples, 0.5)) < 0.6
    assert held(latency.median_interval) > 0.85


@pytest.mark.parametrize(
    ("samples", "least", "most"),
    [
        (np.tile([9.9, 10.0, 10.1], 40), 0.0, 1.0),
        (np.linspace(9.0, 11.0, 100), 4.0, 10.0),  # it drifts
        (np.repeat([10.0, 15.0], 50), 10.0, 40.0),  # it jumps
        (np.array([10.0] * 60 + [10.0, 20.0] * 20), 15.0, 60.0),  # half of its end is slow: the median does not see it
        (np.array([10.0, 10.1, 9.9, 10.0, 10.1, 12.0]), 5.0, 15.0),  # six samples lie far apart
    ],
    ids=["steady", "drifts", "jumps", "slow in part", "few"],
)
def test_a_rate_that_drifts_or_jumps_is_unsettled(samples: np.ndarray, least: float, most: float) -> None:
    unsettled = latency.unsettled_percent(samples)
    assert unsettled is not None
    assert least <= unsettled <= most
    assert bool(latency.trust(0.0, 0.0, unsettled)["disturbed"]) is (least > 0 and unsettled > latency.MOST_UNSETTLED_PERCENT)


def test_fewer_than_two_samples_in_a_block_say_nothing() -> None:
    jump = np.repeat([10.0, 15.0], 10)
    assert latency.blocks_percent(jump[:19]) is None
    assert latency.blocks_percent(jump) == pytest.approx(100 * 2.262 * np.std([10.0, 15.0] * 5, ddof=1) / 12.5 / 10**0.5)


@pytest.mark.parametrize(
    ("measured", "disturbed"),
    [
        ((None, None, None), ""),
        ((3.0, 3.0, 5.0), ""),
        ((32.14, 0.0, 1.0), "others had 32.1 % of the CPU"),
        ((None, 74.0, None), "a small workload on all cores stood still for 74.0 % of its time"),
        ((3.1, 0.0, 18.1), "others had 3.1 % of the CPU, the rate is unsettled by 18.1 %"),
    ],
)
def test_what_speaks_against_a_rate_is_said_with_its_figures(measured: tuple[float | None, ...], disturbed: str) -> None:
    facts = latency.trust(*measured)
    assert facts["disturbed"] == disturbed
    assert (facts["other_cpu_percent"], facts["interrupted_percent"], facts["unsettled_percent"]) == measured


def test_a_measurement_ends_when_it_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MIN_S", 0.0)
    source = itertools.chain([90.0, 60.0, 30.0], itertools.cycle([10.0, 10.01, 9.99]))
    samples_ms, summary = latency.sample(source, box_s=60)
    assert summary["settled"]
    assert summary["warmup_batches"] == 3
    assert summary["warmup_ms"] == [90.0, 60.0, 30.0]
    assert summary["latency_ms"]["p50"] == pytest.approx(10.0, abs=0.02)
    assert summary["latency_ms"]["n"] == len(samples_ms)
    assert summary["latency_ms"]["n"] >= latency.P99_SAMPLES
    assert summary["ci95_ms"]["p90"] is not None


def test_a_measurement_that_never_settles_ends_with_its_box() -> None:
    def source() -> Iterator[float]:
        for i in itertools.count():
            time.sleep(0.001)
            yield 1.0 if i % 2 else 100.0

    _, summary = latency.sample(source(), box_s=0.2)
    assert not summary["settled"]
    assert summary["spread_percent"] > 50


def test_a_measurement_whose_warm_up_may_not_be_over_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of a long ramp is cut, but never more than half: what is left is narrow, and may be the ramp's end still."""
    monkeypatch.setattr(latency, "MIN_S", 0.0)
    samples_ms, summary = latency.sample(itertools.chain(np.linspace(20, 10.1, 100), itertools.repeat(10.0)), box_s=60)
    assert (summary["warmup_batches"], len(samples_ms)) == (100, 110)  # at 200 half of it was cut
    assert summary["settled"]
    assert not latency.is_settled(np.array([20.0] * 100 + [10.0] * 100))
    assert latency.is_settled(np.array([20.0] * 90 + [10.0] * 110))


def test_two_timings_are_compared_by_an_interval() -> None:
    base = RNG.normal(10, 0.5, 200)
    compared = latency.ratio(base * 1.3, base)
    assert compared is not None
    middle, low, high = compared
    assert middle == pytest.approx(1.3)
    assert low < 1.3 < high
    same = latency.ratio(RNG.normal(10, 0.5, 200), base)
    assert same is not None
    assert same[1] < 1 < same[2]
    assert latency.ratio(base[:5], base) is None  # the median of five has no 95 % interval


def test_the_interval_agrees_with_a_binomial_count() -> None:
    values = np.sort(RNG.exponential(1, 101))
    low, high = latency.interval(values, 0.5)
    inside = scipy.stats.binom.cdf(np.searchsorted(values, high), 101, 0.5) - scipy.stats.binom.cdf(
        np.searchsorted(values, low), 101, 0.5
    )
    assert 0.93 <= inside <= 0.99


def test_peak_memory_is_of_this_process_not_of_the_one_that_started_it() -> None:
    fat = np.ones(400 * 2**17)  # 400 MiB
    mine = host.peak_memory_mib()
    assert mine is not None
    assert mine > fat.nbytes / 2**20
    code = "from deit_helpers.run import host; print(host.peak_memory_mib())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 10 < float(child.stdout) < 400


@pytest.mark.parametrize(
    ("first_ms", "rounds_s", "counts"),
    [
        (1.0, 6.0, (5, 5)),
        (1300.0, 6.0, (1, 0)),  # six rounds would not fit: the profile is all there is time for
        (1190.0, 6.0, (5, 5)),  # the first call takes longer than the others
        (0.0, 0.0, (2, 2)),
    ],
)
def test_profiled_and_plain_calls_are_taken_in_turn(
    monkeypatch: pytest.MonkeyPatch, first_ms: float, rounds_s: float, counts: tuple[int, int]
) -> None:
    monkeypatch.setattr(latency, "ROUNDS_S", rounds_s)
    log: list[str] = []

    def profiled() -> float:
        log.append("profiled")
        return first_ms if len(log) == 1 else 3.0

    def plain() -> float:
        log.append("plain")
        return 2.0

    profiled_ms, plain_ms = latency.in_turn(profiled, lambda: plain, 5)
    assert (profiled_ms, plain_ms) == ([3.0] * counts[0], [2.0] * counts[1])
    assert log == (["profiled", "plain"] + ["plain", "profiled"] * counts[1] if counts[1] else ["profiled"] * 2)
