"""What 07 shows: latencies, rates, what was lost between them, throughput by batch size, operators, utilisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics.operators import FAMILIES, LIMIT_PARTS, NAMED_FIRST, chip_limit
from ..run.folder import Run
from ..run.records import per_batch
from .elements import Banner, Cell, Chart, Facts, Table
from .style import FAMILY_COLOURS, LIMIT_COLOURS, PURE, new_figure
from .words import in_flight_text, in_words, runtime_text
from .words import notes as notes
from .words import trust as trust

if TYPE_CHECKING:
    import pandas as pd

EFFICIENCY = "efficiency: end to end as a share of the model call alone, both in 05"


def latency_chart(run: Run) -> Chart | Banner:
    """Histogram of the latencies of one batch size with p50 and p90."""
    import pandas as pd

    perf = run.read("perf")
    numbers, size = perf["latency_ms"], perf["batch_size"]
    samples = pd.read_csv(run.file("latency"))["latency_ms"]
    if samples.empty:
        text = f"The imported file has the mean only: {numbers['mean']:.2f} ms per batch of {size}."
        return Banner("note", "No distribution.", text)
    with new_figure(2.6) as (figure, axes):
        axes.hist(samples, bins=min(40, max(5, len(samples) // 4)), color=PURE)
        axes.margins(y=0.25)  # above the bars the labels are readable, one below the other
        for name, line, height in (("p50", "-", 1.0), ("p90", "--", 0.9)):
            axes.axvline(numbers[name], color="black", linestyle=line, linewidth=1)
            place = numbers[name], height
            axes.annotate(f" {name} {numbers[name]:.1f}", place, xycoords=("data", "axes fraction"), va="top")
        axes.set(xlabel=f"ms per batch of {size}", ylabel="batches")
    known = ", ".join(f"{name} {numbers[name]:.2f}" for name in ("mean", "p50", "p90", "p99") if numbers[name] is not None)
    caption = (
        f"Latency of a batch of {size} in ms: the model call alone{in_flight_text(perf)}, {runtime_text(perf['runtime'])}; "
        f"{numbers['n']} batches: {known}; p99 is given from 100 samples on"
    )
    return Chart(figure, caption, f"{numbers['n']} batches: {known} ms")


def rates(run: Run) -> Table:
    """What is called the speed of a model, kept apart: the first call, the model alone, and the whole data set."""
    perf = run.read("perf")
    pure, size, batches = perf["pure"], perf["batch_size"], perf["latency_ms"]["n"]
    rows: list[list[Cell]] = [
        ["call within 05", batches, perf["images_per_s"], None],
        ["data set, if images were free", batches, perf.get("images_per_s_without_waiting"), None],
        ["data set, end to end", batches, perf.get("e2e_images_per_s"), None],
    ]
    how = "only what the tool's files say"
    if pure:
        timed, warm_up = (pure["batches_per_sample"] * n for n in (pure["latency_ms"]["n"], pure["warmup_batches"]))
        ci95 = pure["images_per_s_ci95"]
        interval = f"{ci95[0]:.1f} to {ci95[1]:.1f}" if ci95 else "too few"
        rows.insert(0, ["first call, cold", 1, 1000 * size / pure["cold_ms"], None])
        rows.insert(1, ["model alone, warm", timed, pure["images_per_s"], interval])
        other = pure["other_cpu_percent"]
        others = "what others had of the CPU is not known" if other is None else f"others had {other:.1f} % of the CPU"
        settled = "" if pure["settled"] else "; the time box ended before it settled"
        how = f"model alone: median and its 95 % interval, {warm_up} warm-up batches left out, spread "
        how += f"{pure['spread_percent']:.1f} %, {others}{settled}"
    return Table(
        f"Rates of batches of {size} on {runtime_text(perf['runtime'])}; {how}",
        "what | batches | images/s:.1f | 95 % interval",
        [row for row in rows if row[2]],
    )


def accounting(run: Run) -> Facts:
    """Where the rest goes: what the pipeline, the profiler and the gaps between operators cost."""
    perf = run.read("perf")

    def text(key: str, form: str) -> str:
        return form.format(perf[key]) if perf.get(key) is not None else "not measured"

    overhead = text("profiler_overhead_percent", "{:.1f} %")
    if perf["profiler_overhead_percent"] is not None:
        ci95 = perf["profiler_overhead_ci95_percent"]
        overhead = f"{overhead} ({ci95[0]:.1f} to {ci95[1]:.1f})" if ci95 else "not known: too few batches"
    outside = text("residual_ms", "{:.2f}")
    if (perf["residual_ms"] or 0) < 0:
        outside = "none: by the profiler's clock operators last longer than the batch"
    return Facts(
        f"What was lost, bs{perf['batch_size']}",
        {
            EFFICIENCY: f"{100 * perf['e2e_efficiency']:.1f} %" if perf.get("e2e_efficiency") else "not known",
            f"profiler's overhead on {perf['profiled_batches']} batches": overhead,
            "ms per profiled batch outside operators": outside,
            "s to load the model": text("load_s", "{:.2f}"),
            "most memory of the process in 05, MiB": text("peak_memory_mib", "{:.0f}"),
        },
    )


def throughput(run: Run) -> Table:
    """Rates of every batch size that was run; the fastest is not picked out, the reader chooses."""
    inferred = per_batch(run, "infer", "infer")
    measured = [infer for infer in inferred.values() if isinstance(infer, dict)]
    where = f" on {runtime_text(measured[-1]['runtime'], streams=False)}" if measured else ""
    rows = [_throughput_row(size, infer) for size, infer in inferred.items()]
    header = "batch size | images/s:.1f | end to end images/s:.1f | efficiency %:.1f | p50 ms:.2f | p90 ms:.2f | p99 ms:.2f "
    header += "| in flight | batches | images | images/s of the card:.1f"
    if not any(row[-1] for row in rows):  # only tools that measure one device of several say it
        rows, header = [row[:-1] for row in rows], header.rpartition(" | ")[0]
    return Table(
        f"Throughput{where}: images/s of the model call alone over full batches, and end to end from the {run.spec.source} "
        f"to the logits over all images; {EFFICIENCY}; p50, p90 and p99 (from 100 batches on) of the call per batch"
        f"{in_flight_text(*measured)}",
        header,
        rows,
    )


def _throughput_row(size: int, infer: dict[str, Any] | str) -> list[Cell]:
    if isinstance(infer, str):
        return [size, *[None] * 8, infer, None]
    efficiency = None if infer["e2e_efficiency"] is None else 100 * infer["e2e_efficiency"]
    *percentiles, batches = (infer["latency_ms"].get(key) for key in ("p50", "p90", "p99", "n"))
    numbers = infer.get("in_flight") or [None]  # a vendor's file does not say it
    in_flight = numbers[0] if len(numbers) == 1 else " or ".join(map(str, numbers))
    speeds = [infer["interface_images_per_s"], infer["e2e_images_per_s"], efficiency, *percentiles]
    return [size, *speeds, in_flight, batches, infer["images"], infer.get("card_images_per_s")]


def _unattributed(perf: dict[str, Any]) -> str:
    """How much of the profile has no operator type; empty where all of it has one."""
    rest = perf.get("unattributed")
    if not rest or not rest["calls"]:
        return ""
    share = rest["total_us"] / (1000 * perf["operators_ms"] * perf["profiled_batches"])
    return f". Not attributed, in Other: {rest['calls']} calls without a type, {rest['total_us']:.1f} µs, {100 * share:.1f} %"


def _measured(run: Run) -> dict[int, dict[str, Any]]:
    """The `perf.json` of the page's batch size, or of all on the page across batch sizes."""
    sizes = per_batch(run, "perf", "perf").items()
    return {size: perf for size, perf in sizes if isinstance(perf, dict) and run.batch_size in (None, size)}


