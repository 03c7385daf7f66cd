"""What 02 shows of a graph: operators, certificates, alignment. The picture of a block is in `figures.py`."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..run.folder import Run
from ..run.records import per_batch
from .elements import Banner, Cell, Chart, Table, from_records
from .notes import notes as notes
from .style import END_TO_END, PURE, STYLE, WIDTH_IN


def graphs(run: Run) -> Table:
    """One row per batch size and edit: the certificate, and the operators it added and removed."""
    columns = ["batch size", "edit", "verdict", "max abs diff", "same top-1 %", "nodes", "operators"]
    rows: list[list[Cell]] = []
    alarm = set()
    for size, optimize in per_batch(run, "optimize", "optimize").items():
        if isinstance(optimize, str):
            rows.append([size, None, optimize, *[None] * 4])
            continue
        for row in (*optimize["edits"], *([optimize["chain"]] if run.spec.edits else [])):
            if row["verdict"] == "not equal":
                alarm.add(len(rows))
            nodes = f"{row['nodes_before']} → {row['nodes_after']}"
            numbers = [row["max_abs_diff"], row["top1_agreement"], nodes, operators_changed(row)]
            rows.append([size, row["name"], verdict(row), *numbers])
    caption = "Static graphs: each edit certified against the graph before it, on real crops, noise and hostile images"
    return Table(caption, columns, rows, {"max abs diff": ".1e", "same top-1 %": ".2f"}, alarm=frozenset(alarm))


def attention_block(run: Run) -> Chart | Banner:
    """The first attention before and after the edits, drawn from the graph: operators, shapes, what is out of alignment."""
    blocks = run.read("optimize")["block"]
    sides = {name: nodes for name, nodes in blocks.items() if nodes and (name == "before" or nodes != blocks["before"])}
    if not sides or any(x > 2 for nodes in sides.values() for x, _ in _places(nodes)):
        return Banner("note", "No picture.", "No attention of the usual form with static shapes was found in this graph.")
    depth = max(y for nodes in sides.values() for _, y in _places(nodes)) + 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN * (1.3 if len(sides) > 1 else 0.8), 0.5 + 0.46 * depth))
        for axes, (name, nodes) in zip(np.atleast_1d(figure.subplots(1, len(sides))), sides.items(), strict=True):
            _draw_block(axes, nodes)
            axes.set_title(f"{name} the edits" if len(sides) > 1 else "no edits", fontsize=10)
            axes.set(xlim=(-0.6, 2.6), ylim=(depth - 0.4, -0.6))
            axes.axis("off")
    text = "; ".join(
        f"{name}: {' → '.join(node['op_type'] for node in nodes)}, results out of alignment: "
        + (", ".join(node["op_type"] for node in nodes if node["aligned"] is False) or "none")
        for name, nodes in sides.items()
    )
    caption = "The first attention block, operators and the last two dimensions of their results"
    key = "blue: multiples of 16; orange, dashed: not; grey: layout work, which has no blocks of its own"
    return Chart(figure, f"{caption}, bs{run.batch_size}; {key}", text)


def _places(nodes: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Column and row of every node: 0, 1, 2 for queries, keys and values, 1 elsewhere; rows by longest path."""
    row: dict[str, int] = {}
    column: dict[str, int] = {}
    places: list[tuple[int, int]] = []
    for node in nodes:
        y = 1 + max((row[name] for name in node["inputs"] if name in row), default=-1)
        above = [column[name] for name in node["inputs"] if name in column]
        wanted = above[0] if len(above) == 1 else 1
        x = next(x for x in sorted(range(9), key=lambda x: (x > 2, abs(x - wanted))) if (x, y) not in places)
        places.append((x, y))
        fan = [0, 1, 2] if len(node["outputs"]) == 3 else [x] * len(node["outputs"])
        row.update(dict.fromkeys(node["outputs"], y))
        column.update(zip(node["outputs"], fan, strict=True))
    return places


def _draw_block(axes: Any, nodes: list[dict[str, Any]]) -> None:
    at: dict[str, tuple[int, int]] = {}
    for node, (x, y) in zip(nodes, _places(nodes), strict=True):
        for name in node["inputs"]:
            if name in at:  # down its own column first, so that no line passes behind a box that is not its own
                x0, y0 = at[name]
                axes.plot([x0, x0, x], [y0, max(y0, y - 0.75), y], color="#999999", linewidth=0.8, zorder=0)
        colour, line = {True: (PURE, "-"), False: (END_TO_END, "--"), None: ("#999999", "-")}[node["aligned"]]
        box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": colour, "linestyle": line}
        label = f"{node['op_type']}\n{'×'.join(map(str, node['shape'][-2:]))}"
        axes.text(x, y, label, ha="center", va="center", fontsize=7, linespacing=0.95, bbox=box)
        at.update(dict.fromkeys(node["outputs"], (x, y)))


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
