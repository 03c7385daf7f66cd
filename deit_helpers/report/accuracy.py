"""What 06 shows: accuracy of every batch size, the comparison with the reference, classes, the verdict."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..data import sources
from ..files import read_json
from ..metrics import classification
from ..metrics.classification import TOP
from ..metrics.verdict import sentence
from ..run.folder import Run
from ..run.records import per_batch
from .elements import Banner, Chart, Facts, Table, from_records
from .notes import notes as notes
from .style import PURE, STYLE, WIDTH_IN

WEAKEST = 20  # so many classes are listed


def paired(run: Run) -> Facts:
    row = run.read("accuracy")
    low, high = row["paired"]["difference_ci95_points"]
    return Facts(
        f"bs{row['batch_size']} against {row['reference']['name']}, image by image",
        {
            "same top-1 %": f"{row['reference']['agreement_percent']:.2f}",
            "only this run right": row["paired"]["only_this_right"],
            "only the reference right": row["paired"]["only_reference_right"],
            "Acc@1 above the reference, points": f"{row['paired']['difference_points']:+.2f} ({low:+.2f} to {high:+.2f}, 95 %)",
            "McNemar's exact p": f"{row['paired']['p_value']:.3g}",
            "largest difference of a logit": f"{row['reference']['max_abs_diff']:.2g}",
        },
    )


def weakest_classes(run: Run) -> Table:
    """The classes with the lowest Acc@1."""
    words = sources.class_words(run)

    def name(index: int | None) -> str | None:
        return None if index is None else words.get(index, str(index))

    every = run.read("accuracy")["per_class"]
    worst = sorted(every, key=lambda row: (row["top1_percent"], row["class"]))[:WEAKEST]
    rows = [[name(r["class"]), r["images"], r["top1_percent"], name(r["mistaken_for"])] for r in worst]
    columns = ("class", "images", "Acc@1", "most often mistaken for")
    return Table(f"The {len(rows)} weakest of {len(every)} classes, bs{run.batch_size}", columns, rows, {"Acc@1": ".1f"})


def accuracy(run: Run) -> Table:
    """Acc@1 to Acc@5 of every batch size that was scored, then the reference, then the expected figures (quoted)."""
    columns = {"model": "model", "batch_size": "batch size", "images": "images"}
    shares = {f"top{k}_percent": f"Acc@{k}" for k in TOP}
    columns |= {**shares, "interval": "95 % interval", "agreement": "same top-1 %", "drop_points": "drop", "verdict": "verdict"}
    rows: list[dict[str, Any]] = []
    scored = per_batch(run, "score", "accuracy")
    infers = {size: read_json(run.at(size).file("infer")) for size in scored}
    for size, row in scored.items():
        if isinstance(row, str):
            rows.append({"model": run.spec.backend, "batch_size": size, "verdict": row})
            continue
        low, high = row["top1_ci95_percent"]
        interval = f"{low:.2f}\u00a0to\u00a0{high:.2f}"  # kept on one line
        runtime = infers[size].get("runtime", {})
        name = " ".join(str(runtime.get(key, "")) for key in ("backend", "precision"))
        rows.append({**row, "model": name, "interval": interval, "agreement": row["reference"]["agreement_percent"]})
    done = [row for row in scored.values() if not isinstance(row, str)]
    quoted = set()
    if done:
        reference, expected = done[0]["reference"], done[0]["expected"]
        rows.append({**reference, "model": reference["name"], "images": done[0]["images"], "verdict": "reference"})
        quoted.add(len(rows))
        rows.append({**expected, "model": expected["name"], "verdict": f"expected: {expected['source']}"})
    for where, top1, top5 in {tuple(row): None for facts in infers.values() for row in facts.get("quoted_accuracy", [])}:
        quoted.add(len(rows))
        rows.append({"model": f"imported: {where}", "top1_percent": top1, "top5_percent": top5, "verdict": "quoted"})
    limit = f", of which {done[0]['max_drop_points']:g} is allowed" if done else ""
    caption = f"Accuracy in percent, drop in points below the expected row (in italics){limit}"
    formats = dict.fromkeys((*shares, "agreement", "drop_points"), ".2f")
    return from_records(caption, rows, columns, formats, quoted=frozenset(quoted))


def verdict(run: Run) -> Banner:
    """One sentence over all batch sizes of the run, about the check that came out worst."""
    scored = per_batch(run, "score", "accuracy")
    rows = [row for row in scored.values() if not isinstance(row, str)]
    missing = [f"bs{size}" for size, row in scored.items() if isinstance(row, str)]
    if not rows:
        return Banner("inconclusive", "Not scored yet.", "Run notebooks 01 to 06 first.")
    order = ("pass", "inconclusive", "fail")
    checks = [check for row in rows for check in row["checks"]]
    worst = max(checks, key=lambda check: (order.index(check["verdict"]), check["drop_points"] - check["max_drop_points"]))
    word = "inconclusive" if missing and worst["verdict"] == "pass" else worst["verdict"]
    text = f"On {rows[0]['images']} images {sentence(worst)}."
    if worst["metric"] != "top-1 agreement":
        agreement = min(row["reference"]["agreement_percent"] for row in rows)
        text += f" Top-1 agrees with the fp32 reference on {agreement:.2f} % of the images."
    if run.spec.expected is None:
        text += " The spec names no published figure: this says that the port is faithful, nothing about the checkpoint."
    if missing:
        text += f" Not scored: {', '.join(missing)}."
    if worst["verdict"] == "inconclusive":
        text += " The sample is too small to tell: the interval of the drop holds the limit."
    return Banner(word, {"pass": "Pass.", "fail": "Fail.", "inconclusive": "Inconclusive."}[word], text)


FEW_CLASSES = 20  # up to so many, every class gets a bar and the confusion matrix is readable


def classes_chart(run: Run) -> Chart:
    """Acc@1 of every class when they are few, otherwise how the classes' Acc@1 are distributed."""
    rows = run.read("accuracy")["per_class"]
    shares = [row["top1_percent"] for row in rows]
    words = sources.class_words(run)
    names = [words.get(row["class"], str(row["class"])) for row in rows]
    few = len(rows) <= FEW_CLASSES
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 0.8 + 0.26 * len(rows) if few else 2.6))
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


def confusion_chart(run: Run) -> Chart | Table:
    """Which class is taken for which; a table of the weakest classes when there are too many to draw."""
    logits = np.load(run.file("logits"), mmap_mode="r")
    if logits.shape[1] > FEW_CLASSES:
        return weakest_classes(run)
    _, targets = sources.read_index(run)
    counts = classification.confusion(np.asarray(logits), targets)
    words = sources.class_words(run)
    names = [words.get(i, str(i)) for i in range(len(counts))]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 0.9 + 0.36 * len(counts)))
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