def _stacked(axes: Any, ms: pd.DataFrame, colours: Sequence[str]) -> None:
    """A bar of ms per image for each batch size (row), its parts (columns) end to end, the sum behind it."""
    ms.plot.barh(stacked=True, width=0.6, color=colours, ax=axes, legend=False)
    totals = ms.sum(axis="columns")
    axes.bar_label(axes.containers[-1], [f"{total:.2f}" for total in totals], padding=4)
    axes.set(xlabel="ms per image", ylabel="", xlim=(0, 1.15 * totals.max()))
    axes.invert_yaxis()


def families_chart(run: Run) -> Chart | Banner:
    """Operator time by Ascend family at each batch size that was profiled: ms per image, and shares, the named three on top."""
    import pandas as pd

    measured = _measured(run)
    rows = {f"bs{size}": perf for size, perf in measured.items() if perf["families"]}
    if not rows:
        why = next((perf["profile_reason"] for perf in measured.values()), "run notebooks/07_perf.ipynb, or `deit-report run`")
        return Banner("note" if measured else "missing", "Not profiled.", in_words(why))
    shares = pd.DataFrame({size: pd.DataFrame(perf["families"]).loc["share_percent"] for size, perf in rows.items()})
    ms = shares / 100 * [perf["operators_ms"] / perf["batch_size"] for perf in rows.values()]
    said = {size: [f"{share:.1f} %, {ms[size][name]:.2f} ms" for name, share in shares[size].items()] for size in rows}
    heights, height = (0.5 + 0.3 * len(rows), 0.6 + 0.34 * len(FAMILIES) * max(1, 0.6 * len(rows))), 0.8 / len(rows)
    with new_figure(sum(heights), heights=heights) as (figure, (above, axes)):
        _stacked(above, ms.T, FAMILY_COLOURS)
        for i, (size, texts) in enumerate(said.items()):
            places = np.arange(len(FAMILIES)) + (i - (len(rows) - 1) / 2) * height
            bars = axes.barh(places, shares[size], height * 0.9, color=FAMILY_COLOURS)
            axes.bar_label(bars, [f"{text} {size}" if len(rows) > 1 else text for text in texts], padding=3, fontsize=9)
        axes.set(yticks=range(len(FAMILIES)), yticklabels=FAMILIES, xlabel="share of operator time, %")
        axes.invert_yaxis()
        axes.set_xlim(0, 1.6 * shares.to_numpy().max())
        for label in axes.get_yticklabels()[: len(NAMED_FIRST)]:
            label.set_fontweight("bold")
    alt = "; ".join(f"{size}: {', '.join(map(' '.join, zip(FAMILIES, texts, strict=True)))}" for size, texts in said.items())
    device = runtime_text(next(iter(rows.values()))["runtime"], streams=False)
    batches = ", ".join(f"{size}: {perf['profiled_batches']}" for size, perf in rows.items())
    names = "ms per image under the profiler and shares; the names are Ascend's for the counterpart work"
    rest = "".join(f"{note} of {size}" for size, perf in rows.items() if (note := _unattributed(perf)))
    return Chart(figure, f"Operator time measured on {device}, profiled batches {batches}; {names}{rest}", alt)


