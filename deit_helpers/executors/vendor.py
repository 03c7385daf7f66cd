"""05 by `ais_bench` or `benchmark`, on a host that has one of them and no pyACL: images as files, one run, its files back.

Written against what is recorded of these tools and tested with stand-ins of them; never run on a device.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..ascend import cann, codes, npu_smi
from ..data import batches, transforms
from ..errors import DeitError, ToolError
from ..metrics import latency
from ..run import host
from ..run.folder import Run
from . import measured

_DUMPS = "dumps"


def infer(run: Run) -> dict[str, Any]:
    """Run every image of the store through the OM with the tool of the spec; writes the files of 05 but `infer.json`.

    Returns:
        The content of `infer.json`.

    Raises:
        ToolError: no tool, no room for its inputs, it failed or left no results; its log is kept.
    """
    count = run.read("preprocess")["images"]
    _program(run)  # is it there? before its inputs are written
    log = run.file("tool_log")
    with _workplace(log.parent) as folder:
        stems = [f"{i:08d}" for i in range(count)]  # the tools cut names at dots, sort them, and drop their folders
        _write_inputs(run, folder / "inputs", stems)
        if run.spec.backend == "ais_bench":
            options: dict[str, Any] = {"model": run.file("om"), "input": "inputs", "output": ".", "output_dirname": _DUMPS}
            options |= {"outfmt": "NPY", "device": run.spec.device}
            results, performance = folder / _DUMPS, folder / f"{_DUMPS}_summary.json"
        else:
            side = run.spec.recipe.crop_px
            _write_list(folder, stems, run.size, side)
            binary = "FP16" not in str(run.spec.atc.get("output_type"))
            options = {"input_text_path": "inputs.info", "input_width": side, "input_height": side, "model_type": "vision"}
            options |= {"useDvpp": False, "output_binary": binary}
            results = folder / "result" / f"dumpOutput_device{run.spec.device}"
            performance = folder / "result" / run.file("perf_vision").name
        runtime = _describe(run)  # before the work: a failing npu-smi must not cost its results
        others = host.Others()
        code, text = cann.logged(_command(run, options), log, folder)
        other_percent, _ = others.percent()
        if code or not performance.is_file():
            why = codes.failure(run.spec.backend, text.partition("\n")[2], f"see {log}")
            missing = "" if performance.is_file() else f", no {performance.name}"
            raise ToolError(f"{run.spec.backend} failed (exit code {code}{missing}): {why}")
        result = measured.read_performance(run, performance)
        measured.write_logits(run, results, stems)
        trust = latency.trust(other_percent, None, latency.blocks_percent(np.array(result.batch_ms)))
        facts = measured.write_performance(run, result, runtime, images=count, machine=host.machine(), **trust)
        files.write_json(run.file("infer"), facts)  # before the tool's own results go
        return facts


@contextlib.contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """A folder for inputs and results, in the run folder: /tmp is often too small for 602 KB per image.

    After a failure the results stay, for hours may be in them; the inputs go.
    """
    files.write_dir(parent)
    folder = Path(tempfile.mkdtemp(prefix="results-", dir=parent))
    kept = False
    try:
        yield folder
    except DeitError as err:
        shutil.rmtree(folder / "inputs", ignore_errors=True)
        if kept := any(folder.iterdir()):
            raise type(err)(f"{err}; what the tool wrote is kept in {folder}") from err
        raise
    except OSError as err:
        raise files.unwritable(folder, err) from err
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def watched_command(run: Run, batches: int) -> list[str]:
    """The tool's command that runs the OM so many times without data, for a profiler to watch."""
    ais_bench = {"model": run.file("om"), "loop": batches, "warmup_count": 0, "device": run.spec.device}
    return _command(run, ais_bench if run.spec.backend == "ais_bench" else {"round": batches})


def _describe(run: Run) -> dict[str, Any]:
    """What is measured, for the report."""
    report = npu_smi.info()
    chips = report.chips if report else ()
    soc = chips[run.spec.device].soc_version if run.spec.device < len(chips) else None
    return cann.describe(run.spec.backend, soc or run.spec.soc_version, run.spec.device, run.spec.precision_text)


def _command(run: Run, options: dict[str, Any]) -> list[str]:
    """The tool's command line, in its way of writing flags."""
    if run.spec.backend == "ais_bench":
        return [*_program(run), *(part for key, value in options.items() for part in (f"--{key}", str(value)))]
    named = {"device_id": run.spec.device, "batch_size": run.size, "om_path": run.file("om"), **options}
    return [*_program(run), *(f"-{key}={value}" for key, value in named.items())]


def _program(run: Run) -> list[str]:
    if run.spec.backend == "ais_bench":
        if cann.module_file("ais_bench") is None:
            raise ToolError(f"{sys.executable} has no module ais_bench: install its two wheels, or set backend: benchmark")
        return [sys.executable, "-m", "ais_bench"]
    # On PATH, behind set_env.sh, or in the folder the command runs in, where its users put it.
    path = cann.tool(cann.BENCHMARK) or shutil.which(str(run.root / cann.BENCHMARK))
    if path is None:
        raise ToolError(f"{cann.BENCHMARK} is neither on PATH nor in {run.root}: put it there, or set backend: ais_bench")
    return [path]


def _write_inputs(run: Run, folder: Path, stems: list[str]) -> None:
    """One raw file per image, as the OM takes it in: NHWC uint8 under AIPP or the edit `uint8_input`, else NCHW floats."""
    eight_bit = run.spec.aipp or "uint8_input" in run.spec.edits
    kind = np.dtype(np.uint8 if eight_bit else np.float16 if "input_fp16_nodes" in run.spec.atc else np.float32)
    needed = len(stems) * 3 * run.spec.recipe.crop_px**2 * kind.itemsize
    folder.mkdir()
    if needed > shutil.disk_usage(folder).free:
        gib, free = needed / 2**30, shutil.disk_usage(folder).free / 2**30
        raise ToolError(
            f"{folder.parent}: {run.spec.backend} needs {gib:.1f} GiB of inputs, {free:.1f} are free: set aipp: static"
        )
    for start, stem in enumerate(stems):
        crops = batches.crops_at(run, [start])
        transforms.prepare(crops, run.spec.recipe, kind).astype(kind).tofile(folder / f"{stem}.bin")


def _write_list(folder: Path, stems: list[str], batch_size: int, side_px: int) -> None:
    """The list that benchmark reads. Its last image is repeated: what the tool does with a short batch is not known."""
    padded = stems + stems[-1:] * (-len(stems) % batch_size)
    lines = [f"{i} inputs/{stem}.bin {side_px} {side_px}\n" for i, stem in enumerate(padded)]
    files.write_text(folder / "inputs.info", "".join(lines))
