"""06_accuracy: saved logits and labels -> `result.json` (the recipe's layout), `predictions.csv`, `accuracy.json`, the verdict.

Scoring reads files only; it never runs a model.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from .. import files
from ..data.labels import real_labels
from ..data.sources import check_labels, class_words, read_index
from ..errors import VerdictError
from ..metrics import classification, proportions, verdict
from ..metrics.classification import FEW_CLASSES, TOP, among, compare, confusion, label_ranks, percent_within, predictions
from ..metrics.planner import VALIDATION_IMAGES
from ..run import records
from ..run.expected import MAX_DROP_POINTS, expected_row, valid_classes
from ..run.folder import Run
from ..run.records import makes

REFERENCE = "ONNX Runtime fp32, exported graph"
OWN_REFERENCE = "fp32 reference of this run"


def score(run: Run) -> dict[str, Any]:
    """Stage 06: score the logits against labels, fp32 reference and expected figures; returns the content of `accuracy.json`.

    Batch sizes whose logits are ready are scored too: the page compares all of them.
    """
    facts = _score(run)
    for other in (run.at(size) for size in run.spec.batch_sizes if size != run.batch_size):
        if other.file("logits").exists() and records.problem(other, "infer", strict=False) is None:
            _score(other)
    return facts


def require_pass(run: Run) -> None:
    """Raise if the verdict of a scored batch size is `fail`, or the labels are wrong; call it last, when all is rendered.

    Raises:
        VerdictError: carries the `accuracy.json` of the batch sizes that failed.
    """
    scored = [run.at(size) for size in ([run.batch_size] if run.batch_size else run.spec.batch_sizes)]
    rows = [at.read("accuracy") for at in scored if records.problem(at, "score", strict=False) is None]
    failed = [row for row in rows if row["verdict"] == "fail"] or [row for row in rows if row.get("cause")]
    if failed:
        first = max(failed, key=lambda row: max(map(verdict.how_bad, row["checks"])))
        worst = verdict.sentence(max(first["checks"], key=verdict.how_bad))
        reason = first.get("cause") or f"{worst}; {verdict.of_run(rows)[1]}"
        raise VerdictError(f"accuracy of {run.spec.run} bs{first['batch_size']}: {first['verdict'].upper()}, {reason}", failed)


@makes("score", "accuracy")
def _score(run: Run) -> dict[str, Any]:
    valid = valid_classes(run)
    logits, reference_logits = (among(np.load(run.file(name)), valid) for name in ("logits", "reference"))
    names, labels = read_index(run)
    count, classes = logits.shape
    check_labels(run, names, labels, classes)
    ranks, reference_ranks = label_ranks(logits, labels), label_ranks(reference_logits, labels)
    difference = compare(reference_logits, logits)
    reference = {"name": REFERENCE, **_top(reference_ranks), "agreement_percent": difference["top1_agreement_percent"]}
    reference["max_abs_diff"] = difference["max_abs_diff"]
    own = {"name": OWN_REFERENCE, "source": "reference/logits.npy", "images": count}
    expected = expected_row(run) or own | {key: reference[key] for key in ("top1_percent", "top5_percent")}
    facts = {
        "batch_size": run.batch_size,
        "images": count,
        "classes": classes,
        "valid_classes": valid and len(valid),
        **_top(ranks),
        **{f"top{k}_ci95_percent": proportions.wilson_percent(int(np.sum(ranks < k)), count) for k in (1, 5)},
        "reference": reference,
        "paired": proportions.paired(ranks, reference_ranks),
        "paired_top5": proportions.paired(ranks, reference_ranks, 5),
        "real": _real(run, names, logits, reference_logits) if run.spec.real_labels else None,
        "max_drop_points": expected.pop("max_drop_points", MAX_DROP_POINTS),
        "expected": expected,
    }
    facts |= _checks(facts, run)
    cause = _cause(facts, int(np.sum(reference_ranks == 0)))
    files.write_text(run.file("result"), json.dumps(seed_result(facts)))
    with files.atomic(run.file("predictions")) as temporary:  # names as in `index.csv`, a bare carriage return quoted
        table = predictions(names, labels, logits, reference_logits, class_words(run))
        table.to_csv(temporary, index=False, errors="surrogateescape", lineterminator="\r\n")
    return facts | {
        "verdict": "inconclusive" if cause else verdict.worst(facts["checks"]),
        "cause": cause,
        "per_class": _per_class(logits, labels, reference_logits),
        "confusion": confusion(logits, labels).tolist() if classes <= FEW_CLASSES else None,
    }


def _per_class(logits: np.ndarray, labels: np.ndarray, reference: np.ndarray) -> list[dict[str, Any]]:
    rows = classification.per_class(logits, labels, reference)
    p_values = proportions.mcnemar_p(*([row[key] for row in rows] for key in ("gained", "lost")))
    return [row | {"p_value_holm": p} for row, p in zip(rows, proportions.holm(p_values.tolist()), strict=True)]


def _real(run: Run, names: list[str], logits: np.ndarray, reference_logits: np.ndarray) -> dict[str, Any]:
    """Acc@1 by the ReaL labels, of which any may be answered; images without one are left out, as its authors do."""
    right = real_labels(run, names)
    rated = [i for i, classes in enumerate(right) if classes]
    hits = [np.array([int(rows[i].argmax()) in right[i] for i in rated]) for rows in (logits, reference_logits)]
    top1, reference_top1 = (100 * float(np.mean(of_side)) for of_side in hits)
    return {
        "images": len(rated),
        "top1_percent": top1,
        "top1_ci95_percent": proportions.wilson_percent(int(hits[0].sum()), len(rated)),
        "reference_top1_percent": reference_top1,
        "expected_top1_percent": (expected_row(run) or {}).get("real_top1_percent"),
        "paired": proportions.paired(~hits[0], ~hits[1]),
    }


def _cause(facts: dict[str, Any], reference_hits: int) -> str | None:
    """Why nothing follows from the checks where the reference's own accuracy cannot be told from guessing; else None."""
    count, classes, agreement = facts["images"], facts["classes"], facts["reference"]["agreement_percent"]
    agrees = agreement >= 100 - MAX_DROP_POINTS
    certain = verdict.worst(facts["checks"]) == "fail" and not agrees
    if certain or not proportions.is_guessing(reference_hits, count, classes):
        return None
    guilty = verdict.NOT_THE_PORT if agrees else "the labels, and perhaps the port"
    right = f"{reference_hits} of {count} right, which cannot be told from guessing among {classes} classes"
    todo = "check labels, labels_format, class_order, preprocess, and that the checkpoint was trained for these classes"
    same = f"the port gives the same top-1 on {agreement:.2f} %"
    return f"{guilty}: the fp32 reference itself has {right}; {same}; {todo}"


