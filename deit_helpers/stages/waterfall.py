"""waterfall: one change after the other on the same images, and what each of them cost (`waterfall.json`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.sources import read_index
from ..errors import SpecError
from ..evidence import rungs
from ..metrics import proportions
from ..metrics.classification import label_ranks, percent_within
from ..run import hashing
from ..run.expected import expected_row
from ..run.folder import Run
from ..run.records import makes

SIGNIFICANT = 0.05  # of the corrected p-value
_QUOTED = ("name", "source", "images", "top1_percent", "top5_percent")
_FIGURES = ("images", "top1_percent", "top5_percent", "gained", "lost", "difference_points", "difference_ci95_points",
            "p_value", "p_value_holm", "significant", "logits_sha256")  # fmt: skip


def waterfall(run: Run) -> dict[str, Any]:
    """Make the rungs that the spec's `waterfall` names; returns the content of `waterfall.json`.

    Raises:
        SpecError: the spec names none.
    """
    if not run.spec.waterfall:
        raise SpecError("waterfall: the spec names no rungs: give a list such as [timm, deit, onnx, simplified, device]")
    return _waterfall(run)


@makes("waterfall")
def _waterfall(run: Run) -> dict[str, Any]:
    _, labels = read_index(run)
    rows, ranks = list[dict[str, Any]](), list[np.ndarray]()
    for rung in rungs.climb(run):
        row = {**dict.fromkeys(_FIGURES), **rung._asdict(), "state": rung.state.facts(), "reused": False}
        if rung.logits:
            ranks.append(label_ranks(np.load(rung.logits, mmap_mode="r"), labels))
            row |= {"images": len(labels), **{f"top{k}_percent": percent_within(ranks[-1], k) for k in (1, 5)}}
            row |= {"logits": run.relative(rung.logits), "logits_sha256": hashing.sha256(rung.logits)}
            row |= {"reused": rung.seconds is None, **(_change(*ranks[-2:]) if len(ranks) > 1 else {})}
        rows.append(row)
    tested = [row for row in rows if row["p_value"] is not None]
    for row, p_value in zip(tested, proportions.holm([row["p_value"] for row in tested]), strict=True):
        row.update(p_value_holm=p_value, significant=p_value < SIGNIFICANT)
    published = expected_row(run)
    return {
        "batch_size": run.batch_size,
        "images": len(labels),
        "published": published and {key: published.get(key) for key in _QUOTED},
        "rungs": rows,
        "all_changes": _change(ranks[0], ranks[-1]) if tested else None,
    }


def _change(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    pairs = proportions.paired(after, before)
    counts = {"gained": pairs["only_this_right"], "lost": pairs["only_reference_right"]}
    return counts | {key: pairs[key] for key in ("difference_points", "difference_ci95_points", "p_value")}