def limit_chart(run: Run) -> Chart | Banner:
    """What lies between the chip's peak and the measured rate, in ms per image, at each batch size."""
    import pandas as pd

    measured = _measured(run)
    limits = {f"bs{size}": parts for size, perf in measured.items() if (parts := chip_limit(perf))}
    if not limits:
        text = "07 must have timed the model, 02 counted its FLOPs; where no peak is measured set `peak_tflops`."
        return Banner("note" if measured else "missing", "How far it is from the chip's limit is not known.", text)
    ms = pd.DataFrame(limits, index=LIMIT_PARTS).T.fillna(0.0)  # a batch size may not know all of the parts
    with new_figure(1.3 + 0.4 * len(ms)) as (figure, axes):
        _stacked(axes, ms, LIMIT_COLOURS)
        longest = ms.sum(axis="columns").max()
        for i, bars in enumerate(axes.containers):
            texts = [f"{bar.get_width():.2f}" if bar.get_width() > longest / 9 else "" for bar in bars]
            axes.bar_label(bars, texts, label_type="center", fontsize=9, color="#111111" if i else "#EEEEEE")
        drawn = [bars for bars in axes.containers if any(bar.get_width() for bar in bars)]
        figure.legend(drawn, [bars.get_label() for bars in drawn], loc="outside lower left", ncols=2, frameon=False)
    alt = "; ".join(
        f"{size}: {', '.join(f'{name} {part:.2f} ms' for name, part in row.items())}" for size, row in limits.items()
    )
    known = [perf for size, perf in measured.items() if f"bs{size}" in limits]
    peaks = dict.fromkeys(f"{perf['peak_flops_per_s'] / 1e9:.1f} GFLOP/s, {perf['peak_source']}" for perf in known)
    caption = (
        f"From the chip's peak ({' / '.join(peaks)}) to what was measured, ms per image: the shares of the profile are laid on "
        "the measured time. Products are MatMulV2, BatchMatMulV2 and Conv2D, whose FLOPs are counted"
    )
    return Chart(figure, caption, alt)


