"""What the index shows of its own, besides what it has of other pages: verdict, batch size to deploy, pages, files, provenance.

`lines` are the same figures as the last lines of a terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from ..errors import one_line
from ..files import read_json
from ..metrics.latency import interval
from ..metrics.verdict import PUBLISHED, SAME_IMAGES, how_bad, sentence
from ..run import records
from ..run.backends import IMPORTED_SEEN_ON, NEVER_SEEN
from ..run.folder import Run, html_path
from ..run.lineage import NOTEBOOKS
from ..run.manifest import change_since
from .accuracy import reasons, run_verdict, scored_sizes
from .elements import Banner, Card, Cell, Chart, Facts, Links, Stack, Table, Tile
from .style import END_TO_END, NEUTRAL, PURE, label_rows, new_figure
from .words import disturbed, in_words, notes, runtime_text, trust


class Speed(NamedTuple):
    """How fast a batch size is: the model alone in 07, or the call within 05 where 07 did not time it."""

    at: Run
    images_per_s: float
    ci95: tuple[float, float] | None
    what: str
    facts: dict[str, Any]  # of `infer.json`, and of `perf.json` where there is one
    doubt: str  # why its clock is not to be trusted, to be put behind a figure; else empty

    @property
    def p90_ms(self) -> float:
        """Of a batch in 05, whatever was in flight besides; 0 where a tool's file lacks it."""
        return self.facts["latency_ms"]["p90"] or 0.0

    def p90_ci95(self) -> tuple[float, float] | None:
        """Its 95 % interval."""
        import pandas as pd

        samples = pd.read_csv(self.at.file("latency"))["latency_ms"].dropna()
        return interval(samples.to_numpy(), 0.9) if len(samples) else None


def timed_sizes(run: Run) -> list[Speed]:
    """The batch sizes that were timed."""
    timed, profiled = [], records.per_batch(run, "perf", "perf")
    for size, infer in records.per_batch(run, "infer", "infer").items():
        if isinstance(infer, str):
            continue
        at, perf = run.at(size), row if isinstance(row := profiled[size], dict) else {}
        pure = perf.get("pure") or {}
        rate, what = pure.get("images_per_s", infer["interface_images_per_s"]), "model alone" if pure else "call within 05"
        doubt = f"; not trustworthy: {why}" if (why := disturbed(at)) else ""
        timed.append(Speed(at, rate, pure.get("images_per_s_ci95"), what, perf | infer, doubt))
    return timed


def title(run: Run) -> str:
    """Run, model, device, precision and date, as far as they are known."""
    spec, timed = run.spec, timed_sizes(run)
    unknown = {"device": f"{spec.backend}, not measured yet", "precision": spec.precision}
    runtime = timed[-1].facts["runtime"] if timed else unknown
    made = [records.read_record(at, stage).get("created") for at in run.at_each() for stage in ("infer", "score", "perf")]
    date = f", {datetime.fromisoformat(max(filter(None, made))):%d %b %Y}" if any(made) else ""
    return f"{spec.run}: {spec.model} on {runtime['device']}, {runtime['precision']}{date}"


def card(run: Run) -> Card:
    """The verdict with its sentence, the tiles, which batch size to deploy, and what the backend was seen working on."""
    kind, told = run_verdict(run)
    return Card(kind, title(run), in_words(told), tiles(run), [f"{answer(run)}.", _seen_on(run)])


def _seen_on(run: Run) -> str:
    """The row of the README's table of what was never run on hardware that applies to this run."""
    measured, backend = [speed.facts for speed in timed_sizes(run)], run.spec.backend_row
    what, seen = f"backend {run.spec.backend}", backend.seen_on
    if any(facts.get("imported_from") for facts in measured):
        what, seen = "the import of a tool's files", IMPORTED_SEEN_ON
    elif not backend.needs_om and any(facts["runtime"]["device"] != "CPU" for facts in measured):
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
    return [*_accuracy_tiles(run), *_speed_tiles(run)]


def _accuracy_tiles(run: Run) -> list[Tile]:
    rows = scored_sizes(run)
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
    low, high = check["drop_at_least_points"], check["drop_at_most_points"]
    bounds = "" if low is None else f" ({low:.2f} to {high:.2f})"
    return f"{check['drop_points']:.2f} points{bounds} from {_side(check)} {check['expected_percent']:.2f} %"


def _side(check: dict[str, Any]) -> str:
    return "expected" if check["kind"] in (PUBLISHED, SAME_IMAGES) else "fp32"


