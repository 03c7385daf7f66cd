"""What 02 shows of a graph: operators, certificates, alignment. The picture of a block is in `figures.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .artifacts import Run
from .display import Banner, Cell, Table, from_records

MOST_KINDS = 8  # of operators an edit may name before they are only counted


def operators(run: Run) -> Table:
    """Operators of the exported, the simplified and the edited graph; those the symbolic batch needed are gone."""
    optimize = run.read("optimize")
    steps = {"exported": "operators_before", "simplified": "operators_simplified", "after the edits": "operators_after"}
    if not run.spec.edits:
        del steps["after the edits"]
    counts = {name: optimize[key] for name, key in steps.items()}
    kinds = sorted({op for row in counts.values() for op in row})
    rows: list[list[Cell]] = [[op, *(row.get(op, 0) for row in counts.values())] for op in kinds]
    rows.append(["all", *(sum(row.values()) for row in counts.values())])
    shape = "×".join(map(str, optimize["input_shape"]))
    return Table(f"Operators by step, bs{run.batch_size}, input {shape} {optimize['input_dtype']}", ("operator", *counts), rows)


def edits(run: Run) -> Table:
    """What each edit does, what it claims, and what it changed in the graph."""
    rows = run.read("optimize")["edits"]
    shown = []
    for row in rows:
        inputs = dict.fromkeys(_interface(row[f"interface_{side}"]["input"]) for side in ("before", "after"))
        claims = "the same function" if row["declared_exact"] else "NOT the same function"
        shown.append({**row, "claims": claims, "input": " → ".join(inputs), "operators": operators_changed(row)})
    return from_records(
        f"The edits in order, bs{run.batch_size}; what goes in before and after, and the operators that came and went",
        shown,
        {"name": "edit", "purpose": "what it does", "claims": "claims", "input": "input", "operators": "operators"},
    )


def _interface(value: dict[str, Any]) -> str:
    return f"{'×'.join(str(side or 'batch') for side in value['shape'])} {value['dtype']}"


def certificates(run: Run) -> Table:
    """One row per edit and one for the chain of all; a row that is not equal is marked as an alarm."""
    optimize = run.read("optimize")
    rows = [_certificate(row) for row in (*optimize["edits"], optimize["chain"])]
    return from_records(
        f"Certificates, bs{run.batch_size}: logits before against after each edit and through the whole chain; spread is "
        "how much the images move a logit; ms per batch are medians of so many runs before / after on ONNX Runtime, CPU, "
        "and tell nothing about a device",
        rows,
        {
            "name": "edit",
            "verdict": "verdict",
            "max_abs_diff": "max abs diff",
            "relative_diff": "diff / spread",
            "top1_agreement": "same top-1 %",
            "images": "tensors",
            "tokens": "tokens per softmax",
            "ms_before": "ms before",
            "ms_after": "ms after",
            "runs": "runs",
        },
        {"max_abs_diff": ".1e", "relative_diff": ".1e", "top1_agreement": ".2f", "ms_before": ".1f", "ms_after": ".1f"},
        alarm=frozenset(i for i, row in enumerate(rows) if row["verdict"] == "not equal"),
    )


def verdict(row: dict[str, Any]) -> str:
    """The verdict of a certificate in words, or why the edit was not applied."""
    return row["verdict"] if row["applied"] else f"not applied: {row['reason']}"


def operators_changed(row: dict[str, Any]) -> str:
    """Operators an edit added and removed, such as `+12 Add −12 Mul`; many kinds are only counted."""
    added, removed = row["operators_added"], row["operators_removed"]
    if len(added) + len(removed) > MOST_KINDS:
        return f"+{sum(added.values())} −{sum(removed.values())}, {len(added) + len(removed)} kinds"
    changes = [f"{sign}{n} {op}" for sign, counts in (("+", added), ("−", removed)) for op, n in sorted(counts.items())]
    return " ".join(changes) or "none"


def _certificate(row: dict[str, Any]) -> dict[str, Any]:
    tokens = [", ".join(map(str, row[f"softmax_tokens_{side}"])) for side in ("before", "after")]
    return {
        **row,
        "verdict": verdict(row),
        "tokens": " → ".join(dict.fromkeys(filter(None, tokens))) or None,
        "runs": f"{len(row['batch_ms_before'])} / {len(row['batch_ms_after'])}",
        "ms_before": float(np.median(row["batch_ms_before"])),
        "ms_after": float(np.median(row["batch_ms_after"])),
    }


def probes(run: Run) -> Table:
    """Largest difference of a logit by edit and kind of image."""
    optimize = run.read("optimize")
    rows = [*optimize["edits"], optimize["chain"]]
    found = [{probe["kind"]: probe["max_abs_diff"] for probe in row["probes"]} for row in rows]
    kinds = list(dict.fromkeys(kind for row in found for kind in row))
    counts = {probe["kind"]: probe["images"] for row in rows for probe in row["probes"]}
    return Table(
        f"Largest difference of a logit by kind of image, bs{run.batch_size}; – where an 8-bit input cannot hold the image",
        ("edit", *(f"{kind} ({counts[kind]})" for kind in kinds)),
        [[row["name"], *(differences.get(kind) for kind in kinds)] for row, differences in zip(rows, found, strict=True)],
        {f"{kind} ({counts[kind]})": ".1e" for kind in kinds},
    )


def inexact(run: Run) -> Banner:
    """Whether the graph that goes on to the device is still the same function."""
    optimize = run.read("optimize")
    chain = optimize["chain"]
    if names := optimize["inexact_edits"]:
        text = f"{', '.join(names)} changes what the model computes: logits move by up to {chain['max_abs_diff']:.2g}, "
        return Banner(
            "fail", "Not the same function.", f"{text}{chain['top1_agreement']:.0f} % of the probes keep their top-1."
        )
    text = f"Largest difference from the exported graph {chain['max_abs_diff']:.1e} on {chain['images']} tensors."
    return Banner("pass", "Still the same function.", f"{text} Verdict of the chain: {chain['verdict']}.")


def alignment(run: Run) -> Table:
    """Matrices by operator and shape, before and after the edits, and how they fit blocks of 16 × 16."""
    sides = {name: run.read("optimize")["alignment"][name] for name in ("before", "after")}
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, side in sides.items():
        for row in side["matrices"]:
            key = (row["operator"], row["operand"], row["rows"], row["columns"])
            merged.setdefault(key, {**row, "before": 0, "after": 0})[name] += row["count"]
    rows = [
        {**row, "matrix": f"{row['rows']}×{row['columns']}", "padded": f"{row['padded_rows']}×{row['padded_columns']}"}
        for row in sorted(merged.values(), key=lambda row: (row["operator"], row["operand"]))
    ]
    before, after = (sides[name]["broken_runs"] for name in ("before", "after"))
    counted = f"{before} tensors break an aligned run before the edits, {after} after: there ATC would insert TransData"
    if before is None:
        counted = "broken runs are not counted: the graph could not be simplified, its shapes are symbolic"
    return from_records(
        "A model, not a measurement: matrices against the 16×16 blocks of FRACTAL_NZ. Inside the blocks of the network "
        + counted,
        rows,
        {
            "operator": "operator",
            "operand": "operand",
            "matrix": "matrix",
            "padded": "in blocks",
            "waste_percent": "wasted %",
            "before": "places before",
            "after": "places after",
        },
        {"waste_percent": ".2f"},
    )
