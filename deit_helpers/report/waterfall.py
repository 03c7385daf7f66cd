"""What the waterfall shows: which change cost how much of Acc@1, as a table, a chart and a sentence."""

from __future__ import annotations

from typing import Any

from ..run.folder import Run
from ..run.records import per_batch
from .elements import Banner, Cell, Chart, Stack, Table
from .style import END_TO_END, NEUTRAL, PURE, label_rows, new_figure, plain
from .words import notes as notes


def rungs(run: Run) -> Table:
    """The published figure, and a row for each rung; those that lost significantly are marked."""
    facts = run.read("waterfall")
    rows, published = facts["rungs"], facts["published"]
    quoted = [{**published, "name": f"published: {published['name']}"}] if published else []
    tests = sum(row["p_value"] is not None for row in rows)
    return Table(
        f"One change a rung on the same {facts['images']} images, bs{facts['batch_size']}: points of Acc@1 from the rung "
        f"before, 95 % interval of each, McNemar's exact p corrected for {tests} tests (Holm). All batch sizes share the rungs "
        "but the device; the published row is quoted, and nothing is tested against it",
        "rung | Acc@1:.2f | points:+.2f | 95 % interval | gained | lost | p, corrected:.2g | images | remark",
        [_figures(row) for row in (*quoted, *rows)],
        quoted=frozenset(range(len(quoted))),
        alarm=frozenset(i for i, row in enumerate(rows, len(quoted)) if row["significant"] and row["difference_points"] < 0),
    )


def _figures(row: dict[str, Any]) -> list[Cell]:
    interval = row.get("difference_ci95_points")
    text = "{:+.2f}\u00a0to\u00a0{:+.2f}".format(*interval) if interval else None
    more = row.get("more_changes")
    remark = f"more than one change: {'; '.join(more)}" if more else row.get("reason") or row.get("source")
    counts = [row.get(key) for key in ("gained", "lost", "p_value_holm", "images")]
    return [row["name"], row["top1_percent"], row.get("difference_points"), text, *counts, remark]


def rungs_chart(run: Run) -> Chart:
    """Acc@1 from rung to rung: a bar from before to after each change, a line for its interval, its points beside it."""
    facts = run.read("waterfall")
    rows, before = facts["rungs"], None
    with new_figure(0.8 + 0.36 * len(rows)) as (figure, axes):
        for y, row in enumerate(rows):
            after = row["top1_percent"]
            if after is None:
                continue
            if before is None:
                axes.plot(after, y, "D", color="black", markersize=5)
            else:
                colour = NEUTRAL if not row["significant"] else END_TO_END if after < before else PURE
                fill = {"color": colour} if row["significant"] else {"facecolor": "none", "edgecolor": colour, "hatch": "////"}
                axes.barh(y, after - before, left=before, height=0.6, **fill)
                line = "black" if row["significant"] else NEUTRAL
                axes.hlines(y, *(before + points for points in row["difference_ci95_points"]), color=line, linewidth=1)
            axes.vlines(after, y, y + 0.7, color="black", linewidth=1)
            before = after
        axes.set(xlabel="Acc@1, %")
        axes.use_sticky_edges = False  # a bar that ends at the edge looks cut off
        axes.margins(x=0.04)
        label_rows(axes, [plain(row["name"]) for row in rows], [_label(row) for row in rows])
    what = f"bs{facts['batch_size']}, {facts['images']} images"
    legend = "orange: lost, blue: gained, hatched: not significant (n.s.); lines: 95 % intervals of the change"
    return Chart(figure, f"Acc@1 from rung to rung, {what}; {legend}", sentence(facts))


def _label(row: dict[str, Any]) -> str:
    if row["top1_percent"] is None:
        return "not made"
    if row["difference_points"] is None:
        return f"{row['top1_percent']:.2f} %"
    return f"{row['difference_points']:+.2f}{'' if row['significant'] else ' n.s.'}"


def explained(run: Run) -> Stack:
    """Where the points went, in a sentence for each batch size that tells another story; nothing where nobody asked."""
    results = per_batch(run, "waterfall", "waterfall") if run.asks_for("waterfall") else {}
    sizes: dict[str, list[str]] = {}
    for size, facts in results.items():
        if run.batch_size in (None, size):
            sizes.setdefault(facts if isinstance(facts, str) else sentence(facts), []).append(f"bs{size}")
    return Stack([Banner("note", f"Where the points went, {', '.join(names)}.", text) for text, names in sizes.items()])


def sentence(facts: dict[str, Any]) -> str:
    """The content of `waterfall.json` in words: what was lost and gained, the most first, and what changed nothing."""
    words: dict[str, list[str]] = {"lost": [], "gained": [], "nothing significant from": [], "not made:": []}
    for row in sorted(facts["rungs"], key=lambda row: -abs(row["difference_points"] or 0)):
        name = f"{row['name']}{' (more than one change)' if row['more_changes'] else ''}"
        if row["top1_percent"] is None:
            words["not made:"].append(name)
        elif row["significant"]:
            low, high = row["difference_ci95_points"]
            points = f"{abs(row['difference_points']):.2f} ± {(high - low) / 2:.2f} points"
            words["lost" if row["difference_points"] < 0 else "gained"].append(f"{points} from {name}")
        elif row["significant"] is False:
            words["nothing significant from"].append(name)
    parts = [f"{kind} {', '.join(texts)}" for kind, texts in words.items() if texts]
    if facts["all_changes"] and not words["lost"] + words["gained"]:
        low, high = facts["all_changes"]["difference_ci95_points"]
        points = facts["all_changes"]["difference_points"]
        parts.append(f"all changes together {points:+.2f} points ({low:+.2f} to {high:+.2f}, 95 %)")
    return f"Of {facts['images']} images: {'; '.join(parts) or 'nothing to compare'}."