def _speed_tiles(run: Run) -> list[Tile]:
    measured = timed_sizes(run)
    if not measured:
        return [Tile(name, "not known", "not timed yet") for name in ("throughput", "utilisation")]
    best = max(measured, key=lambda speed: speed.images_per_s)
    bounds = "{:.1f} to {:.1f} (95 %), ".format(*best.ci95) if best.ci95 else ""
    of = f"best of {len(measured)} batch sizes, " if len(measured) > 1 else ""
    note = f"at bs{best.at.size}, {of}{bounds}{best.what}, {runtime_text(best.facts['runtime'])}{best.doubt}"
    percent, share = best.facts.get("utilisation_percent"), "not known"
    used = f"at bs{best.at.size}: 07 was not run, or no peak is known: set peak_tflops"
    if percent is not None:
        share = f"{percent:.1f} %"
        used = f"at bs{best.at.size} of {best.facts['peak_flops_per_s'] / 1e9:.1f} GFLOP/s, {best.facts['peak_source']}"
    return [Tile("throughput", f"{best.images_per_s:.1f} images/s", note), Tile("utilisation", share, used)]


def drop_chart(run: Run) -> Chart | Banner:
    """The drop of every check of every batch size, with the bounds that it is judged by, against the limit.

    Acc@5 is drawn where it does not pass.
    """
    scored = [(check, f"bs{row['batch_size']}") for row in scored_sizes(run) for check in row["checks"]]
    drawn = [(check, size) for check, size in scored if check["metric"] != "Acc@5" or check["verdict"] != "pass"]
    if not drawn:
        return Banner("missing", "No drop to draw.", in_words(*reasons(run)))
    colours = {"pass": PURE, "inconclusive": NEUTRAL, "fail": END_TO_END}
    with new_figure(0.9 + 0.3 * len(drawn)) as (figure, axes):
        for y, (check, _) in enumerate(drawn):
            low, high = check["drop_at_least_points"], check["drop_at_most_points"]
            colour, drop = colours[check["verdict"]], check["drop_points"]
            axes.hlines(y, drop if low is None else low, drop if high is None else high, color=colour, linewidth=2)
            axes.plot(drop, y, "o", color=colour, markerfacecolor="none" if check["verdict"] == "inconclusive" else colour)
        for limit in {check["max_drop_points"] for check, _ in drawn}:
            axes.axvline(limit, color="black", linestyle="--", linewidth=1)
            axes.annotate(f"limit {limit:g}", (limit, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom")
        axes.set(xlabel="drop, points")
        names = [f"{size} {check['metric']}, from {_side(check)}" for check, size in drawn]
        label_rows(axes, names, [f"{check['drop_points']:+.2f} {check['verdict']}" for check, _ in drawn])
    alt = "; ".join(f"{size}: {sentence(check)}, {check['verdict']}" for check, size in drawn)
    legend = "lines: from what is lost at least to what is lost at most, by which the verdict goes; dashed: the limit"
    caption = f"{in_words(*reasons(run))} Drawn: the drop in points, {legend}; Acc@5 only where it does not pass"
    return Chart(figure, caption, alt)


def answer(run: Run) -> str:
    """Which batch size to deploy, in a sentence: the fastest whose p90 keeps the budget with all of its interval."""
    budget, choices = run.spec.latency_budget_ms, [speed for speed in timed_sizes(run) if speed.p90_ms]
    within = [speed for speed in choices if budget is None or (speed.p90_ci95() or [speed.p90_ms])[-1] <= budget]
    if not choices:
        return "No batch size to choose yet"
    if not within:
        p90_ms, size = min((speed.p90_ms, speed.at.size) for speed in choices)
        return f"No batch size surely keeps the budget of {budget:g} ms: the least p90 is {p90_ms:.1f} ms, bs{size}"
    best = max(within, key=lambda speed: speed.images_per_s)
    bounds = " ({:.1f} to {:.1f})".format(*ci95) if (ci95 := best.p90_ci95()) else ""
    what = f"Deploy bs{best.at.size} within {budget:g} ms" if budget else f"bs{best.at.size} is the fastest"
    todo = "" if budget else "; with latency_budget_ms in the spec the fastest within it is named"
    speed = f"{best.images_per_s:.1f} images/s, 90 % of its batches take at most {best.p90_ms:.1f} ms{bounds}"
    return f"{what}: {speed}{todo}{best.doubt}"


def deployment(run: Run) -> Chart | Banner:
    """Images per second against the p90 of a batch, with their 95 % intervals; hollow where the clock is not trusted."""
    choices, budget = [speed for speed in timed_sizes(run) if speed.p90_ms], run.spec.latency_budget_ms
    if not choices:
        return Banner("missing", f"{answer(run)}.", "The rates and latencies of 05 and 07 are not here.")
    with new_figure(3.2) as (figure, axes):
        for speed in choices:
            x, y, fill = speed.p90_ms, speed.images_per_s, "none" if speed.doubt else PURE
            axes.plot(x, y, "o", color=PURE, markerfacecolor=fill)
            axes.hlines(y, *(speed.p90_ci95() or (x, x)), color=PURE)
            axes.vlines(x, *(speed.ci95 or (y, y)), color=PURE)
            axes.annotate(f"bs{speed.at.size}", (x, y), (5, 5), textcoords="offset points")
        if budget:
            axes.axvline(budget, color="black", linestyle="--", linewidth=1)
            axes.annotate(f" {budget:g} ms", (budget, 0), xycoords=("data", "axes fraction"), va="bottom")
        most = [1.15 * high for _, high in (axes.get_xlim(), axes.get_ylim())]  # room for the names
        axes.set(xlabel="p90 of a batch, ms", ylabel="images/s", xlim=(0, most[0]), ylim=(0, most[1]))
    first = choices[0]
    batches = ", ".join(f"bs{speed.at.size}: {speed.facts['latency_ms']['n']}" for speed in choices)
    where = f"images/s of the {first.what}, p90 of the call in 05 on {runtime_text(first.facts['runtime'], streams=False)}"
    alt = "; ".join(f"bs{s.at.size}: {s.images_per_s:.1f} images/s at a p90 of {s.p90_ms:.1f} ms" for s in choices)
    return Chart(figure, f"{answer(run)}. Drawn: {where}, batches {batches}; lines are 95 % intervals", alt)


def shown(run: Run, stage: str, draw: Callable[[Run], Any]) -> Any:
    """What `draw` makes of the run, or a note that says which notebook must run first."""
    why = records.problem(run, stage, strict=False)
    return Banner("missing", "Not here yet.", f"{stage}: {why}; {records.how_to_make(run, stage)}") if why else draw(run)


def summary(run: Run) -> Facts:
    """What was asked for."""
    spec = run.spec
    return Facts(
        f"Run {spec.run}",
        {
            "model": spec.model,
            "checkpoint": spec.checkpoint,
            "images": f"{spec.images}, recipe {spec.recipe.describe()}",
            "backend": f"{spec.backend} {spec.precision}, batch sizes {', '.join(map(str, spec.batch_sizes))}",
        },
    )


def provenance(manifest: dict[str, Any]) -> Facts:
    """Where and with what the files of a manifest were made."""
    machine, npu = manifest["machine"], manifest["npu"] or {"chips": []}
    chips = ", ".join(f"{chip['name']} ({chip['health']}, {chip['memory_total_mb']} MB)" for chip in npu["chips"])
    measured = sorted({row["machine"] for path, row in manifest["artifacts"].items() if path.endswith("infer.json")})
    return Facts(
        "Where and with what this run was made",
        {
            "created": manifest["created"],
            "git commit": manifest["git_commit"] or "unknown",
            "measured on": ", ".join(measured) or "nothing measured yet",
            "page made on": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}",
            **({"chips here": f"{chips}, driver {npu['driver']}"} if chips else {}),
            "packages": ", ".join(f"{name} {version}" for name, version in manifest["packages"].items()),
        },
    )


def files(manifest: dict[str, Any]) -> Table:
    """Every file of a manifest, what it was made from and its hash."""
    rows: list[list[Cell]] = [
        [path, row["bytes"], row["seconds"], row["sha256"][:16], ", ".join(row["inputs"]) or None]
        for path, row in manifest["artifacts"].items()
    ]
    header = "file | bytes:, | made in s:.1f | sha256, first 16 | made from"
    return Table("Files of this run; manifest.json has the full hashes", header, rows, folded=True)


def pages(run: Run) -> Links:
    """Links to every published page, by step."""
    groups = {
        name.replace("_", " "): {f"batch size {size}" if size else "page": run.link(path) for size, path in paths.items()}
        for name, paths in run.published().items()
    }
    return Links(groups)


def state(run: Run) -> Stack:
    """What must be said first: the steps that stopped with an error, the notes of every page, rates not to be trusted."""
    stopped = []
    for notebook in filter(run.asks_for, NOTEBOOKS):
        for at in run.at_each(NOTEBOOKS[notebook].per_batch):
            if error := read_json(at.page_record(notebook)).get("stopped"):
                step, _, text = error.partition(": ")
                stopped.append(Banner("fail", f"Stopped at {step}:", text, run.link(html_path(at.page(notebook)))))
    return Stack([*stopped, *notes(run).items, *trust(run).items])


def since(run: Run) -> Stack:
    """How the figures stand to the time before, and the comparisons that were made; nothing where there are none."""
    said = change_since(run)
    text = f"{said}; `deit-report compare` tests such a difference."
    banners = [Banner("note", "Since the time before.", text)] if said else []
    for path in sorted(run.folder.glob("compare/*/compare.json")):
        if (facts := read_json(path)) and facts["base"]["folder"] != str(run.folder):  # with itself it is no news
            against = one_line(f"Against {facts['base']['folder']}:")
            banners.append(Banner(facts["verdict"], against, f"{facts['verdict']}.", run.link(path.with_suffix(".html"))))
    return Stack(banners)
