"""06_accuracy: saved logits and labels -> `result.json` (the recipe's layout), `accuracy.json` and the verdict.

Scoring reads files only; it never runs a model.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np

from . import artifacts, freshness
from .artifacts import Run
from .errors import SpecError, VerdictError
from .images import read_index

TOP = (1, 2, 3, 4, 5)
MAX_DROP_POINTS = 1.0  # the users' contract, absolute points, where the expected row says nothing else
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


def wilson_percent(hits: int, count: int) -> list[float]:
    """Wilson's 95 % interval of a proportion, in percent, [lo, hi]."""
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(method="wilson")
    return [100 * float(interval.low), 100 * float(interval.high)]


def paired(ranks: np.ndarray, reference_ranks: np.ndarray) -> dict[str, Any]:
    """McNemar's exact test: of the images only one of two models gets right, is the split other than even?"""
    from scipy.stats import binomtest

    gained = int(np.sum((ranks == 0) & (reference_ranks > 0)))
    lost = int(np.sum((ranks > 0) & (reference_ranks == 0)))
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return {"only_this_right": gained, "only_reference_right": lost, "p_value": p_value}


def per_class(logits: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Images, Acc@1 (percent) and the commonest wrong answer of every class that has images, by class index."""
    predicted = logits.argmax(axis=1)
    rows = []
    for label in np.unique(labels):
        answers = predicted[labels == label]
        wrong = answers[answers != label]
        common = int(np.bincount(wrong).argmax()) if len(wrong) else None
        hits = float(100 * np.mean(answers == label))
        rows.append({"class": int(label), "images": len(answers), "top1_percent": hits, "mistaken_for": common})
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


def require_pass(run: Run, *rows: dict[str, Any]) -> None:
    """Raise for a failed verdict; call it last, when everything is rendered.

    Raises:
        VerdictError: carries the failed rows.
    """
    failed = [row for row in rows if row["verdict"] == "fail"]
    if failed:
        row = failed[0]
        limit = row["max_drop_points"]
        drop = f"{row['drop_points']:.2f} points below {row['expected']['name']}, at most {limit:g} allowed"
        raise VerdictError(f"accuracy of {run.spec.run} bs{row['batch_size']}: FAIL, Acc@1 is {drop}", failed)


def _score(run: Run) -> None:
    logits, reference = np.load(run.file("logits")), np.load(run.file("reference"))
    names, labels = read_index(run)
    check_labels(names, labels, logits.shape[1])
    ranks, reference_ranks = label_ranks(logits, labels), label_ranks(reference, labels)
    top = {f"top{k}_percent": percent_within(ranks, k) for k in TOP}
    reference_top = {f"top{k}_percent": percent_within(reference_ranks, k) for k in TOP}
    expected = artifacts.expected_row(run) or {
        "name": "fp32 reference of this run",
        "images": len(labels),
        "source": "reference/logits.npy",
        **{key: reference_top[key] for key in ("top1_percent", "top5_percent")},
    }
    limit = expected.pop("max_drop_points", MAX_DROP_POINTS)
    drops = {key: expected[key] - top[key] for key in ("top1_percent", "top5_percent")}
    intervals = {f"top{k}_percent": wilson_percent(int(np.sum(ranks < k)), len(ranks)) for k in (1, 5)}
    # The published figures are of all 50,000 images: on those, and on the demo's own, there is nothing left to chance.
    same = expected.get("images") == len(labels)
    spread = {key: None if same else [expected[key] - hi, expected[key] - lo] for key, (lo, hi) in intervals.items()}
    verdicts = [decide(drops[key], spread[key], limit) for key in drops]
    verdict = next((word for word in ("fail", "inconclusive") if word in verdicts), "pass")
    artifacts.write_text(run.file("result"), json.dumps(seed_result(top, len(labels), logits.shape[1])))
    artifacts.write_json(
        run.file("accuracy"),
        {
            "batch_size": run.batch_size,
            "images": len(labels),
            "classes": logits.shape[1],
            **top,
            "top1_ci95_percent": intervals["top1_percent"],
            "top5_ci95_percent": intervals["top5_percent"],
            "reference": {
                "name": "ONNX Runtime fp32, exported graph",
                **reference_top,
                "agreement_percent": agreement_percent(logits, reference),
                "max_abs_diff": float(np.abs(logits - reference).max()),
            },
            "paired": paired(ranks, reference_ranks),
            "expected": expected,
            "drop_points": drops["top1_percent"],
            "drop_top5_points": drops["top5_percent"],
            "drop_ci95_points": spread["top1_percent"],
            "max_drop_points": limit,
            "verdict": verdict,
            "per_class": per_class(logits, labels),
        },
    )


def seed_result(top: dict[str, float], images: int, classes: int) -> dict[str, Any]:
    """The recipe's `result.json`: its keys, order and spelling (imagenet_acc_eval.py of ModelZoo's Deit_Small)."""
    value = [{"key": "Number of images", "value": str(images)}, {"key": "Number of classes", "value": str(classes)}]
    value += [{"key": f"Top{k} accuracy", "value": f"{round(top[f'top{k}_percent'], 2)}%"} for k in TOP]
    return {"title": "Overall statistical evaluation", "value": value}
