"""07_perf: latencies and the profiler -> `profile.csv`, `perf.json`: how fast, and where the time goes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd

from .. import files
from ..ascend import msprof
from ..backends import Profiler, watched
from ..backends.bench import open_model, pure_inference
from ..data import batches
from ..executors import vendor
from ..metrics import latency, operators
from ..metrics.operators import OperatorProfile
from ..run import host
from ..run.folder import Run
from ..run.records import makes

# At least so many are profiled, but fewer batches where they are slow; six have an interval.
PROFILED_IMAGES, PROFILED_BATCHES = 24, 6
_OVERHEAD = ("profiler_overhead_percent", "profiler_overhead_ci95_percent")
# of `infer.json`, what is said of 05 alone
_OF_05 = ("warmup_batches", "warmup_ms", "padded_rows", "batches", "shards", "interface_batches", "interface_images_per_s")
_TRUST = ("other_cpu_percent", "interrupted_percent", "unsettled_percent", "disturbed")  # of 07 itself


@makes("perf")
def measure(run: Run) -> dict[str, Any]:
    """Stage 07: statistics of the latencies of 05, a profile, the utilisation; returns the content of `perf.json`."""
    inference = run.read("infer")
    count = max(PROFILED_BATCHES, -(-PROFILED_IMAGES // run.size))
    pure, peak_flops_per_s = dict[str, Any](), None
    profile: OperatorProfile | str = f"backend {run.spec.backend} has no profiler"
    program = [sys.executable, "-m", watched.__name__, str(run.folder / "spec.yaml"), str(run.size), str(count)]
    if run.spec.backend_row.is_program:
        program = vendor.watched_command(run, count)
    else:  # with the number of streams that 05 found best: 07 must not find another
        streams = {key: value for key, value in inference["runtime"].items() if key == "streams"}
        with open_model(run.replace(runtime={**run.spec.runtime, **streams})) as model:
            (batch,) = batches.batches(run, run.size, model.dtype, 0, run.size)
            interrupted, others = host.interrupted_percent(), host.Others()
            pure = pure_inference(model, batch, run.spec.time_box_s)
            other, pure["steal_percent"] = others.percent()
            pure |= latency.trust(other, max(interrupted, host.interrupted_percent()), pure["unsettled_percent"])
            inference |= {"runtime": model.describe(), "machine": host.machine()}
            profiler = model.backend
            if isinstance(profiler, Profiler):
                with model.failing("profiling"):
                    profile = profiler.profile(batch.tensor, count)
                    peak_flops_per_s = None if run.spec.peak_tflops else profiler.peak_flops_per_s()
    if run.spec.backend_row.needs_om:  # a process of its own, once the device is free again
        table = msprof.profile(program, run.root)
        profile = table if isinstance(table, str) else OperatorProfile(table, count)
    return perf_facts(run, inference, profile, pure, peak_flops_per_s)


def perf_facts(
    run: Run,
    inference: dict[str, Any],
    profile: OperatorProfile | str,
    pure: dict[str, Any] | None = None,
    peak_flops_per_s: float | None = None,
) -> dict[str, Any]:
    """Write `profile.csv` and return the content of `perf.json`.

    Args:
        inference: the content of `infer.json`; `runtime` and `machine` are of the profiled process.
        profile: the operators, or why there are none.
        pure: what `pure_inference` says; without it, rates are those of the call in 05.
        peak_flops_per_s: as measured; the spec's `peak_tflops` goes before it.
    """
    rate, runtime = inference["interface_images_per_s"], inference["runtime"]
    alone = pure["images_per_s"] if pure else rate
    flops = run.read("optimize").get("flops_per_image") if run.file("optimize").exists() else None
    stated = run.spec.peak_tflops
    peak = stated * 1e12 if stated else peak_flops_per_s
    measured = "matrix product, measured in the same run" if peak else None
    return {
        "batch_size": run.size,
        **{key: runtime[key] for key in ("backend", "device", "precision")},
        **{key: value for key, value in inference.items() if key not in _OF_05},
        "images_per_s": rate,
        "pure": pure or None,
        **({key: pure[key] for key in _TRUST} if pure else latency.trust(None, None, None)),
        "e2e_of_pure": inference["e2e_images_per_s"] / alone if pure else None,
        **_write_profile(run, profile),
        "flops_per_image": flops,
        "peak_flops_per_s": peak,
        "peak_source": "peak_tflops of the spec" if stated else measured,
        "utilisation_percent": 100 * alone * flops / peak if peak and flops else None,
    }


def _write_profile(run: Run, profile: OperatorProfile | str) -> dict[str, Any]:
    """Write `profile.csv`, empty where there is no profile, and return what `perf.json` says of it."""
    table = pd.DataFrame(columns=operators.COLUMNS) if isinstance(profile, str) else profile.table
    with files.atomic(run.file("profile")) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    unknown = ("profiled_ms", "operators_ms", "residual_ms", "unattributed", *_OVERHEAD, "profile_reason")
    facts: dict[str, Any] = {"families": {}, "profiled_batches": 0, **dict.fromkeys(unknown)}
    if isinstance(profile, str):
        return facts | {"profile_reason": profile}
    operators_ms = float(table["total_us"].sum() / profile.batches / 1000)
    families = {name: {"share_percent": share} for name, share in operators.family_shares(table).items()}
    facts |= {"families": families, "profiled_batches": profile.batches, "operators_ms": operators_ms}
    facts |= {"unattributed": operators.unattributed(table)}
    if not profile.profiled_ms:  # a vendor's tables have no times of whole batches
        return facts
    profiled_ms = float(np.mean(profile.profiled_ms))
    facts |= {"profiled_ms": profiled_ms, "residual_ms": profiled_ms - operators_ms}
    if not profile.plain_ms:  # a batch takes too long for them
        return facts
    percent = 100 * (np.array(profile.profiled_ms) / np.array(profile.plain_ms) - 1)  # taken in turn
    return facts | dict(zip(_OVERHEAD, (float(np.median(percent)), latency.interval(percent, 0.5)), strict=True))
