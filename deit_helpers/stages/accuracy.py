"""06_accuracy: saved logits and labels -> `result.json` (the recipe's layout), `accuracy.json` and the verdict.

Scoring reads files only; it never runs a model.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np

from .. import files
from ..data.sources import check_labels, read_index
from ..errors import VerdictError
from ..metrics import proportions
from ..metrics.classification import TOP, compare, label_ranks, per_class, percent_within
from ..metrics.verdict import check, sentence
from ..run import records
from ..run.expected import MAX_DROP_POINTS, expected_row
from ..run.folder import Run


def score(run: Run) -> dict[str, Any]:
    """Stage 06: score the saved logits against labels, the fp32 reference and the expected figures.

    Batch sizes whose logits are ready are scored too: the page compares all of them.

    Returns:
        The content of `accuracy.json`.
    """
    records.ensure(run, "score", lambda: _score(run))
    for other in (run.at(size) for size in run.spec.batch_sizes if size != run.batch_size):
        if records.problem(other, "infer", strict=False) is None:
            records.ensure(other, "score", functools.partial(_score, other))
    return run.read("accuracy")


def require_pass(run: Run) -> None:
    """Raise if the verdict of a scored batch size is `fail`; call it last, when everything is rendered.

    Raises:
        VerdictError: carries the `accuracy.json` of the batch sizes that failed.
    """
    scored = [run.at(size) for size in ([run.batch_size] if run.batch_size else run.spec.batch_sizes)]
    rows = [at.read("accuracy") for at in scored if records.problem(at, "score", strict=False) is None]
    failed = [row for row in rows if row["verdict"] == "fail"]
    if failed:
        reason = next(sentence(row) for row in failed[0]["checks"] if row["verdict"] == "fail")
        raise VerdictError(f"accuracy of {run.spec.run} bs{failed[0]['batch_size']}: FAIL, {reason}", failed)


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
        checks.append(check(f"Acc@{k}", top[key], expected[key], expected["name"], limit, interval))
    if run.spec.expected is None:  # accuracies may agree by chance, above all low ones: the answers themselves must agree
        checks.append(check("top-1 agreement", agreement, 100.0, reference_name, MAX_DROP_POINTS, None))
    verdicts = [row["verdict"] for row in checks]
    verdict = next((word for word in ("fail", "inconclusive") if word in verdicts), "pass")
    files.write_text(run.file("result"), json.dumps(seed_result(top, len(labels), logits.shape[1])))
    files.write_json(
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


def seed_result(top: dict[str, float], images: int, classes: int) -> dict[str, Any]:
    """The recipe's `result.json`: its keys, order and spelling (imagenet_acc_eval.py of ModelZoo's Deit_Small)."""
    value = [{"key": "Number of images", "value": str(images)}, {"key": "Number of classes", "value": str(classes)}]
    value += [{"key": f"Top{k} accuracy", "value": f"{round(top[f'top{k}_percent'], 2)}%"} for k in TOP]
    return {"title": "Overall statistical evaluation", "value": value}
