"""The first minute: the verdict and the figures behind it, as the card of the index and as the last lines of a terminal."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..errors import one_line
from ..metrics.verdict import PUBLISHED, SAME_IMAGES, how_bad, sentence
from ..run import records
from ..run.backends import IMPORTED_SEEN_ON, NEVER_SEEN
from ..run.folder import Run, html_path
from .accuracy import in_words, reasons, run_verdict, scored_sizes
from .deploy import answer, timed_sizes
from .elements import Banner, Card, Chart, Tile
from .style import END_TO_END, NEUTRAL, PURE, new_figure
from .words import runtime_text


def title(run: Run) -> str:
    """Run, model, device, precision and date, as far as they are known."""
    timed, spec = timed_sizes(run), run.spec
    runtime = (
        timed[-1].infer["runtime"] if timed else {"device": f"{spec.backend}, not measured yet", "precision": spec.precision}
    )
    stages = [(stage, at) for at in run.at_each() for stage in ("infer", "score", "perf")]
    created = max(filter(None, (records.read_record(at, stage).get("created") for stage, at in stages)), default=None)
    date = f", {datetime.fromisoformat(created):%d %b %Y}" if created else ""
    return f"{spec.run}: {spec.model} on {runtime['device']}, {runtime['precision']}{date}"


def card(run: Run) -> Card:
    """The verdict with its sentence, the tiles, which batch size to deploy, and what the backend was seen working on."""
    kind, told = run_verdict(run)
    return Card(kind, title(run), in_words(told), tiles(run), [f"{answer(run)}.", _seen_on(run)])


def _seen_on(run: Run) -> str:
    """The row of the README's table of what was never run on hardware that applies to this run."""
    measured, backend = [speed.infer for speed in timed_sizes(run)], run.spec.backend_row
    what, seen = f"backend {run.spec.backend}", backend.seen_on
    if any(infer.get("imported_from") for infer in measured):
        what, seen = "the import of a tool's files", IMPORTED_SEEN_ON
    elif not backend.needs_om and any(infer["runtime"]["device"] != "CPU" for infer in measured):
        what, seen = f"{what} beyond CPUs", NEVER_SEEN
    at_hand = "no Ascend device, no ImageNet and no trained DeiT weights were at hand"
    return f"When this was written {what} was seen working on {seen}; {at_hand}."


def lines(run: Run) -> list[str]:
    """The six lines that end a run in a terminal: the verdict, the card's tiles, and where the page is."""
    kind, told = run_verdict(run)
    figures = [f"{tile.name:12} {tile.value}: {tile.note}" for tile in tiles(run)]
    page = f"{'page':12} {html_path(run.page('report'))}"
    return [one_line(line, 400) for line in (f"{kind.upper()}: {told}", *figures, page)]


def tiles(run: Run) -> list[Tile]:
    """Acc@1 and its drop, agreement with fp32, the best rate and at which batch size, utilisation there."""
    return [*_accuracy(run), *_speed(run)]


def _accuracy(run: Run) -> list[Tile]:
    rows = [row for _, row, _ in scored_sizes(run)]
    if not rows:
        return [Tile(name, "not known", "not scored yet") for name in ("Acc@1", "agreement")]
    checks = [(check, row) for row in rows for check in row["checks"] if check["metric"] == "Acc@1"]
    row = max(checks, key=lambda pair: how_bad(pair[0]))[1]
    drops = ", ".join(_drop(check) for check in row["checks"] if check["metric"] == "Acc@1")
    top1 = f"drop {drops}; bs{row['batch_size']}, {row['images']:,} images"
    least = min(rows, key=lambda row: row["reference"]["agreement_percent"])
    same, count = least["reference"]["agreement_percent"], least["images"]
    changed = f"{round(count * (1 - same / 100)):,} of {count:,} answers are not those of fp32, at bs{least['batch_size']}"
    return [Tile("Acc@1", f"{row['top1_percent']:.2f} %", top1), Tile("agreement", f"{same:.2f} %", changed)]