def _top(ranks: np.ndarray) -> dict[str, float]:
    return {f"top{k}_percent": percent_within(ranks, k) for k in TOP}


def _checks(facts: dict[str, Any], run: Run) -> dict[str, Any]:
    """The checks of one batch size, the drop of the first, and how many tests the run makes of samples.

    It passes only if all pass, an intersection-union test whose error no number of tests raises (Berger 1982, Technometrics 24,
    295-300). One failure fails it, so each may err in 5 % / tests: the first step of Holm's correction, which alone says
    whether any fails, and it needs no look at the other batch sizes.
    """
    expected, reference, count = facts["expected"], facts["reference"], facts["images"]
    # The published figures are of all 50,000 images: on those, and on the demo's own, there is nothing left to chance.
    published, same_images = run.spec.expected is not None, expected.get("images") == count
    figures = [k for k in (1, 5) if published and expected[f"top{k}_percent"] is not None]  # ReaL and others have no Acc@5
    tests = (2 + (0 if same_images else len(figures))) * len(run.spec.batch_sizes)
    checks, level, most = list[dict[str, Any]](), proportions.LEVEL / tests, expected.get("images") or VALIDATION_IMAGES
    for k, pairs in ((1, facts["paired"]), (5, facts["paired_top5"])):
        key = f"top{k}_percent"
        row = {"metric": f"Acc@{k}", "percent": facts[key], "max_drop_points": facts["max_drop_points"]}
        if k in figures:
            figure = row | {"expected_percent": expected[key], "of": expected["name"]}
            sampled = None if same_images else verdict.against_published(figure, most, count, level)
            checks.append(sampled or verdict.check(figure, verdict.SAME_IMAGES))
        own = row | {"expected_percent": reference[key], "of": OWN_REFERENCE}
        checks.append(verdict.against_reference(own, pairs, count, level))
    if not published:  # accuracies may agree by chance, above all low ones: the answers themselves must agree
        row = {"metric": verdict.AGREEMENT, "percent": reference["agreement_percent"], "max_drop_points": MAX_DROP_POINTS}
        checks.append(verdict.check(row | {"expected_percent": 100.0, "of": reference["name"]}, verdict.AGREEMENT))
    return {"drop_points": checks[0]["drop_points"], "checks": checks, "tests": tests}


def seed_result(facts: dict[str, Any]) -> dict[str, Any]:
    """The recipe's `result.json`, of facts of `accuracy.json`: its keys, order and spelling (imagenet_acc_eval.py of ModelZoo's
    Deit_Small). As there, the accuracies end at that of as many answers as there are classes."""
    value = [{"key": f"Number of {key}", "value": str(facts[key])} for key in ("images", "classes")]
    tops = [k for k in TOP if k <= facts["classes"]]
    value += [{"key": f"Top{k} accuracy", "value": f"{round(facts[f'top{k}_percent'], 2)}%"} for k in tops]
    return {"title": "Overall statistical evaluation", "value": value}
