"""What this machine can run, what is missing and how to get it; how fast a run's graph is on every backend here."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import numpy as np

from .ascend import cann, npu_smi
from .backends import bench
from .errors import DeitError, ToolError
from .metrics import latency
from .run.backends import BACKENDS
from .run.folder import Run
from .run.host import machine, version_of


class Finding(NamedTuple):
    """One row: what was looked for, whether it is there, and its details or how to get it."""

    what: str
    ok: bool
    detail: str


# What only some hosts need: package -> (what for, how to get it)
_OPTIONAL = {
    "torch": ("export (01)", "pip install 'deit-report[export]'"),
    "timm": ("export (01)", "pip install 'deit-report[export]'"),
    "onnxsim": ("optimize (02)", "pip install 'deit-report[export]'"),
    "onnx-ir": ("optimize (02)", "pip install 'deit-report[export]'"),
    "scikit-learn": ("the embedded demo", "pip install 'deit-report[demo]'"),
    "openvino": ("backend openvino", "pip install 'deit-report[openvino]'"),
}
_TOOLS = {
    "atc": "convert (03) for Ascend: source set_env.sh of the CANN toolkit",
    "msprof": "operators of an NPU (07): source set_env.sh of the CANN toolkit",
    "npu-smi": "an Ascend device: install the NPU driver",
}
_BOX_S = 3.0  # each backend is timed for at most so long


def time_backends(run: Run) -> list[Finding]:
    """Time the static graph of a run on every backend and precision of this machine; the fastest comes last."""
    rows: list[Finding] = []
    samples: dict[str, np.ndarray] = {}
    for backend, precision in _of_this_host():
        keys = {"backend": backend, "precision": precision, "runtime": {}, "providers": {}, "edits": ()}
        what = f"{backend} {precision}, batches of {run.size}"
        try:
            with bench.open_model(run.replace(**keys)) as model:
                batch = model.noise(run.size)
                model.warm_up(batch)
                samples[what], _ = bench.time_alone(model, batch, _BOX_S)
                at_once = f", {model.workers} batches at once" if model.workers > 1 else ""
        except DeitError as err:
            rows.append(Finding(what, False, str(err)))
            continue
        rows.append(Finding(what, True, f"{_rate_text(samples[what], run.size)}, the model alone{at_once}"))
    if samples:
        faithful = next(iter(samples))
        best, *others = sorted(samples, key=lambda what: float(np.median(samples[what])))
        text = f"{best}: {_rate_text(samples[best], run.size)}"
        if best != faithful:
            faster = latency.ratio(samples[faithful], samples[best])
            times = f"{faster[0]:.2f} ({faster[1]:.2f} to {faster[2]:.2f}) times" if faster else "perhaps more than"
            text += f", {times} the rate of {faithful.partition(',')[0]}"
        alike = [what for what in others if (ratio := latency.ratio(samples[what], samples[best])) is None or ratio[1] <= 1]
        if alike:
            text += f"; not told apart from {', '.join(what.partition(',')[0] for what in alike)}"
        rows.append(Finding("fastest here", True, text))
    return rows


def _of_this_host() -> list[tuple[str, str]]:
    """Backends that need no device of their own, each with every precision it may compute in."""
    pairs = [(name, precision) for name, row in BACKENDS.items() if not row.needs_om for precision in row.precisions]
    return [pair for pair in pairs if pair != ("torch", "fp16")]  # on CPUs slower than fp32, by far


def _rate_text(samples_ms: np.ndarray, images: int) -> str:
    rate, interval = latency.rate(samples_ms, images)
    range_text = f"{interval[0]:.1f} to {interval[1]:.1f}" if interval else "too few for an interval"
    return f"{rate:.1f} images/s ({range_text}, {len(samples_ms)} timings)"


def examine() -> list[Finding]:
    """Look at machine, packages, backends and tools."""
    host = machine()
    rows = [Finding("machine", True, f"{host['cpu']}, {host['cores']} cores, {host['memory_gib']} GiB")]
    for name, row in BACKENDS.items():
        if row.target is None:
            continue
        try:
            importlib.import_module(row.target.partition(":")[0])
        except (Exception, SystemExit) as err:  # a broken installation is a row, whatever it raises
            rows.append(Finding(f"backend {name}", False, f"{err}: {row.install}"))
        else:
            rows.append(Finding(f"backend {name}", True, "EMULATED" if cann.is_emulated(name) else version_of(name) or "ready"))
    for name, (purpose, hint) in _OPTIONAL.items():
        version = version_of(name)
        rows.append(Finding(f"{name} for {purpose}", version is not None, version or hint))
    for tool, hint in _TOOLS.items():
        path = cann.tool(tool)
        rows.append(Finding(tool, path is not None, path or hint))
    here = {"ais_bench": cann.module_file("ais_bench"), cann.BENCHMARK: cann.tool(cann.BENCHMARK)}
    rows += [Finding(name, path is not None, str(path or "only where pyACL is not to be had")) for name, path in here.items()]
    rows.append(Finding("CANN toolkit", cann.version() is not None, cann.version() or "install it, or source its set_env.sh"))
    try:
        report = npu_smi.info()
    except ToolError as err:
        rows.append(Finding("Ascend chips", False, str(err)))
    else:
        for i, chip in enumerate(report.chips if report else ()):
            facts = f"{chip.soc_version or chip.name}, {chip.memory}, driver {report.driver if report else None}"
            rows.append(Finding(f"Ascend chip, device {i}", chip.health == "OK", f"{facts}, health {chip.health}"))
    return rows
