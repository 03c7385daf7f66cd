"""A drop in points against its limit: pass, fail or inconclusive; and what the checks of a run say of the port."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from . import planner, proportions
from .proportions import LEVEL

Check = dict[str, Any]  # a row of `checks` of `accuracy.json`
Points = list[float] | None  # what is known of a drop: at least, at most
PUBLISHED, REFERENCE, SAME_IMAGES = "published", "reference", "same images"  # kinds of checks
AGREEMENT = "top-1 agreement"  # a metric, and a kind of its own
WORST_LAST = ("pass", "inconclusive", "fail")
NOT_THE_PORT = "the labels, not the port"
_ROUNDING_POINTS = 1e-9  # 81.98 - 80.98 is 1.0000000000000142
_PORT = {  # whether it agrees with fp32, whether it meets the expectation (None: none is named)
    ("pass", "pass"): "the port is right: it agrees with fp32 and meets the expectation",
    ("pass", "inconclusive"): "the port agrees with fp32; whether it meets the expectation these images cannot tell",
    ("pass", "fail"): "the port is faithful, it agrees with fp32: the checkpoint, the labels or the recipe are wrong",
    ("pass", None): "the port is faithful, it agrees with fp32; no expectation is named, so the checkpoint is not judged",
    ("inconclusive", "pass"): "the expectation is met; whether the port agrees with fp32 these images cannot tell",
    ("inconclusive", "inconclusive"): "these images cannot tell whether the port agrees with fp32 and meets the expectation",
    ("inconclusive", "fail"): "the expectation is missed; whether by the port or by checkpoint, labels or recipe is not told",
    ("inconclusive", None): "these images cannot tell whether the port agrees with fp32",
    ("fail", "pass"): "within tolerance of the expectation, but accuracy is lost against fp32: see the changed images",
    ("fail", "inconclusive"): "the port loses accuracy against fp32; whether it meets the expectation these images cannot tell",
    ("fail", "fail"): "the port loses accuracy: it misses both fp32 and the expectation",
    ("fail", None): "the port does not agree with fp32: see the changed images",
}


def worst(rows: Iterable[Check]) -> str:
    """The worst verdict of rows of `checks`."""
    return max((row["verdict"] for row in rows), key=WORST_LAST.index)


def port(agrees: str, meets: str | None) -> tuple[str, str]:
    """The verdict of a run and what it says of the port, a sentence of one line.

    `agrees` is the verdict against the run's own fp32 reference; `meets` that against the expected figures, None without any.
    """
    return max(agrees, meets or "pass", key=WORST_LAST.index), _PORT[agrees, meets]


def of_run(scored: Sequence[dict[str, Any]], missing: Sequence[str] = ()) -> tuple[str, str]:
    """As `port`, from the `accuracy.json` of the batch sizes: banner, card, terminal and error all say this.

    Without the batch sizes in `missing`, which were not scored, nothing passes.
    """
    if not scored:
        return "inconclusive", "not scored yet"
    cause = next((row["cause"] for row in scored if row.get("cause")), None)
    if cause and all(row["verdict"] != "fail" for row in scored):  # its checks say nothing: the reference itself guesses
        return "inconclusive", port("pass" if cause.startswith(NOT_THE_PORT) else "inconclusive", "fail")[1]
    checks = [check for row in scored for check in row["checks"]]
    of_expected = [check for check in checks if check.get("kind") in (PUBLISHED, SAME_IMAGES)]
    of_reference = [check for check in checks if check not in of_expected]
    kind, text = port(worst(of_reference), worst(of_expected) if of_expected else None)
    if missing and kind == "pass":
        return "inconclusive", f"{', '.join(missing)} not scored yet; else {text}"
    return kind, text


def how_bad(row: Check) -> tuple[int, bool, float]:
    """What sorts rows of `checks`, the worst last; of those with one verdict Acc@1 goes before Acc@5, as everywhere."""
    bound = row.get("drop_at_most_points")
    beyond = (row["drop_points"] if bound is None else bound) - row["max_drop_points"]
    return WORST_LAST.index(row["verdict"]), row["metric"] != "Acc@5", beyond


def decide(drop: float, bounds: Points, limit: float) -> str:
    """`pass`, `fail` or `inconclusive` for a drop (expected minus measured) in points.

    `bounds` is what the drop is at least and at most; None when both figures are of the same images and there is no sampling.
    """
    low, high = bounds or (drop, drop)
    limit += _ROUNDING_POINTS
    if high <= limit:
        return "pass"
    return "fail" if low > limit else "inconclusive"


def sentence(row: Check) -> str:
    """A check in words."""
    side = "above" if row["drop_points"] < 0 else "below"
    distance = f"{abs(row['drop_points']):.2f} points {side} the {row['expected_percent']:.2f} % of {row['of']}"
    return f"{row['metric']} is {row['percent']:.2f} %, {distance}, at most {row['max_drop_points']:g} below allowed"


def evidence(row: Check, count: int, tests: int, images_per_s: float | None) -> str:
    """What `count` images show of a check, and what would decide it, in words; empty without sampling."""
    low, high, images = (row.get(key) for key in ("drop_at_least_points", "drop_at_most_points", "images_to_decide"))
    if low is None or high is None:
        return "; on these very images, so nothing is left to chance" if row.get("kind") == SAME_IMAGES else ""
    if row["verdict"] != "inconclusive":
        level, bound = (LEVEL, f"most {max(high, 0):.2f}") if row["verdict"] == "pass" else (LEVEL / tests, f"least {low:.2f}")
        return f"; with {100 * (1 - level):.3g} % confidence at {bound} points are lost"
    if row["kind"] == PUBLISHED:
        told = planner.loss_told(count, row["expected_percent"])
        shown = f"so few can tell a loss of {told:.1f} points from none, not one of {row['max_drop_points']:g}"
    else:
        shown = f"up to {high:.2f} points may be lost, and answers going on to change as here"
    if images is None:
        return f"; {shown}, no {planner.VALIDATION_IMAGES:,} images are likely to settle it: the drop is too near the limit"
    time = f", {images / images_per_s / 60:.1f} minutes at this run's rate" if images_per_s else ""
    return f"; {shown}, {images:,} would settle it (power {100 * planner.POWER:.0f} %{time})"


def readings(percent: float, expected: float, limit: float) -> str:
    """Both readings of "within 1 %" of a published figure, and whether they are met."""
    floors = {"points": expected - limit, "% of it": expected * (1 - limit / 100)}
    met = {unit: "met" if percent >= floor - _ROUNDING_POINTS else "not met" for unit, floor in floors.items()}
    words = [f"{floor:.2f} % ({limit:g} {unit} below {expected:.2f} %) is {met[unit]}" for unit, floor in floors.items()]
    return f"Both readings of the limit: {'; '.join(words)}; the verdict goes by points"


def check(row: Check, kind: str, interval: Points = None, bounds: Points = None, needed: int | None = None) -> Check:
    """`row` (metric, percent, expected_percent, of, max_drop_points) judged by the bounds of its drop, None without sampling.

    `needed` is how many images would decide where these do not.
    """
    drop = row["expected_percent"] - row["percent"]
    verdict = decide(drop, bounds, row["max_drop_points"])
    low, high = bounds or (None, None)
    return row | {
        "kind": kind,
        "drop_points": drop,
        "drop_ci95_points": interval,
        "drop_at_least_points": low,
        "drop_at_most_points": high,
        "verdict": verdict,
        "images_to_decide": needed if verdict == "inconclusive" else None,
    }


def against_reference(row: Check, pairs: dict[str, Any], count: int, fail_level: float) -> Check:
    """A paired test of non-inferiority, the limit its margin; `pairs` is that of `proportions.paired`."""
    gained, lost = pairs["only_this_right"], pairs["only_reference_right"]
    interval = [-points for points in reversed(pairs["difference_ci95_points"])]
    bounds = proportions.drop_bounds(gained, lost, count, fail_level)
    drop = 100 * (lost - gained) / count
    needed = planner.paired_images(row["max_drop_points"], (gained + lost) / count, drop, fail_level)
    return check(row, REFERENCE, interval, bounds, needed)


def against_published(row: Check, most: int, count: int, fail_level: float) -> Check:
    """A sample of the `most` images that a published figure was taken on: it can tell large losses only."""
    expected, hits = row["expected_percent"], round(row["percent"] * count / 100)
    interval = [expected - percent for percent in reversed(proportions.wilson_percent(hits, count))]
    bounds = proportions.published_bounds(hits, count, expected, fail_level)
    needed = planner.published_images(row["max_drop_points"], expected, most, expected - row["percent"], fail_level)
    return check(row, PUBLISHED, interval, bounds, needed)
