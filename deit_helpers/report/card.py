"""The first minute: the verdict and the figures behind it, as the card of the index and as the last lines of a terminal."""

from __future__ import annotations

from ..errors import one_line
from ..metrics.verdict import how_bad
from ..run.folder import Run, html_path
from .accuracy import run_verdict, scored_sizes
from .elements import Tile
from .perf import speeds
from .words import runtime_text


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
    drops = [_drop(check) for check in row["checks"] if check["metric"] == "Acc@1"]
    top1 = f"bs{row['batch_size']}, {row['images']:,} images; {'; '.join(drops)}"
    least = min(rows, key=lambda row: row["reference"]["agreement_percent"])
    same, count = least["reference"]["agreement_percent"], least["images"]
    changed = f"{round(count * (1 - same / 100)):,} of {count:,} answers are not those of fp32, bs{least['batch_size']}"
    return [Tile("Acc@1", f"{row['top1_percent']:.2f} %", top1), Tile("agreement", f"{same:.2f} %", changed)]


def _drop(check: dict) -> str:
    low, high = check.get("drop_at_least_points"), check.get("drop_at_most_points")
    interval = "" if low is None else f" ({low:.2f} to {high:.2f})"
    return f"drop {check['drop_points']:.2f} points{interval} from the {check['expected_percent']:.2f} % of {check['of']}"


def _speed(run: Run) -> list[Tile]:
    measured = speeds(run)
    if not measured:
        return [Tile(name, "not known", "not timed yet") for name in ("throughput", "utilisation")]
    best = max(measured, key=lambda speed: speed.images_per_s)
    interval = "{:.1f} to {:.1f} (95 %), ".format(*best.ci95) if best.ci95 else ""
    of = f"best of {len(measured)} batch sizes, " if len(measured) > 1 else ""
    doubt = f"; not trustworthy: {best.doubt}" if best.doubt else ""
    note = f"bs{best.size}, {of}{interval}{best.what}, {runtime_text(best.infer['runtime'])}{doubt}"
    percent = best.perf.get("utilisation_percent")
    used = "bs{}: no peak is known, set peak_tflops; or 07 was not run" if percent is None else "bs{} of {:.1f} GFLOP/s, {}"
    peak = (best.perf.get("peak_flops_per_s") or 0) / 1e9, best.perf.get("peak_source")
    share = "not known" if percent is None else f"{percent:.1f} %"
    return [
        Tile("throughput", f"{best.images_per_s:.1f} images/s", note),
        Tile("utilisation", share, used.format(best.size, *peak)),
    ]
