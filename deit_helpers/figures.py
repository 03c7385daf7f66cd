"""Every chart of the notebooks and the report. One style; a colour means one family or one rate everywhere."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import accuracy, labels, overview, tables
from .artifacts import Run
from .display import Banner, Chart, Table, device_text, in_flight_text
from .profile import FAMILIES, NAMED_FIRST

# Okabe and Ito's palette: told apart by colour-blind readers; every bar also carries its name and value.
FAMILY_COLOURS = dict(
    zip(
        FAMILIES,
        ("#D55E00", "#CC79A7", "#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#999999", "#CCCCCC"),
        strict=True,
    )
)
PURE, END_TO_END = "#0072B2", "#D55E00"
FEW_CLASSES = 20  # up to so many, every class gets a bar and the confusion matrix is readable
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
}
_WIDTH_IN = 5.4  # with 10 pt text still readable when scaled to a phone


def latency(run: Run) -> Chart | Banner:
    """Histogram of the latencies of one batch size with p50 and p90."""
    perf = run.read("perf")
    numbers = perf["latency_ms"]
    samples = pd.read_csv(run.file("latency"))["latency_ms"]
    if samples.empty:
        return Banner("note", "No distribution.", "The imported file has the mean only.")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, 2.6))
        axes = figure.subplots()
        axes.hist(samples, bins=min(40, max(5, len(samples) // 4)), color=PURE)
        axes.margins(y=0.25)  # above the bars the labels are readable, one below the other
        for name, style, height in (("p50", "-", 1.0), ("p90", "--", 0.9)):
            axes.axvline(numbers[name], color="black", linestyle=style, linewidth=1)
            at = numbers[name], height
            axes.annotate(f" {name} {numbers[name]:.1f}", at, xycoords=("data", "axes fraction"), va="top")
        axes.set(xlabel=f"ms per batch of {perf['batch_size']}", ylabel="batches")
    text = f"{numbers['n']} batches: median {numbers['p50']:.2f} ms, 90 % below {numbers['p90']:.2f} ms"
    where = f"{perf['backend']} on {perf['device']}"
    caption = f"Latency of the model call{in_flight_text(perf)}, {where}, {numbers['n']} batches of {perf['batch_size']}"
    return Chart(figure, caption, text)


def throughput(run: Run) -> Chart | Banner:
    """Images per second against batch size: the model call alone, and end to end."""
    rows = {size: row for size, row in overview.per_batch(run, "infer", "infer").items() if not isinstance(row, str)}
    if not rows:
        return Banner("note", "Not measured yet.", "Run notebooks/05_infer.ipynb, or `deit-report run`.")
    series = {  # a rate that a vendor's file does not give is NaN: not drawn
        "model call alone": ([row["interface_images_per_s"] for row in rows.values()], PURE, "-", "o"),
        "end to end": ([float(row["e2e_images_per_s"] or "nan") for row in rows.values()], END_TO_END, "--", "s"),
    }
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, 3.0))
        axes = figure.subplots()
        for name, (rates, colour, line, marker) in series.items():
            axes.plot(range(len(rows)), rates, color=colour, linestyle=line, marker=marker, label=name)
        axes.set(xlabel="batch size", ylabel="images/s", xticks=range(len(rows)), xticklabels=list(rows))
        axes.set_ylim(0, 1.1 * axes.dataLim.ymax)  # markers whole
        axes.legend(frameon=False, loc="lower left")
    alone, whole = (rates for rates, *_ in series.values())
    ends = ["" if np.isnan(rate) else f", {rate:.1f} end to end" for rate in whole]
    text = "; ".join(f"bs{n}: {a:.1f} alone{e}" for n, a, e in zip(rows, alone, ends, strict=True))
    runtimes = sorted({f"{row['runtime']['backend']} on {row['runtime']['device']}" for row in rows.values()})
    return Chart(figure, f"Images per second by batch size, {', '.join(runtimes)}, {run.spec.source} to logits", text)


def families(run: Run) -> Chart | Banner:
    """Share of operator time by Ascend family, for the batch sizes that were profiled; the named three on top."""
    found = {size: perf for size, perf in overview.per_batch(run, "perf", "perf").items() if not isinstance(perf, str)}
    if run.batch_size:
        found = {size: row for size, row in found.items() if size == run.batch_size}
    rows = {size: row for size, row in found.items() if row["families"]}
    if not rows:
        why = next((row["profile_reason"] for row in found.values()), "run notebooks/07_perf.ipynb, or `deit-report run`")
        return Banner("note", "Not profiled." if found else "Not profiled yet.", f"{why[0].upper()}{why[1:]}.")
    shares = {size: {name: row["families"][name]["share_percent"] for name in FAMILIES} for size, row in rows.items()}
    height = 0.8 / len(rows)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, 1.2 + 0.34 * len(FAMILIES) * max(1, 0.6 * len(rows))))
        axes = figure.subplots()
        for i, (size, values) in enumerate(shares.items()):
            places = np.arange(len(FAMILIES)) + (i - (len(rows) - 1) / 2) * height
            bars = axes.barh(places, list(values.values()), height * 0.9, color=[FAMILY_COLOURS[f] for f in FAMILIES])
            tag = f" bs{size}" if len(rows) > 1 else ""
            axes.bar_label(bars, [f"{v:.1f} %{tag}" for v in values.values()], padding=3, fontsize=9)
        axes.set(yticks=range(len(FAMILIES)), yticklabels=FAMILIES, xlabel="share of operator time, %")
        axes.invert_yaxis()
        axes.set_xlim(0, 1.25 * max(max(values.values()) for values in shares.values()))
        for label in axes.get_yticklabels()[: len(NAMED_FIRST)]:
            label.set_fontweight("bold")
    first = next(iter(rows.values()))
    text = "; ".join(f"bs{n}: " + ", ".join(f"{f} {v[f]:.1f} %" for f in FAMILIES) for n, v in shares.items())
    batches = ", ".join(f"bs{size}: {row['profiled_batches']}" for size, row in rows.items())
    caption = (
        f"Operator time measured on {device_text(first['runtime'])}, profiled batches {batches}; the names are Ascend's for "
        "the counterpart work"
    )
    return Chart(figure, caption, text)


def attention_block(run: Run) -> Chart | Banner:
    """The first attention before and after the edits, drawn from the graph: operators, shapes, what is out of alignment."""
    blocks = run.read("optimize")["block"]
    sides = {name: nodes for name, nodes in blocks.items() if nodes and (name == "before" or nodes != blocks["before"])}
    if not sides or any(x > 2 for nodes in sides.values() for x, _ in _places(nodes)):
        return Banner("note", "No picture.", "No attention of the usual form with static shapes was found in this graph.")
    depth = max(y for nodes in sides.values() for _, y in _places(nodes)) + 1
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN * (1.3 if len(sides) > 1 else 0.8), 0.5 + 0.46 * depth))
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


def classes(run: Run) -> Chart:
    """Acc@1 of every class when they are few, otherwise how the classes' Acc@1 are distributed."""
    rows = run.read("accuracy")["per_class"]
    shares = [row["top1_percent"] for row in rows]
    words = labels.class_words(run)
    names = [words.get(row["class"], str(row["class"])) for row in rows]
    few = len(rows) <= FEW_CLASSES
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, 0.8 + 0.26 * len(rows) if few else 2.6))
        axes = figure.subplots()
        if few:
            bars = axes.barh(range(len(rows)), shares, color=PURE)
            axes.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=3)
            axes.set(yticks=range(len(rows)), yticklabels=names, xlabel="Acc@1, %", xlim=(0, 112))
            axes.invert_yaxis()
        else:
            axes.hist(shares, bins=list(range(0, 105, 5)), color=PURE)
            axes.set(xlabel="Acc@1 of a class, %", ylabel="classes")
    weakest = int(np.argmin(shares))
    text = f"{len(rows)} classes, from {min(shares):.0f} % (class {names[weakest]}) to {max(shares):.0f} %"
    return Chart(figure, f"Acc@1 by class, bs{run.batch_size}", text)


def confusion(run: Run) -> Chart | Table:
    """Which class is taken for which; a table of the weakest classes when there are too many to draw."""
    logits = np.load(run.file("logits"), mmap_mode="r")
    if logits.shape[1] > FEW_CLASSES:
        return tables.classes(run)
    _, targets = labels.read_index(run)
    counts = accuracy.confusion(np.asarray(logits), targets)
    words = labels.class_words(run)
    names = [words.get(i, str(i)) for i in range(len(counts))]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, 0.9 + 0.36 * len(counts)))
        axes = figure.subplots()
        axes.imshow(counts, cmap="Blues", aspect="auto", vmax=max(1, counts.max()))
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if count > counts.max() / 2 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
        axes.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="answer", ylabel="label")
        axes.set_xticklabels(names, rotation=0 if max(map(len, names)) < 4 else 90)
        axes.set_yticklabels(names)
    wrong = counts - np.diag(np.diag(counts))
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    text = f"{np.trace(counts)} of {counts.sum()} right; most often {names[row]} taken for {names[column]}, {wrong.max()} times"
    return Chart(figure, f"Images by label and top-1 answer, bs{run.batch_size}", text)
