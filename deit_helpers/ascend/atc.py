"""03_convert: the ATC command for a static graph, and whether it is needed (`convert.json`).

Written against the vendor's documentation; no command of this module was ever run on a machine with CANN.
"""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import Any

from .. import artifacts, freshness
from ..artifacts import Run
from ..errors import ToolError

UNKNOWN_SOC = "Ascend<Name column of npu-smi info>"
NOT_NEEDED = "ONNX Runtime loads the static ONNX graph directly: there is nothing to convert."


def convert(run: Run) -> dict[str, Any]:
    """Stage 03: say what conversion the backend needs, with the exact ATC command for an Ascend device.

    Returns:
        The content of `convert.json`.

    Raises:
        ToolError: the backend needs a conversion this version cannot do.
    """
    if run.spec.backend != "onnxruntime":
        raise ToolError(f"backend {run.spec.backend!r}: this version converts for none but onnxruntime: set that backend")
    freshness.ensure(run, "convert", lambda: _convert(run))
    return run.read("convert")


def command(model: PurePosixPath, input_name: str, shape: list[int], soc_version: str | None) -> list[str]:
    """ATC's command line for a static ONNX graph, as a list of arguments.

    Flags: framework 5 is ONNX, input_format must stay NCHW for ONNX, input_shape repeats the graph's own static shape;
    the model is written as `<output>.om`.
    """
    return [
        "atc",
        "--framework=5",
        f"--model={model}",
        f"--output={model.with_suffix('')}",
        "--input_format=NCHW",
        f"--input_shape={input_name}:{','.join(map(str, shape))}",
        "--log=error",
        f"--soc_version={soc_version or UNKNOWN_SOC}",
    ]


def _convert(run: Run) -> None:
    optimize = run.read("optimize")
    shape = optimize["input_shape"]
    if shape[0] != run.batch_size:
        raise ToolError(f"{run.file('optimize')}: graph of batch size {shape[0]}, this run has {run.batch_size}")
    arguments = command(
        PurePosixPath(run.relative(run.file("static_onnx"))), optimize["input_name"], shape, run.spec.soc_version
    )
    artifacts.write_json(
        run.file("convert"),
        {
            "backend": run.spec.backend,
            "batch_size": run.batch_size,
            "status": "not needed",
            "reason": NOT_NEEDED,
            "device_model": run.relative(run.file("static_onnx")),
            "command": arguments,
            "command_line": shlex.join(arguments),
            "soc_version": run.spec.soc_version,
        },
    )