def _drop(check: dict[str, Any]) -> str:
    low, high = check.get("drop_at_least_points"), check.get("drop_at_most_points")
    bounds = "" if low is None else f" ({low:.2f} to {high:.2f})"
    return f"{check['drop_points']:.2f} points{bounds} from {_side(check)} {check['expected_percent']:.2f} %"


def _side(check: dict[str, Any]) -> str:
    return "expected" if check.get("kind") in (PUBLISHED, SAME_IMAGES) else "fp32"


def _speed(run: Run) -> list[Tile]:
    measured = timed_sizes(run)
    if not measured:
        return [Tile(name, "not known", "not timed yet") for name in ("throughput", "utilisation")]
    best = max(measured, key=lambda speed: speed.images_per_s)
    interval = "{:.1f} to {:.1f} (95 %), ".format(*best.ci95) if best.ci95 else ""
    of = f"best of {len(measured)} batch sizes, " if len(measured) > 1 else ""
    doubt = f"; not trustworthy: {best.doubt}" if best.doubt else ""
    note = f"at bs{best.size}, {of}{interval}{best.what}, {runtime_text(best.infer['runtime'])}{doubt}"
    percent = best.perf.get("utilisation_percent")
    used = (
        "at bs{}: 07 was not run, or no peak is known: set peak_tflops" if percent is None else "at bs{} of {:.1f} GFLOP/s, {}"
    )
    peak = (best.perf.get("peak_flops_per_s") or 0) / 1e9, best.perf.get("peak_source")
    share = "not known" if percent is None else f"{percent:.1f} %"
    return [
        Tile("throughput", f"{best.images_per_s:.1f} images/s", note),
        Tile("utilisation", share, used.format(best.size, *peak)),
    ]


def drop_chart(run: Run) -> Chart | Banner:
    """The drop of every check of every batch size, with the bounds that it is judged by, against the limit.

    Acc@5 is drawn where it does not pass.
    """
    scored = [(check, row) for _, row, _ in scored_sizes(run) for check in row["checks"]]
    drawn = [(check, row) for check, row in scored if check["metric"] != "Acc@5" or check["verdict"] != "pass"]
    if not drawn:
        return Banner("missing", "No drop to draw.", in_words(*reasons(run)))
    colours = {"pass": PURE, "inconclusive": NEUTRAL, "fail": END_TO_END}
    with new_figure(0.9 + 0.3 * len(drawn)) as (figure, axes):
        for y, (check, _) in enumerate(drawn):
            low, high = check.get("drop_at_least_points"), check.get("drop_at_most_points")
            colour, drop = colours[check["verdict"]], check["drop_points"]
            axes.hlines(y, drop if low is None else low, drop if high is None else high, color=colour, linewidth=2)
            axes.plot(drop, y, "o", color=colour, markerfacecolor="none" if check["verdict"] == "inconclusive" else colour)
        for limit in {check["max_drop_points"] for check, _ in drawn}:
            axes.axvline(limit, color="black", linestyle="--", linewidth=1)
            axes.annotate(f"limit {limit:g}", (limit, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom")
        axes.set(yticks=range(len(drawn)), xlabel="drop, points")
        axes.set_yticklabels([f"bs{row['batch_size']} {check['metric']}, from {_side(check)}" for check, row in drawn])
        axes.set_ylim(len(drawn) - 0.5, -0.5)
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(range(len(drawn)), [f"{check['drop_points']:+.2f} {check['verdict']}" for check, _ in drawn])
        beside.spines["right"].set_visible(False)
        for side in (axes, beside):
            side.tick_params(axis="y", length=0)
    alt = "; ".join(f"bs{row['batch_size']}: {sentence(check)}, {check['verdict']}" for check, row in drawn)
    legend = "lines: from what is lost at least to what is lost at most, by which the verdict goes; dashed: the limit"
    return Chart(
        figure, f"{in_words(*reasons(run))} Drawn: the drop in points, {legend}; Acc@5 only where it does not pass", alt
    )