def top_operators(run: Run, count: int = 12) -> Table | Banner:
    """The operators that take most time, all nodes of a kind together."""
    import pandas as pd

    perf = run.read("perf")
    if perf["profile_reason"]:
        return Banner("note", "Not profiled.", f"{perf['profile_reason']}.")
    by_kind = pd.read_csv(run.file("profile")).groupby(["family", "op_type"], as_index=False)
    totals = by_kind.agg(nodes=("name", "size"), total_us=("total_us", "sum"), share_percent=("share_percent", "sum"))
    totals["total_us"] /= 1000 * perf["profiled_batches"]  # ms per batch
    rows = totals.sort_values("total_us", ascending=False).head(count)
    of_all = f" of {perf['profiled_ms']:.1f}" if perf["profiled_ms"] else ""
    device = runtime_text(perf["runtime"], streams=False)
    return Table(
        f"Operators by time; profiled batches of {perf['batch_size']}: {perf['profiled_batches']}, on {device}; families are "
        f"Ascend's names for the same work. {perf['operators_ms']:.1f}{of_all} ms per batch lie in operators"
        f"{_unattributed(perf)}",
        "family | operator | nodes | ms per batch:.3f | share %:.2f",
        list(rows.itertuples(index=False, name=None)),
    )


def utilisation(run: Run) -> Facts:
    """The model's rate of arithmetic against what the device can do."""
    perf = run.read("perf")
    flops, pure = perf["flops_per_image"], perf["pure"]
    what, rate = ("the model alone", pure["images_per_s"]) if pure else ("the call within 05", perf["images_per_s"])
    peak = {"utilisation %": "not known: set peak_tflops to what the device's data sheet says for this precision"}
    if perf["utilisation_percent"] is not None:
        gflops = f"{perf['peak_flops_per_s'] / 1e9:.1f}"
        peak = {f"peak GFLOP/s: {perf['peak_source']}": gflops, "utilisation %": f"{perf['utilisation_percent']:.1f}"}
    return Facts(
        f"Utilisation, bs{perf['batch_size']}, on {runtime_text(perf['runtime'])}",
        {
            "GFLOP per image, counted in the graph": f"{flops / 1e9:.2f}" if flops else "no graph: run 01 and 02",
            f"GFLOP/s of {what}": f"{rate * flops / 1e9:.1f}" if flops else None,
            **peak,
        },
    )
