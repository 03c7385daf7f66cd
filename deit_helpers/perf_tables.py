"""The tables of 07_perf: latencies, rates, what was lost between them, operators, utilisation."""

from __future__ import annotations

from .artifacts import Run
from .display import Banner, Cell, Facts, Table, device_text, from_records, in_flight_text, runtime_text


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
