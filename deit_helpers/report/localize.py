"""What localize shows: the error at every tap of two versions of the network, and which known mistake the device makes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArtifactError
from ..files import read_json
from ..run.folder import Run
from .elements import Banner, Cell, Chart, Facts, Stack, Table
from .style import END_TO_END, PURE, new_figure
from .words import notes as notes

LOWEST = 1e-9  # where the chart draws an error of 0
MISTAKES = {
    "none": "nothing: as the reference",
    "one_late": "the answers are of the image before",
    "one_early": "the answers are of the next image",
    "bgr": "fed BGR, not RGB",
    "bicubic": "resized bicubic",
    "bilinear": "resized bilinear",
    "no_mean": "the mean not subtracted",
    "no_std": "not divided by std",
    "half_mean_std": "mean and std of 0.5",
    "pad_tokens_unmasked": "padded tokens not masked",
}


def sides(run: Run) -> Facts:
    """What was compared with what."""
    facts = _read(run, "localize")
    both = {key: facts[key] for key in ("left", "right")}
    moved = max(side["disturbance"] for side in both.values())
    marked = f"{facts['method']}, which moves {f'the logits by {moved:.1g} of them' if moved else 'no bit of the logits'}"
    texts = {key: f"{side['name']}, {side['precision']}: {side['file']}" for key, side in both.items()}
    caption = f"Two versions of one network on {len(facts['images'])} images of the run"
    return Facts(caption, {**texts, "tolerance": f"{facts['tolerance']:g}, of {facts['precision']}", "taps marked": marked})


def errors_chart(run: Run) -> Chart:
    """The relative error of every tap in the order in which the network computes them."""
    facts = _read(run, "localize")
    errors = {i: row["relative_rms"] for i, row in enumerate(facts["taps"]) if "relative_rms" in row}
    blocks = {i: row["tap"].split(".")[1] for i, row in enumerate(facts["taps"]) if row["tap"].endswith(".norm1")}
    with new_figure(2.8) as (figure, axes):
        axes.semilogy([*errors], np.maximum([*errors.values()], LOWEST), color=PURE, marker=".", linewidth=1)
        axes.axhline(facts["tolerance"], color=END_TO_END, linestyle="--", linewidth=1)
        axes.text(0, facts["tolerance"] * 1.2, "tolerance", color=END_TO_END, va="bottom")
        axes.set(xticks=[*blocks], xticklabels=[*blocks.values()], xlabel="block", ylabel="relative error")
    left, right = (facts[key]["name"] for key in ("left", "right"))
    text = f"{len(errors)} taps, the largest error {max(errors.values()):.1g}. {_finding(facts)}"
    return Chart(figure, f"Error of {right} against {left}: root mean square of the difference by that of {left}", text)


def taps(run: Run) -> Table:
    """The statistics of every tap; those over tolerance are marked."""
    facts = _read(run, "localize")
    keys = ("tap", "computed_by", "relative_rms", "max_abs_diff", "cosine", "not_finite")
    rows: list[list[Cell]] = []
    for row in facts["taps"]:
        absent = [facts[key]["name"] for key in ("left", "right") if row[f"{key}_node"] is None]
        rows.append([*map(row.get, keys), f"not in {absent[0]}" if absent else row["right_node"]])
    over = [row.get("not_finite") or row.get("relative_rms", 0) > facts["tolerance"] for row in facts["taps"]]
    header = "tap | computed by | relative error:.1e | max abs diff:.1e | cosine:.6f | not finite | node on the right"
    return Table(f"Every tap on {len(facts['images'])} images", header, rows, alarm=frozenset(np.flatnonzero(over)))


def suspects(run: Run) -> Table | Banner:
    """How far the device's logits lie from those of the exported graph with each known mistake."""
    facts = _read(run, "suspects")
    if "mistakes" not in facts:
        return Banner("note", "Not searched.", f"{facts['reason']}.")
    sizes, mistakes = list(facts["causes"]), facts["mistakes"]
    names = (MISTAKES.get(row["mistake"], row["mistake"]) for row in mistakes)
    rows = [[name, *map(row["distance"].get, sizes), row["reason"]] for name, row in zip(names, mistakes, strict=True)]
    named = {cause["mistake"] for cause in facts["causes"].values()} - {"none"}
    caption = f"Logits of 05 from the reference's with one mistake, in spreads of a logit, on {facts['images']} images"
    header = " | ".join(["mistake", *(f"bs{n}:.1e" for n in sizes), "not tried"])
    return Table(caption, header, rows, alarm=frozenset(i for i, row in enumerate(mistakes) if row["mistake"] in named))


def outcome(run: Run) -> Stack:
    """The first bad tap, or that there is none; and what explains the device's answers."""
    facts, known = _read(run, "localize"), _read(run, "suspects")
    kind = {"none": "pass", "jump": "fail", "growth": "inconclusive"}[facts["verdict"]["kind"]]
    banners = [Banner(kind, f"{facts['right']['name']} against {facts['left']['name']}.", _finding(facts))]
    for size, cause in known.get("causes", {}).items():
        kind = {"none": "pass", None: "inconclusive"}.get(cause["mistake"], "fail")
        banners.append(Banner(kind, "Known mistakes.", f"The device's answers at bs{size} {_explanation(cause)}."))
    if off_by := known.get("labels", {}).get("off_by"):
        text = f"The fp32 reference is right where labels are counted {off_by:+d}: mend labels or labels_format, not the port."
        banners.append(Banner("fail", "A label problem.", text))
    return Stack(banners)


def _finding(facts: dict[str, Any]) -> str:
    bad, tolerance = facts["verdict"], facts["tolerance"]
    if bad["kind"] == "none":
        return f"No tap is over tolerance ({tolerance:g})."
    row = next(row for row in facts["taps"] if row["tap"] == bad["tap"])
    broken = f", {bad['not_finite']} values infinite or NaN" if bad["not_finite"] else ""
    before = f"the tap before, {bad['tap_before']}, has {bad['error_before']:.1g}" if bad["tap_before"] else "it is the first"
    error = f"relative error {bad['error']:.2g}{broken} (tolerance {tolerance:g}); {before}"
    tap = f"{bad['tap']}, computed by {row['computed_by']} (node {row['right_node']})"
    if bad["kind"] == "growth":
        return f"The error grows over the tolerance without a jump, as rounding does: first at {tap}, {error}."
    return f"The first bad tap is {tap}: {error}{'' if bad['over'] == bad['tap'] else '; first over it is ' + bad['over']}."


def _explanation(cause: dict[str, Any]) -> str:
    if cause["mistake"] == "none":
        return f"are the reference's within rounding (distance {cause['distance']:.1g})"
    says = "are those of the reference with one mistake" if cause["mistake"] else "have no known mistake alone; the nearest is"
    distances = f"distance {cause['distance_of_nearest']:.1g}, without it {cause['distance']:.1g}"
    return f"{says}: {MISTAKES.get(cause['nearest'], cause['nearest'])} ({distances})"


def _read(run: Run, name: str) -> dict[str, Any]:
    path = run.folder / f"{name}.json"
    if not (facts := read_json(path)):
        raise ArtifactError(f"{path}: missing or damaged: run notebooks/localize.ipynb")
    return facts
