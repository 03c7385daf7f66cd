"""The tables of 07_perf: latencies, rates, what was lost between them, operators, utilisation."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..metrics.operators import FAMILIES, NAMED_FIRST
from ..run import records
from ..run.folder import Run
from ..run.records import per_batch
from .elements import Banner, Cell, Chart, Facts, Table, device_text, from_records, in_flight_text, runtime_text
from .notes import notes as notes
from .style import END_TO_END, FAMILY_COLOURS, PURE, STYLE, WIDTH_IN


def throughput(run: Run) -> Table:
    """Rates of every batch size that was run; the fastest is not picked out, the reader chooses."""
    columns = {
        "size": "batch size",
        "interface_images_per_s": "images/s",
        "e2e_images_per_s": "end to end images/s",
        "efficiency": "efficiency %",
        "p50": "p50 ms",
        "p90": "p90 ms",
        "at_once": "in flight",
        "n": "batches",
        "images": "images",
    }
    rows: list[dict[str, Any]] = []
    where, measured = "", list[dict[str, Any]]()
    for size, infer in per_batch(run, "infer", "infer").items():
        if isinstance(infer, str):
            rows.append({"size": size, "images": infer})
            continue
        where = f" on {device_text(infer['runtime'])}"
        measured.append(infer)
        share = infer["e2e_efficiency"]
        numbers = infer.get("in_flight") or [None]  # a vendor's file does not say it
        at_once = numbers[0] if len(numbers) == 1 else " or ".join(map(str, numbers))
        own = {"size": size, "efficiency": None if share is None else 100 * share, "at_once": at_once}
        rows.append({**infer, **infer["latency_ms"], **own})
    caption = (
        f"Throughput{where}: images/s of the model call alone over full batches, and end to end from the {run.spec.source} "
        "to the logits over all images; efficiency is the share of that time spent in the call; p50 and p90 of the call per "
        f"batch{in_flight_text(*measured)}"
    )
    rates = [key for key in columns if key.endswith("per_s")]
    formats = dict.fromkeys((*rates, "efficiency", "card_images_per_s"), ".1f") | {"p50": ".2f", "p90": ".2f"}
    if any(row.get("card_images_per_s") for row in rows):  # only tools that measure one device of several say it
        columns["card_images_per_s"] = "images/s of the card"
    return from_records(caption, rows, columns, {key: value for key, value in formats.items() if key in columns})


def latency_chart(run: Run) -> Chart | Banner:
    """Histogram of the latencies of one batch size with p50 and p90."""
    perf = run.read("perf")
    numbers = perf["latency_ms"]
    samples = pd.read_csv(run.file("latency"))["latency_ms"]
    if samples.empty:
        return Banner("note", "No distribution.", "The imported file has the mean only.")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 2.6))
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


def throughput_chart(run: Run) -> Chart | Banner:
    """Images per second against batch size: the model call alone, and end to end."""
    rows = {size: row for size, row in records.per_batch(run, "infer", "infer").items() if not isinstance(row, str)}
    if not rows:
        return Banner("note", "Not measured yet.", "Run notebooks/05_infer.ipynb, or `deit-report run`.")
    series = {  # a rate that a vendor's file does not give is NaN: not drawn
        "model call alone": ([row["interface_images_per_s"] for row in rows.values()], PURE, "-", "o"),
        "end to end": ([float(row["e2e_images_per_s"] or "nan") for row in rows.values()], END_TO_END, "--", "s"),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.0))
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


def families_chart(run: Run) -> Chart | Banner:
    """Share of operator time by Ascend family, for the batch sizes that were profiled; the named three on top."""
    found = {size: perf for size, perf in records.per_batch(run, "perf", "perf").items() if not isinstance(perf, str)}
    if run.batch_size:
        found = {size: row for size, row in found.items() if size == run.batch_size}
    rows = {size: row for size, row in found.items() if row["families"]}
    if not rows:
        why = next((row["profile_reason"] for row in found.values()), "run notebooks/07_perf.ipynb, or `deit-report run`")
        return Banner("note", "Not profiled." if found else "Not profiled yet.", f"{why[0].upper()}{why[1:]}.")
    shares = {size: {name: row["families"][name]["share_percent"] for name in FAMILIES} for size, row in rows.items()}
    height = 0.8 / len(rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 1.2 + 0.34 * len(FAMILIES) * max(1, 0.6 * len(rows))))
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


def latency(run: Run) -> Table:
    perf = run.read("perf")
    return from_records(
        f"Latency of a batch of {perf['batch_size']} in ms: the model call alone{in_flight_text(perf)}, "
        f"{runtime_text(perf['runtime'])}; p99 is given from 100 samples on",
        [perf["latency_ms"]],
        {"n": "batches", "mean": "mean", "p50": "p50", "p90": "p90", "p99": "p99"},
        dict.fromkeys(("mean", "p50", "p90", "p99"), ".2f"),
    )


def rates(run: Run) -> Table:
    """What is called the speed of a model, kept apart: the first call, the model alone, and the whole data set."""
    perf = run.read("perf")
    pure, size = perf["pure"], perf["batch_size"]
    rows: list[list[Cell]] = []
    caption = f"Rates of batches of {size} on {runtime_text(perf['runtime'])}"
    if pure:
        known = pure["images_per_s_ci95"]
        n, warm = (pure["batches_per_sample"] * samples for samples in (pure["latency_ms"]["n"], pure["warmup_batches"]))
        rows += [
            ["first call, cold", 1, 1000 * size / pure["cold_ms"], None],
            ["model alone, warm", n, pure["images_per_s"], f"{known[0]:.1f} to {known[1]:.1f}" if known else "too few"],
        ]
        steal = "" if pure["steal_percent"] is None else f", {pure['steal_percent']:.1f} % of the CPU time went to other guests"
        settled = "" if pure["settled"] else "; the time box ended before it settled"
        caption += (
            f"; model alone: median and its 95 % interval, {warm} warm-up batches left out, spread "
            f"{pure['spread_percent']:.1f} %{steal}{settled}"
        )
    else:
        caption += "; only what the tool's files say"
    rows.append(["call within 05", perf["latency_ms"]["n"], perf["images_per_s"], None])
    if perf.get("images_per_s_without_waiting"):
        rows.append(["data set, if images were free", perf["latency_ms"]["n"], perf["images_per_s_without_waiting"], None])
    if perf.get("e2e_images_per_s"):
        rows.append(["data set, end to end", perf["latency_ms"]["n"], perf["e2e_images_per_s"], None])
    return Table(caption, ["what", "batches", "images/s", "95 % interval"], rows, {"images/s": ".1f"})


def accounting(run: Run) -> Facts:
    """Where the rest goes: what the pipeline, the profiler and the gaps between operators cost."""
    perf = run.read("perf")

    def text(key: str, form: str) -> str:
        return form.format(perf[key]) if perf.get(key) is not None else "not measured"

    overhead = text("profiler_overhead_percent", "{:.1f} %")
    if perf["profiler_overhead_percent"] is not None:
        known = perf["profiler_overhead_ci95_percent"]
        overhead = f"{overhead} ({known[0]:.1f} to {known[1]:.1f})" if known else "not known: too few batches"
    outside = text("residual_ms", "{:.2f}")
    if (perf["residual_ms"] or 0) < 0:
        outside = "none: by the profiler's clock operators last longer than the batch"
    return Facts(
        f"What was lost, bs{perf['batch_size']}",
        {
            "end to end, once in 05, as a share of the model alone": text("e2e_of_pure", "{:.3f}"),
            f"profiler's overhead on {perf['profiled_batches']} batches": overhead,
            "ms per profiled batch outside operators": outside,
            "s to load the model": text("load_s", "{:.2f}"),
            "most memory of the process in 05, MiB": text("peak_memory_mib", "{:.0f}"),
        },
    )


def utilisation(run: Run) -> Facts:
    perf = run.read("perf")
    flops = perf["flops_per_image"]
    pure = perf["pure"]
    what, rate = ("the model alone", pure["images_per_s"]) if pure else ("the call within 05", perf["images_per_s"])
    if perf["utilisation_percent"] is not None:
        peak: dict[str, Cell] = {
            f"peak GFLOP/s: {perf['peak_source']}": f"{perf['peak_flops_per_s'] / 1e9:.1f}",
            "utilisation %": f"{perf['utilisation_percent']:.1f}",
        }
    else:
        peak = {"utilisation %": "not known: set peak_tflops to what the device's data sheet says for this precision"}
    return Facts(
        f"Utilisation, bs{perf['batch_size']}, on {runtime_text(perf['runtime'])}",
        {
            "GFLOP per image, counted in the graph": f"{flops / 1e9:.2f}" if flops else "no graph here: run 01 and 02",
            f"images/s, {what}": f"{rate:.1f}",
            "GFLOP/s of the model": f"{rate * flops / 1e9:.1f}" if flops else None,
            **peak,
        },
    )


def top_operators(run: Run, count: int = 12) -> Table | Banner:
    import pandas as pd

    perf = run.read("perf")
    if perf["profile_reason"]:
        return Banner("note", "Not profiled.", f"{perf['profile_reason']}.")
    profile = pd.read_csv(run.file("profile"))
    grouped = profile.groupby(["family", "op_type"], as_index=False).agg(
        nodes=("name", "size"), total_us=("total_us", "sum"), share_percent=("share_percent", "sum")
    )
    rows = grouped.sort_values("total_us", ascending=False).head(count).assign(total_ms=lambda t: t["total_us"] / 1000)
    whole = f" of {perf['profiled_ms']:.1f}" if perf["profiled_ms"] else ""
    return from_records(
        f"Operators by time; profiled batches of {perf['batch_size']}: {perf['profiled_batches']}, on "
        f"{device_text(perf['runtime'])}; families are Ascend's names for the same work. {perf['operators_ms']:.1f}{whole} "
        "ms per batch lie in operators",
        rows.to_dict("records"),
        {"family": "family", "op_type": "operator", "nodes": "nodes", "total_ms": "total ms", "share_percent": "share %"},
        {"total_ms": ".1f", "share_percent": ".2f"},
    )
