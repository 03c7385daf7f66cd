"""03_convert: a static graph -> an OM for an Ascend chip with ATC (`convert.json`), or why that is not done."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath
from typing import Any

from .. import files
from ..ascend import aipp, atc, cann, npu_smi
from ..errors import ToolError
from ..run.folder import Run
from ..run.records import makes


@makes("convert")
def convert(run: Run) -> dict[str, Any]:
    """Stage 03: make the device model, or say that the backend needs none; returns the content of `convert.json`.

    Raises:
        ToolError: ATC is missing or failed; what it said, and what to do. `convert.json` then has the command.
    """
    optimize = run.read("optimize")
    facts = {"backend": run.spec.backend, "batch_size": run.batch_size, "status": "not needed"}
    if not run.spec.backend_row.needs_om:
        facts["reason"] = f"Backend {run.spec.backend} loads the static ONNX graph directly: there is nothing to convert."
        return {**facts, **_described(run, _command(run, optimize, run.spec.soc_version), run.file("static_onnx"))}
    if run.spec.aipp:
        recipe = run.spec.recipe
        files.write_text(run.file("aipp"), aipp.config(recipe.crop_px, recipe.mean, recipe.std))
    path, version, soc = cann.tool("atc"), cann.version(), run.spec.soc_version
    if soc is None and path and "soc_version" not in run.spec.atc:
        soc = npu_smi.soc_version(run.spec.device)
    arguments = _command(run, optimize, soc)
    if path is None:
        reason = (
            "ATC is not on this host. Copy the run folder to an Ascend host with CANN, source set_env.sh there and run "
            f"`deit-report run {run.folder.name}/spec.yaml --from 03`."
        )
        files.write_json(run.file("convert"), {**facts, "status": "missing", "reason": reason, **_described(run, arguments)})
        raise ToolError(f"{reason} The command: `command_line` in {run.file('convert')}")
    cann.check_opset(optimize["opset"], version)
    atc.compile_om([path, *arguments[1:]], run.file("om"), run.file("atc_log"), run.folder, optimize["opset"])
    facts |= {"status": "done", "reason": f"ATC of CANN {version or 'of unknown version'} made the OM"}
    emulated = "EMULATED" in run.file("atc_log").read_text(encoding="utf-8")
    return {**facts, "emulated": emulated, "cann": version, **_described(run, arguments, run.file("om"))}


def _command(run: Run, optimize: dict[str, Any], soc: str | None) -> list[str]:
    model = PurePosixPath(run.relative(run.file("static_onnx")))
    files_named = {name: str(path) for name, path in run.atc_files().items()}
    flags = atc.flags(run.spec.precision, run.relative(run.file("aipp")) if run.spec.aipp else None, run.spec.atc | files_named)
    return atc.command(model, optimize["input_name"], optimize["input_shape"], soc, flags)


def _described(run: Run, arguments: list[str], model: Path | None = None) -> dict[str, Any]:
    soc = next(argument.partition("=")[2] for argument in arguments if argument.startswith("--soc_version="))
    return {
        "device_model": run.relative(model) if model else None,
        "command": arguments,
        "command_line": shlex.join(arguments),
        "soc_version": None if soc == atc.UNKNOWN_SOC else soc,
        "aipp": run.spec.aipp,
    }
