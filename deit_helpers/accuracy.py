"""06_accuracy: saved logits and labels -> `result.json` (the recipe's layout), `accuracy.json` and the verdict.

Scoring reads files only; it never runs a model.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np

from . import artifacts, freshness, proportions
from .artifacts import Run
from .errors import SpecError, VerdictError
from .expected import MAX_DROP_POINTS, expected_row
from .labels import read_index

TOP = (1, 2, 3, 4, 5)
_ROUNDING_POINTS = 1e-9  # 81.98 - 80.98 is 1.0000000000000142


def score(run: Run) -> dict[str, Any]:
    """Stage 06: score the saved logits against labels, the fp32 reference and the expected figures.

    Batch sizes whose logits are ready are scored too: the page compares all of them.

    Returns:
        The content of `accuracy.json`.
    """
    freshness.ensure(run, "score", lambda: _score(run))
    for other in (run.at(size) for size in run.spec.batch_sizes if size != run.batch_size):
        if freshness.problem(other, "infer", strict=False) is None:
            freshness.ensure(other, "score", functools.partial(_score, other))
    return run.read("accuracy")


def label_ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes score above each image's label: 0 means the label is top-1.

    Among equal logits the lower class index ranks first.

    Args:
        logits: (N, C).
        labels: (N,) integers below C.

    Returns:
        (N,) integers.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    ties_before = (logits == own) & (np.arange(logits.shape[1]) < labels[:, None])
    return (logits > own).sum(axis=1) + ties_before.sum(axis=1)


def percent_within(ranks: np.ndarray, k: int) -> float:
    """Share of images whose label is among the top k, in percent."""
    return float(100 * np.mean(ranks < k))


def agreement_percent(a: np.ndarray, b: np.ndarray) -> float:
    """Share of rows of two logit arrays (N, C) with the same top-1 class, in percent."""
    return float(100 * np.mean(a.argmax(axis=1) == b.argmax(axis=1)))


def compare(expected: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """How far two sets of logits (N, C) lie apart: largest absolute difference, spread of the first, top-1 agreement."""
    return {
        "images": len(expected),
        "max_abs_diff": float(np.abs(expected - found).max()),
        "std": float(expected.std()),
        "top1_agreement_percent": agreement_percent(expected, found),
    }


def per_class(logits: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Images, Acc@1 (percent) and the commonest wrong answer of every class that has images, by class index."""
    counts = confusion(logits, labels)
    rows = []
    for label in np.unique(labels):
        images, hits = int(counts[label].sum()), int(counts[label, label])
        counts[label, label] = 0
        common = int(counts[label].argmax()) if hits < images else None
        rows.append({"class": int(label), "images": images, "top1_percent": 100 * (hits / images), "mistaken_for": common})
    return rows


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts (C, C): row = label, column = top-1 answer."""
    classes = logits.shape[1]
    return np.bincount(labels * classes + logits.argmax(axis=1), minlength=classes**2).reshape(classes, classes)


def check_labels(names: list[str], labels: np.ndarray, classes: int) -> None:
    """Check that every label is a class of the model.

    Raises:
        SpecError: names the first image whose label is outside.
    """
    outside = np.flatnonzero(labels >= classes)
    if len(outside):
        i = outside[0]
        raise SpecError(f"labels: {names[i]} has label {labels[i]}, the model has classes 0 to {classes - 1}: mend the labels")


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


def require_pass(run: Run) -> None:
    """Raise if the verdict of a scored batch size is `fail`; call it last, when everything is rendered.

    Raises:
        VerdictError: carries the `accuracy.json` of the batch sizes that failed.
    """
    scored = [run.at(size) for size in ([run.batch_size] if run.batch_size else run.spec.batch_sizes)]
    rows = [at.read("accuracy") for at in scored if freshness.problem(at, "score", strict=False) is None]
    failed = [row for row in rows if row["verdict"] == "fail"]
    if failed:
        reason = next(describe(check) for check in failed[0]["checks"] if check["verdict"] == "fail")
        raise VerdictError(f"accuracy of {run.spec.run} bs{failed[0]['batch_size']}: FAIL, {reason}", failed)


def describe(check: dict[str, Any]) -> str:
    """One check of `accuracy.json` in words."""
    drop = check["drop_points"]
    distance = (
        f"{abs(drop):.2f} points {'above' if drop < 0 else 'below'} the {check['expected_percent']:.2f} % of {check['of']}"
    )
    return f"{check['metric']} is {check['percent']:.2f} %, {distance}, at most {check['max_drop_points']:g} below allowed"


def _score(run: Run) -> None:
    logits, reference = np.load(run.file("logits")), np.load(run.file("reference"))
    names, labels = read_index(run)
    check_labels(names, labels, logits.shape[1])
    ranks, reference_ranks = label_ranks(logits, labels), label_ranks(reference, labels)
    top = {f"top{k}_percent": percent_within(ranks, k) for k in TOP}
    reference_top = {f"top{k}_percent": percent_within(reference_ranks, k) for k in TOP}
    reference_name = "ONNX Runtime fp32, exported graph"
    compared = compare(reference, logits)
    agreement = compared["top1_agreement_percent"]
    own = {"name": "fp32 reference of this run", "source": "reference/logits.npy", "images": len(labels)}
    expected = expected_row(run) or {**own, **{key: reference_top[key] for key in ("top1_percent", "top5_percent")}}
    limit = expected.pop("max_drop_points", MAX_DROP_POINTS)
    # The published figures are of all 50,000 images: on those, and on the demo's own, there is nothing left to chance.
    same_images = expected.get("images") == len(labels)
    checks = []
    ci95 = {k: proportions.wilson_percent(int(np.sum(ranks < k)), len(ranks)) for k in (1, 5)}
    for k, (low, high) in ci95.items():
        key = f"top{k}_percent"
        interval = None if same_images else [expected[key] - high, expected[key] - low]
        checks.append(_check(f"Acc@{k}", top[key], expected[key], expected["name"], limit, interval))
    if run.spec.expected is None:  # accuracies may agree by chance, above all low ones: the answers themselves must agree
        checks.append(_check("top-1 agreement", agreement, 100.0, reference_name, MAX_DROP_POINTS, None))
    verdicts = [check["verdict"] for check in checks]
    verdict = next((word for word in ("fail", "inconclusive") if word in verdicts), "pass")
    artifacts.write_text(run.file("result"), json.dumps(seed_result(top, len(labels), logits.shape[1])))
    artifacts.write_json(
        run.file("accuracy"),
        {
            "batch_size": run.batch_size,
            "images": len(labels),
            "classes": logits.shape[1],
            **top,
            "top1_ci95_percent": ci95[1],
            "top5_ci95_percent": ci95[5],
            "reference": {
                "name": reference_name,
                **reference_top,
                "agreement_percent": agreement,
                "max_abs_diff": compared["max_abs_diff"],
            },
            "paired": proportions.paired(ranks, reference_ranks),
            "expected": expected,
            "drop_points": checks[0]["drop_points"],
            "max_drop_points": limit,
            "checks": checks,
            "verdict": verdict,
            "per_class": per_class(logits, labels),
        },
    )


def _check(metric: str, percent: float, expected: float, of: str, limit: float, interval: list[float] | None) -> dict[str, Any]:
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


def seed_result(top: dict[str, float], images: int, classes: int) -> dict[str, Any]:
    """The recipe's `result.json`: its keys, order and spelling (imagenet_acc_eval.py of ModelZoo's Deit_Small)."""
    value = [{"key": "Number of images", "value": str(images)}, {"key": "Number of classes", "value": str(classes)}]
    value += [{"key": f"Top{k} accuracy", "value": f"{round(top[f'top{k}_percent'], 2)}%"} for k in TOP]
    return {"title": "Overall statistical evaluation", "value": value}
