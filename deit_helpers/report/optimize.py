"""What 02 shows of a graph: operators, edits, certificates, alignment, a picture of the first attention block."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ..run.folder import Run
from ..run.records import per_batch
from .elements import Banner, Cell, Chart, Table
from .style import END_TO_END, NEUTRAL, PAPER, PURE, WIDTH_IN, new_figure
from .words import notes as notes

MOST_KINDS = 8  # of operators an edit may name before they are only counted
SIDES = ("before", "after")


def operators(run: Run) -> Table:
    """Operators of the exported, the simplified and the edited graph; those the symbolic batch needed are gone."""
    optimize = run.read("optimize")
    counts = {"exported": optimize["operators_before"], "simplified": optimize["operators_simplified"]}
    if run.spec.edits:
        counts["after the edits"] = optimize["operators_after"]
    kinds = sorted({kind for row in counts.values() for kind in row})
    rows: list[list[Cell]] = [[kind, *(row.get(kind, 0) for row in counts.values())] for kind in kinds]
    rows.append(["all", *(sum(row.values()) for row in counts.values())])
    shape = "×".join(map(str, optimize["input_shape"]))
    return Table(
        f"Operators by step, bs{run.batch_size}, input {shape} {optimize['input_dtype']}",
        " | ".join(["operator", *counts]),
        rows,
    )


def edits(run: Run) -> Table:
    """What each edit does, what it claims, and what it changed in the graph."""
    rows: list[list[Cell]] = []
    for row in run.read("optimize")["edits"]:
        claim = "the same function" if row["declared_exact"] else "NOT the same function"
        inputs = (row[f"interface_{side}"]["input"] for side in SIDES)
        fed = _change(*(f"{'×'.join(str(side or 'batch') for side in image['shape'])} {image['dtype']}" for image in inputs))
        rows.append([row["name"], row["purpose"], claim, fed, operators_changed(row)])
    return Table(
        f"The edits in order, bs{run.batch_size}; what goes in before and after, and the operators that came and went",
        "edit | what it does | claims | input | operators",
        rows,
    )


def _change(before: str, after: str) -> str:
    return " → ".join(dict.fromkeys(filter(None, (before, after))))


def operators_changed(row: dict[str, Any]) -> str:
    """Operators an edit added and removed, such as `+12 Add −12 Mul`; many kinds are only counted."""
    added, removed = row["operators_added"], row["operators_removed"]
    if len(added) + len(removed) > MOST_KINDS:
        return f"+{sum(added.values())} −{sum(removed.values())}, {len(added) + len(removed)} kinds"
    changes = [f"{sign}{n} {kind}" for sign, counts in (("+", added), ("−", removed)) for kind, n in sorted(counts.items())]
    return " ".join(changes) or "none"


def certificates(run: Run) -> Table:
    """One row per edit and one for the chain of all; a row that is not equal is marked as an alarm."""
    optimize = run.read("optimize")
    rows: list[list[Cell]] = []
    for row in [*optimize["edits"], optimize["chain"]]:
        numbers = [row[key] for key in ("max_abs_diff", "relative_diff", "top1_agreement", "images")]
        tokens = _change(*(", ".join(map(str, row[f"softmax_tokens_{side}"])) for side in SIDES))
        before, after = (row[f"batch_ms_{side}"] for side in SIDES)
        timings: list[Cell] = [float(np.median(before)), float(np.median(after)), f"{len(before)} / {len(after)}"]
        rows.append([row["name"], _outcome(row), *numbers, tokens or None, *timings])
    return Table(
        f"Certificates, bs{run.batch_size}: logits before against after each edit and through the whole chain; spread is "
        "how much the images move a logit; ms per batch are medians of so many runs before / after on ONNX Runtime, CPU, "
        "and tell nothing about a device",
        "edit | verdict | max abs diff:.1e | diff / spread:.1e | same top-1 %:.2f | tensors | tokens per softmax "
        "| ms before:.1f | ms after:.1f | runs",
        rows,
        alarm=frozenset(i for i, row in enumerate(rows) if "not equal" in row),
    )


def _outcome(row: dict[str, Any]) -> str:
    """The verdict of a certificate, or why the edit was not applied."""
    return row["verdict"] if row["applied"] else f"not applied: {row['reason']}"


def probes(run: Run) -> Table:
    """Largest difference of a logit by edit and kind of image."""
    optimize = run.read("optimize")
    certified = [*optimize["edits"], optimize["chain"]]
    images = {probe["kind"]: probe["images"] for row in certified for probe in row["probes"]}
    rows = []
    for row in certified:
        differences = {probe["kind"]: probe["max_abs_diff"] for probe in row["probes"]}
        rows.append([row["name"], *(differences.get(kind) for kind in images)])
    return Table(
        f"Largest difference of a logit by kind of image, bs{run.batch_size}; – where an 8-bit input cannot hold the image",
        " | ".join(["edit", *(f"{kind} ({count}):.1e" for kind, count in images.items())]),
        rows,
    )


def alignment(run: Run) -> Table:
    """Matrices by operator and shape, before and after the edits, and how they fit blocks of 16 × 16."""
    sides = run.read("optimize")["alignment"]
    places = {side: Counter[tuple[Any, ...]]() for side in SIDES}
    for side in SIDES:
        for row in sides[side]["matrices"]:
            matrix, blocks = f"{row['rows']}×{row['columns']}", f"{row['padded_rows']}×{row['padded_columns']}"
            places[side][row["operator"], row["operand"], matrix, blocks, row["waste_percent"]] += row["count"]
    matrices = sorted(places["before"] | places["after"], key=lambda matrix: matrix[:2])
    rows: list[list[Cell]] = [[*matrix, *(places[side][matrix] for side in SIDES)] for matrix in matrices]
    before, after = (sides[side]["broken_runs"] for side in SIDES)
    counted = f"{before} tensors break an aligned run before the edits, {after} after: there ATC would insert TransData"
    if before is None:
        counted = "broken runs are not counted: the graph could not be simplified, its shapes are symbolic"
    return Table(
        "A model, not a measurement: matrices against the 16×16 blocks of FRACTAL_NZ. Inside the blocks of the network "
        + counted,
        "operator | operand | matrix | in blocks | wasted %:.2f | places before | places after",
        rows,
    )


def attention_block(run: Run) -> Chart | Banner:
    """The first attention before and after the edits, drawn from the graph: operators, shapes, what is out of alignment."""
    blocks = run.read("optimize")["block"]
    sides = {name: nodes for name, nodes in blocks.items() if nodes and (name == "before" or nodes != blocks["before"])}
    if not sides:
        return Banner("note", "No picture.", "No attention of the usual form with static shapes was found in this graph.")
    rows = {name: _rows(nodes) for name, nodes in sides.items()}
    depth = max(map(len, rows.values()))
    with new_figure(0.5 + 0.46 * depth, WIDTH_IN * (1.3 if len(sides) > 1 else 0.8), len(sides)) as (figure, columns):
        for axes, name in zip(np.atleast_1d(columns), sides, strict=True):
            _draw_block(axes, rows[name])
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


def _rows(nodes: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The operators from top to bottom, each in the row below all that it reads."""
    row_of: dict[str, int] = {}  # of the operator that makes a result
    rows: dict[int, list[dict[str, Any]]] = {}
    for node in nodes:
        row = 1 + max((row_of[name] for name in node["inputs"] if name in row_of), default=-1)
        row_of.update(dict.fromkeys(node["outputs"], row))
        rows.setdefault(row, []).append(node)
    return list(rows.values())


