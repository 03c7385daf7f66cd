"""03_convert: a static graph -> an OM for an Ascend chip with ATC (`convert.json`), or why that is not needed or not possible.

Written against the vendor's documentation and tested with an emulator of it; never run on a machine with CANN.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from .. import artifacts, freshness
from ..artifacts import Run
from ..errors import ToolError
from . import aipp, cann, npu_smi
from .codes import atc_errors

UNKNOWN_SOC = "Ascend<Name column of npu-smi info>"
SUCCESS = "ATC run success"  # the line that the vendor's guide gives as the sign of success
NOT_NEEDED = "Backend {backend} loads the static ONNX graph directly: there is nothing to convert."
NO_ATC = (
    "ATC is not on this host. Copy the run folder to an Ascend host with CANN, source set_env.sh there and run "
    "`deit-report run {name}/spec.yaml --from 03`."
)
# precision of the spec -> ATC's flag. bf16 has only the newer one.
_PRECISION = {
    "fp16": {"precision_mode": "force_fp16"},
    "fp32": {"precision_mode": "must_keep_origin_dtype"},
    "bf16": {"precision_mode_v2": "mixed_bfloat16"},
}


def convert(run: Run) -> dict[str, Any]:
    """Stage 03: make the device model of this batch size, or say that the backend needs none.

    Returns:
        The content of `convert.json`.

    Raises:
        ToolError: ATC is missing or failed; what it said, and what to do. `convert.json` then has the command.
    """
    freshness.ensure(run, "convert", lambda: _convert(run))
    return run.read("convert")


def command(
    model: PurePosixPath, input_name: str, shape: list[int], soc_version: str | None, flags: Mapping[str, str | int | None]
) -> list[str]:
    """ATC's command line for a static ONNX graph, as a list of arguments.

    Framework 5 is ONNX; input_format stays NCHW for ONNX whatever AIPP takes in; input_shape repeats the graph's own static
    shape; the model is written as `<output>.om`.

    Args:
        flags: further flags, without dashes; one that is named above replaces it, None leaves it out.
    """
    every: dict[str, str | int | None] = {
        "framework": 5,
        "model": str(model),
        "output": str(model.with_suffix("")),
        "input_format": "NCHW",
        "input_shape": f"{input_name}:{','.join(map(str, shape))}",
        "log": "error",
        "soc_version": soc_version or UNKNOWN_SOC,
        "check_report": str(model.with_name("check_result.json")),  # batch sizes are compiled side by side
        **flags,
    }
    return ["atc", *(f"--{name}={value}" for name, value in every.items() if value is not None)]


def flags_of(run: Run) -> dict[str, str | int | None]:
    """The flags the spec asks for: precision, ModelZoo's choice for ViTs, static AIPP, then `atc` of the spec as it stands.

    High performance for Gelu and small channels are what ModelZoo's ViT recipes pass on 310P.
    """
    named = any(name.startswith("precision_mode") for name in run.spec.atc)
    flags: dict[str, str | int | None] = {} if named else dict(_PRECISION[run.spec.precision])
    flags |= {"op_select_implmode": "high_performance", "optypelist_for_implmode": "Gelu", "enable_small_channel": 1}
    if run.spec.aipp:
        flags["insert_op_conf"] = run.relative(run.file("aipp"))
    return {**flags, **run.spec.atc, **{name: str(path) for name, path in run.atc_files().items()}}


def _convert(run: Run) -> None:
    optimize = run.read("optimize")
    shape = optimize["input_shape"]
    if shape[0] != run.batch_size:
        raise ToolError(f"{run.file('optimize')}: graph of batch size {shape[0]}, this run has {run.batch_size}")
    model = PurePosixPath(run.relative(run.file("static_onnx")))
    facts: dict[str, Any] = {"backend": run.spec.backend, "batch_size": run.batch_size, "status": "not needed"}
    if not run.spec.on_ascend:
        arguments = command(model, optimize["input_name"], shape, run.spec.soc_version, flags_of(run))
        facts["reason"] = NOT_NEEDED.format(backend=run.spec.backend)
        artifacts.write_json(run.file("convert"), {**facts, **_described(run, arguments, model)})
        return
    if run.spec.aipp:
        artifacts.write_text(run.file("aipp"), aipp.config(run.spec.recipe))
    version = cann.version()
    path = cann.tool("atc")
    soc = run.spec.soc_version
    if soc is None and path and "soc_version" not in run.spec.atc:
        soc = npu_smi.soc_version(run.spec.device)
    arguments = command(model, optimize["input_name"], shape, soc, flags_of(run))
    if path is None:
        reason = NO_ATC.format(name=run.folder.name)
        artifacts.write_json(
            run.file("convert"), {**facts, "status": "missing", "reason": reason, **_described(run, arguments)}
        )
        raise ToolError(f"{reason} The command: {shlex.join(arguments)}")
    cann.check_opset(optimize["opset"], version)
    _run(run, [path, *arguments[1:]])
    emulated = "EMULATED" in run.file("atc_log").read_text(encoding="utf-8")
    done = {"status": "done", "reason": f"ATC of CANN {version or 'of unknown version'} made the OM", "emulated": emulated}
    om = PurePosixPath(run.relative(run.file("om")))
    artifacts.write_json(run.file("convert"), {**facts, **done, "cann": version, **_described(run, arguments, om)})


def _described(run: Run, arguments: list[str], model: PurePosixPath | None = None) -> dict[str, Any]:
    soc = next(argument.partition("=")[2] for argument in arguments if argument.startswith("--soc_version="))
    return {
        "device_model": str(model) if model else None,
        "command": arguments,
        "command_line": shlex.join(arguments),
        "soc_version": None if soc == UNKNOWN_SOC else soc,
        "aipp": run.spec.aipp,
    }


def _run(run: Run, arguments: list[str]) -> None:
    """Run ATC in the run folder, its output going to `atc.log` and to stdout as it comes.

    Raises:
        ToolError: return code, no success line or no OM; the errors it named, and the log.
    """
    om, log = run.file("om"), run.file("atc_log")
    named = f"{om.stem}_*_*.om"  # some versions add system and architecture
    for path in (om, *om.parent.glob(named)):
        path.unlink(missing_ok=True)  # an OM of an earlier run must not pass for this one's
    code, text = cann.logged(arguments, log, run.folder, cann.without_driver())
    if not om.is_file() and (other := next(om.parent.glob(named), None)):
        other.replace(om)
    made = om.is_file() and om.stat().st_size > 0
    if code == 0 and SUCCESS in text and made:
        return
    errors = atc_errors(text)
    failed = f"ATC failed (exit code {code}{'' if made else ', no OM'}{'' if SUCCESS in text else ', no success line'})"
    if not errors:
        raise ToolError(f"{failed}: its log {log} names no error code; look into ~/ascend/log")
    first = errors[0]
    where = f" at operator {first.operator}" if first.operator else ""
    more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    raise ToolError(f"{failed}: {first.code}{where}: {first.text}{more}: {first.advice}; log {log}")
