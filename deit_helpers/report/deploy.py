"""Which batch size to deploy: throughput against latency, a point for each that was timed, and the answer in a sentence."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..metrics.latency import interval
from ..run.folder import Run
from ..run.records import per_batch
from .elements import Banner, Chart
from .style import PURE, new_figure
from .words import disturbed, runtime_text

Bounds = tuple[float, float] | None


class Speed(NamedTuple):
    """How fast a batch size is: the model alone in 07, or the call within 05 where 07 did not time it."""

    size: int
    images_per_s: float
    ci95: Bounds
    what: str
    infer: dict[str, Any]
    perf: dict[str, Any]
    doubt: str  # why its clock is not to be trusted; else empty

    @property
    def p90_ms(self) -> float:
        """Of a batch in 05, whatever was in flight besides; only where a tool's file has it."""
        return self.infer["latency_ms"]["p90"]


def timed_sizes(run: Run) -> list[Speed]:
    """The batch sizes that were timed."""
    timed, profiled = [], per_batch(run, "perf", "perf")
    for size, infer in per_batch(run, "infer", "infer").items():
        if isinstance(infer, str):
            continue
        perf = row if isinstance(row := profiled[size], dict) else {}
        pure = perf.get("pure") or {}
        rate, what = pure.get("images_per_s", infer["interface_images_per_s"]), "model alone" if pure else "call within 05"
        timed.append(Speed(size, rate, pure.get("images_per_s_ci95"), what, infer, perf, disturbed(run.at(size))))
    return timed


def answer(run: Run) -> str:
    """Which batch size to deploy, in a sentence: the fastest whose p90 keeps the budget with all of its interval."""
    budget, choices = run.spec.latency_budget_ms, _choices(run)
    within = [(speed, ci95) for speed, ci95 in choices if budget is None or (ci95 or [speed.p90_ms])[-1] <= budget]
    if not choices:
        return "No batch size to choose yet"
    if not within:
        least = min((speed for speed, _ in choices), key=lambda speed: speed.p90_ms)
        return f"No batch size surely keeps the budget of {budget:g} ms: the least p90 is {least.p90_ms:.1f} ms, bs{least.size}"
    best, ci95 = max(within, key=lambda choice: choice[0].images_per_s)
    bounds = f" ({ci95[0]:.1f} to {ci95[1]:.1f})" if ci95 else ""
    what = f"Deploy bs{best.size} within {budget:g} ms" if budget else f"bs{best.size} is the fastest"
    todo = "" if budget else "; with latency_budget_ms in the spec the fastest within it is named"
    doubt = f"; not trustworthy: {best.doubt}" if best.doubt else ""
    return (
        f"{what}: {best.images_per_s:.1f} images/s, 90 % of its batches take at most {best.p90_ms:.1f} ms{bounds}{todo}{doubt}"
    )


def deployment(run: Run) -> Chart | Banner:
    """Images per second against the p90 of a batch, with their 95 % intervals; hollow where the clock is not trusted."""
    choices, budget = _choices(run), run.spec.latency_budget_ms
    if not choices:
        return Banner("missing", f"{answer(run)}.", "The rates and latencies of 05 and 07 are not here.")
    with new_figure(3.2) as (figure, axes):
        for speed, ci95 in choices:
            x, y = speed.p90_ms, speed.images_per_s
            spread = [
                [[max(at - low, 0)], [max(high - at, 0)]] if low else None
                for at, (low, high) in ((x, ci95 or (0, 0)), (y, speed.ci95 or (0, 0)))
            ]
            fill = "none" if speed.doubt else PURE
            axes.errorbar(x, y, spread[1], spread[0], fmt="o", color=PURE, markerfacecolor=fill, capsize=2)
            axes.annotate(f"bs{speed.size}", (x, y), (5, 5), textcoords="offset points")
        if budget:
            axes.axvline(budget, color="black", linestyle="--", linewidth=1)
            axes.annotate(f" {budget:g} ms", (budget, 0), xycoords=("data", "axes fraction"), va="bottom")
        most = [1.15 * high for _, high in (axes.get_xlim(), axes.get_ylim())]  # room for the names
        axes.set(xlabel="p90 of a batch, ms", ylabel="images/s", xlim=(0, most[0]), ylim=(0, most[1]))
    first = choices[0][0]
    batches = ", ".join(f"bs{speed.size}: {speed.infer['latency_ms']['n']}" for speed, _ in choices)
    where = f"images/s of the {first.what}, p90 of the call in 05 on {runtime_text(first.infer['runtime'], streams=False)}"
    alt = "; ".join(f"bs{s.size}: {s.images_per_s:.1f} images/s at a p90 of {s.p90_ms:.1f} ms" for s, _ in choices)
    return Chart(figure, f"{answer(run)}. Drawn: {where}, batches {batches}; lines are 95 % intervals", alt)


def _choices(run: Run) -> list[tuple[Speed, Bounds]]:
    """The timed batch sizes whose p90 is known, each with the 95 % interval of it."""
    import pandas as pd

    choices = list[tuple[Speed, Bounds]]()
    for speed in timed_sizes(run):
        if speed.infer["latency_ms"].get("p90"):
            samples = pd.read_csv(run.at(speed.size).file("latency"))["latency_ms"].dropna()
            choices.append((speed, interval(samples.to_numpy(), 0.9) if len(samples) else None))
    return choices