def _draw_block(axes: Any, rows: list[list[dict[str, Any]]]) -> None:
    maker: dict[str, tuple[int, int]] = {}  # where the node stands that made a result
    for y, row in enumerate(rows):
        for x, node in enumerate(row, 0 if len(row) > 1 else 1):  # queries, keys and values side by side
            for x0, y0 in (maker[name] for name in node["inputs"] if name in maker):
                # Down its own column first, so that no line passes behind a box that is not its own.
                axes.plot([x0, x0, x], [y0, max(y0, y - 0.75), y], color=NEUTRAL, linewidth=0.8, zorder=0)
            colour, line = {True: (PURE, "-"), False: (END_TO_END, "--"), None: (NEUTRAL, "-")}[node["aligned"]]
            box = {"boxstyle": "round,pad=0.25", "facecolor": PAPER, "edgecolor": colour, "linestyle": line}
            label = f"{node['op_type']}\n{'×'.join(map(str, node['shape'][-2:]))}"
            axes.text(x, y, label, ha="center", va="center", fontsize=7, linespacing=0.95, bbox=box)
            maker.update(dict.fromkeys(node["outputs"], (x, y)))


def inexact(run: Run) -> Banner:
    """Whether the graph that goes on to the device is still the same function."""
    optimize = run.read("optimize")
    chain, names = optimize["chain"], ", ".join(optimize["inexact_edits"])
    if names:
        moved = f"{names} changes what the model computes: logits move by up to {chain['max_abs_diff']:.2g}"
        text = f"{moved}, {chain['top1_agreement']:.0f} % of the probes keep their top-1."
        return Banner("fail", "Not the same function.", text)
    text = f"Largest difference from the exported graph {chain['max_abs_diff']:.1e} on {chain['images']} tensors."
    return Banner("pass", "Still the same function.", f"{text} Verdict of the chain: {chain['verdict']}.")


def graphs(run: Run) -> Table:
    """One row per batch size and edit: the certificate, and the operators it added and removed."""
    rows: list[list[Cell]] = []
    for size, optimize in per_batch(run, "optimize", "optimize").items():
        if isinstance(optimize, str):
            rows.append([size, None, optimize, None, None, None, None])
            continue
        for row in [*optimize["edits"], *([optimize["chain"]] if run.spec.edits else [])]:
            nodes = f"{row['nodes_before']} → {row['nodes_after']}"
            numbers = [row["max_abs_diff"], row["top1_agreement"], nodes, operators_changed(row)]
            rows.append([size, row["name"], _outcome(row), *numbers])
    return Table(
        "Static graphs: each edit certified against the graph before it, on real crops, noise and hostile images",
        "batch size | edit | verdict | max abs diff:.1e | same top-1 %:.2f | nodes | operators",
        rows,
        alarm=frozenset(i for i, row in enumerate(rows) if "not equal" in row),
    )
