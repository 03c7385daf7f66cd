"""What 06 shows: accuracy of every batch size, the comparison with the reference, the classes, the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..data import sources
from ..files import read_json
from ..metrics import planner
from ..metrics.classification import FEW_CLASSES, TOP
from ..metrics.proportions import LEVEL
from ..metrics.verdict import evidence, how_bad, of_run, readings, sentence
from ..run.expected import MAX_DROP_POINTS, expected_row
from ..run.folder import Run
from ..run.records import per_batch
from .cards import changed as changed
from .cards import wrong as wrong
from .elements import Banner, Cell, Chart, Facts, Table
from .style import PURE, new_figure, plain
from .words import in_words
from .words import notes as notes

MOST_CLASSES = 20  # are listed


def accuracy(run: Run) -> Table:
    """Acc@1 to Acc@5 of every batch size that was scored, then the reference, then the expected figures (quoted)."""
    scored = per_batch(run, "score", "accuracy")
    infers = {size: read_json(run.at(size).file("infer")) for size in scored}
    measured = [_row_of_size(run, size, row, infers[size].get("runtime", {})) for size, row in scored.items()]
    quoted: list[list[Cell]] = []
    limit = ""
    if first := next((row for row in scored.values() if isinstance(row, dict)), None):
        reference, expected = first["reference"], first["expected"]
        measured.append(_row(reference["name"], None, {**reference, "images": first["images"]}, "reference"))
        quoted.append(_row(expected["name"], None, expected, f"expected: {expected['source']}"))
        limit = f", of which {first['max_drop_points']:g} is allowed"
    for where, top1, top5 in dict.fromkeys(tuple(row) for infer in infers.values() for row in infer.get("quoted_accuracy", [])):
        quoted.append(_row(f"imported: {where}", None, {"top1_percent": top1, "top5_percent": top5}, "quoted"))
    headings = " | ".join(f"Acc@{k}:.2f" for k in TOP)
    return Table(
        f"Accuracy in percent, drop in points below the expected row (in italics){limit}",
        f"model | batch size | images | {headings} | 95 % interval | same top-1 %:.2f | drop:.2f | verdict",
        measured + quoted,
        quoted=frozenset(range(len(measured), len(measured) + len(quoted))),
    )


def _row_of_size(run: Run, size: int, scored: dict[str, Any] | str, runtime: dict[str, Any]) -> list[Cell]:
    if isinstance(scored, str):
        return _row(run.spec.backend, size, {}, scored)
    name = f"{runtime['backend']} {runtime['precision']}"
    low, high = scored["top1_ci95_percent"]
    interval = f"{low:.2f}\u00a0to\u00a0{high:.2f}"  # kept on one line
    same = scored["reference"]["agreement_percent"]
    return _row(name, size, {**scored, "interval": interval, "same_top1_percent": same}, scored["verdict"])


def _row(name: str, size: int | None, figures: dict[str, Any], remark: str) -> list[Cell]:
    keys = ("images", *(f"top{k}_percent" for k in TOP), "interval", "same_top1_percent", "drop_points")
    return [name, size, *map(figures.get, keys), remark]


def paired(run: Run) -> Facts:
    """This run against the reference, image by image."""
    scored = run.read("accuracy")
    pairs, reference = scored["paired"], scored["reference"]
    low, high = pairs["difference_ci95_points"]
    told = "a significant difference" if pairs["p_value"] < LEVEL else "no significant difference"
    return Facts(
        f"bs{scored['batch_size']} against {reference['name']}, image by image",
        {
            "only this run right": pairs["only_this_right"],
            "only the reference right": pairs["only_reference_right"],
            "Acc@1 above the reference, points": f"{pairs['difference_points']:+.2f} ({low:+.2f} to {high:+.2f}, 95 %)",
            "McNemar's exact p": f"{pairs['p_value']:.3g}, {told}",
            "largest difference of a logit": f"{reference['max_abs_diff']:.2g}",
            **_by_real_labels(scored),
        },
    )


def _by_real_labels(scored: dict[str, Any]) -> dict[str, Cell]:
    if not (real := scored["real"]):
        return {}
    here = "{:.2f} ({:.2f} to {:.2f}, 95 %)".format(real["top1_percent"], *real["top1_ci95_percent"])
    published = f", published {real['expected_top1_percent']:.2f}" if real["expected_top1_percent"] else ""
    text = f"{here}, reference {real['reference_top1_percent']:.2f}{published}"
    return {f"Acc@1 by ReaL labels of {real['images']} images": text}


def confusion_chart(run: Run) -> Chart | Banner:
    """Which class is taken for which; a note when there are too many to draw."""
    from matplotlib.colors import ListedColormap

    stored = run.read("accuracy")["confusion"]
    if stored is None:
        place = run.relative(run.file("predictions"))
        text = f"More than {FEW_CLASSES} classes: label and answer of every image are in {place}."
        return Banner("note", "Not drawn.", text)
    counts = np.array(stored)
    words = sources.class_words(run)
    names = [plain(words[index]) for index in range(len(counts))]
    longest, shades = max(map(len, names)), counts / max(1, counts.max())
    with new_figure(0.9 + 0.36 * len(counts) + 0.1 * longest) as (figure, axes):
        axes.imshow(np.zeros_like(counts), cmap=ListedColormap([PURE]), alpha=shades, aspect="auto")
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shades[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(len(names)), names, rotation=90 if longest > 3 else 0)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="answer", ylabel="label")
    wrong = counts - np.diag(np.diag(counts))
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    text = f"{np.trace(counts)} of {counts.sum()} right; most often {names[row]} taken for {names[column]}, {wrong.max()} times"
    return Chart(figure, f"Images by label and top-1 answer, bs{run.batch_size}", text)


def class_differences(run: Run) -> Table:
    """The classes whose Acc@1 lost most against the reference, significant losses marked; after those the weakest."""
    classes = run.read("accuracy")["per_class"]
    net = {row["class"]: row["gained"] - row["lost"] for row in classes}
    worst = sorted(classes, key=lambda row: (net[row["class"]], row["top1_percent"], row["class"]))[:MOST_CLASSES]
    words = sources.class_words(run)
    others = [None if row["mistaken_for"] is None else words[row["mistaken_for"]] for row in worst]
    keys = ("images", "top1_percent", "reference_top1_percent", "gained", "lost", "p_value_holm")
    rows = [[words[row["class"]], *map(row.get, keys), other] for row, other in zip(worst, others, strict=True)]
    lower, higher = (sum(sign * images < 0 for images in net.values()) for sign in (1, -1))
    shares = [row["top1_percent"] for row in classes]
    return Table(
        f"Acc@1 is below the reference's in {lower} of {len(classes)} classes, above it in {higher}; bs{run.batch_size}; "
        f"classes have {min(shares):.0f} % to {max(shares):.0f} %; {len(rows)} are listed, the largest loss first, then the "
        "weakest. Gained, lost: images that only this run, only the reference has right; p: McNemar's exact, corrected for all "
        "classes (Holm); of a few images it shows nothing",
        "class | images | Acc@1:.1f | reference's:.1f | gained | lost | p, corrected:.2g | most often mistaken for",
        rows,
        alarm=frozenset(i for i, row in enumerate(worst) if net[row["class"]] < 0 and row["p_value_holm"] < LEVEL),
    )


def plan(run: Run) -> Table:
    """How many images it takes to tell a loss from none, against the reference and against the published figure."""
    scored, expected = scored_sizes(run), expected_row(run) or {}
    one_only = ("only_this_right", "only_reference_right")
    observed = [sum(row["paired"][key] for key in one_only) / row["images"] for row in scored]
    share = max(observed, default=planner.ASSUMED_DISCORDANCE)
    rate = max((rate for row in scored if (rate := _end_to_end(run, row))), default=None)
    most = expected.get("images") or planner.VALIDATION_IMAGES
    rows: list[list[Cell]] = []
    for margin in sorted({*planner.MARGINS, expected.get("max_drop_points", MAX_DROP_POINTS)}):
        needed = [planner.paired_images(margin, share)]
        needed += [planner.published_images(margin, expected["top1_percent"], most) if expected.get("top1_percent") else None]
        rows.append([margin, *(cell for n in needed for cell in (n, n / rate / 60 if n and rate else None))])
    source = "as observed here" if scored else "assumed: nothing was observed yet"
    where = f"where {100 * share:.2f} % of the images are right in one of the two models only ({source})"
    return Table(
        f"Images that tell a loss from none, power {100 * planner.POWER:.0f} %, {where}; –: over {planner.VALIDATION_IMAGES:,}",
        "loss in points:g | against the reference:, | minutes:.1f | against the published figure:, | its minutes:.1f",
        rows,
    )


def scored_sizes(run: Run) -> list[dict[str, Any]]:
    """The `accuracy.json` of the batch sizes that were scored."""
    return [row for row in per_batch(run, "score", "accuracy").values() if isinstance(row, dict)]


def _end_to_end(run: Run, scored: dict[str, Any]) -> float | None:
    """Images per second of a batch size that was scored."""
    return read_json(run.at(scored["batch_size"]).file("infer")).get("e2e_images_per_s")


def verdict(run: Run) -> Banner:
    """The verdict over all batch sizes of the run, what it says of the port, and the check of each kind that came out worst."""
    kind, told = run_verdict(run)
    return Banner(kind, f"{kind.capitalize()}.", in_words(told, *reasons(run)))


def run_verdict(run: Run) -> tuple[str, str]:
    """`verdict.of_run` of the batch sizes that the run has: the word and the sentence that all pages and the terminal say."""
    return of_run(scored_sizes(run), _unscored(run))


def _unscored(run: Run) -> list[str]:
    return [f"bs{size}" for size, row in per_batch(run, "score", "accuracy").items() if isinstance(row, str)]


def reasons(run: Run) -> Iterator[str]:
    """Sentences: the check of each kind that came out worst, and what its images show of it; or what else is wrong."""
    rows = scored_sizes(run)
    if not rows:
        yield "run notebooks 01 to 06 first"
        return
    cause = next((row["cause"] for row in rows if row.get("cause")), None)
    if cause and all(row["verdict"] != "fail" for row in rows):
        yield cause
        return
    judged = sorted(((check, row) for row in rows for check in row["checks"]), key=lambda pair: how_bad(pair[0]))
    worst_of_kind = {check["kind"]: (check, row) for check, row in judged}
    for check, row in sorted(worst_of_kind.values(), key=lambda pair: how_bad(pair[0]), reverse=True):
        shown = evidence(check, row["images"], row["tests"], _end_to_end(run, row))
        yield f"on {row['images']:,} images {sentence(check)}{shown}"
    if run.spec.expected is not None:
        lowest = min(row["top1_percent"] for row in rows)
        yield readings(lowest, rows[0]["expected"]["top1_percent"], rows[0]["max_drop_points"])
    tests = rows[0]["tests"]  # the rule of `stages.accuracy`
    yield f"of {tests} tests all must pass, which needs no correction; each may fail at 5 % / {tests}"
    if missing := _unscored(run):
        yield f"not scored: {', '.join(missing)}"
