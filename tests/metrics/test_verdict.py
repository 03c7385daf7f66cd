"""The verdict: pass, fail or inconclusive, by where the interval of the drop lies."""

from __future__ import annotations

import pytest

from deit_helpers.metrics.verdict import decide


@pytest.mark.parametrize(
    ("drop", "interval", "verdict"),
    [
        (-3.0, None, "pass"),
        (1.0, None, "pass"),
        (81.98 - 80.98, None, "pass"),  # 1.0 but for the last bit
        (1.002, None, "fail"),
        (0.2, [-0.5, 0.9], "pass"),
        (0.2, [-0.5, 1.1], "inconclusive"),
        (1.5, [0.8, 2.2], "inconclusive"),
        (3.0, [1.2, 4.8], "fail"),
    ],
)
def test_verdict_asks_where_the_whole_interval_lies(drop: float, interval: list[float] | None, verdict: str) -> None:
    assert decide(drop, interval, 1.0) == verdict
