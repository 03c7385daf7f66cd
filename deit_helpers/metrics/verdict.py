"""A drop in points against its limit: pass, fail or inconclusive."""

from __future__ import annotations

from typing import Any

_ROUNDING_POINTS = 1e-9  # 81.98 - 80.98 is 1.0000000000000142


def decide(drop: float, interval: list[float] | None, limit: float) -> str:
    """`pass`, `fail` or `inconclusive` for a drop in points.

    Args:
        drop: expected minus measured accuracy.
        interval: 95 % interval of the drop; None when both figures are of the same images and there is no sampling.
        limit: the largest drop allowed.
    """
    low, high = interval or (drop, drop)
    limit += _ROUNDING_POINTS
    if high <= limit:
        return "pass"
    return "fail" if low > limit else "inconclusive"


def describe(check: dict[str, Any]) -> str:
    """One check of `accuracy.json` in words."""
    drop = check["drop_points"]
    distance = (
        f"{abs(drop):.2f} points {'above' if drop < 0 else 'below'} the {check['expected_percent']:.2f} % of {check['of']}"
    )
    return f"{check['metric']} is {check['percent']:.2f} %, {distance}, at most {check['max_drop_points']:g} below allowed"


def check(metric: str, percent: float, expected: float, of: str, limit: float, interval: list[float] | None) -> dict[str, Any]:
    drop = expected - percent
    return {
        "metric": metric,
        "percent": percent,
        "expected_percent": expected,
        "of": of,
        "drop_points": drop,
        "drop_ci95_points": interval,
        "max_drop_points": limit,
        "verdict": decide(drop, interval, limit),
    }
