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


def sentence(row: dict[str, Any]) -> str:
    """A row of `checks` of `accuracy.json` in words."""
    side = "above" if row["drop_points"] < 0 else "below"
    distance = f"{abs(row['drop_points']):.2f} points {side} the {row['expected_percent']:.2f} % of {row['of']}"
    return f"{row['metric']} is {row['percent']:.2f} %, {distance}, at most {row['max_drop_points']:g} below allowed"


def guessing(hits: int, count: int, classes: int, agreement_percent: float, agrees: bool) -> str:
    """Why nothing follows from accuracies where the reference's own cannot be told from guessing."""
    guilty = "the labels, not the port" if agrees else "the labels, and perhaps the port"
    right = f"the fp32 reference itself has {hits} of {count} right, which cannot be told from guessing among {classes} classes"
    todo = "check labels, labels_format, class_order, preprocess, and that the checkpoint was trained for these classes"
    return f"{guilty}: {right}; the port gives the same top-1 on {agreement_percent:.2f} %; {todo}"


def check(metric: str, percent: float, expected: float, of: str, limit: float, interval: list[float] | None) -> dict[str, Any]:
    """A row of `checks` of `accuracy.json`: a measured accuracy against the expected one `of` some source, in percent."""
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
