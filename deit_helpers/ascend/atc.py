"""ATC: a static ONNX graph -> an OM for an Ascend chip, its command line and its errors.

Written against the vendor's documentation and tested with an emulator of it; never run on a machine with CANN.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ..errors import ToolError, one_line
from . import cann, codes

UNKNOWN_SOC = "Ascend<Name column of npu-smi info>"
SUCCESS = "ATC run success"  # the line that the vendor's guide gives as the sign of success
# precision of the spec -> ATC's flag. bf16 has only the newer one.
_PRECISION = {
    "fp16": {"precision_mode": "force_fp16"},
    "fp32": {"precision_mode": "must_keep_origin_dtype"},
    "bf16": {"precision_mode_v2": "mixed_bfloat16"},
}


def command(
    model: PurePosixPath, input_name: str, shape: list[int], soc_version: str | None, flags: Mapping[str, str | int | None]
) -> list[str]:
    """ATC's command line for a static ONNX graph, as a list of arguments.

    Framework 5 is ONNX; input_format stays NCHW for ONNX whatever AIPP takes in; input_shape repeats the graph's own static
    shape; the model is written as `<output>.om`.

    Args:
        flags: further flags, without dashes; one that is named above replaces it, None leaves it out.
    """
    named: dict[str, str | int | None] = {
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
    return ["atc", *(f"--{name}={value}" for name, value in named.items() if value is not None)]


def flags(precision: str, aipp_config: str | None, given: Mapping[str, str | int | None]) -> dict[str, str | int | None]:
    """The flags of a model: precision, ModelZoo's choice for ViTs, static AIPP, then those given, as they stand.

    High performance for Gelu and small channels are what ModelZoo's ViT recipes pass on 310P.
    """
    named = any(name.startswith("precision_mode") for name in given)
    chosen: dict[str, str | int | None] = {} if named else dict(_PRECISION[precision])
    chosen |= {"op_select_implmode": "high_performance", "optypelist_for_implmode": "Gelu", "enable_small_channel": 1}
    return {**chosen, **({"insert_op_conf": aipp_config} if aipp_config else {}), **given}


def compile_om(arguments: list[str], om: Path, log: Path, folder: Path, opset: int) -> None:
    """Run ATC in a folder, its output going to a log and to stdout as it comes.

    Args:
        arguments: the program's path and its flags, as `command` gives them.
        om: the file that it has to write.
        opset: the graph's, for what to do after an error.

    Raises:
        ToolError: return code, no success line or no OM; the first error it named or the last line it printed, and the log.
    """
    named = f"{om.stem}_*_*.om"  # some versions add system and architecture
    for path in (om, *om.parent.glob(named)):
        path.unlink(missing_ok=True)  # an OM of an earlier run must not pass for this one's
    code, text = cann.logged(arguments, log, folder, cann.without_driver())
    if not om.is_file() and (with_platform := next(om.parent.glob(named), None)):
        with_platform.replace(om)
    made = om.is_file() and om.stat().st_size > 0
    if code == 0 and SUCCESS in text and made:
        return
    said = text.partition("\n")[2] + ("\nKilled" if code == -signal.SIGKILL else "")  # the first line is the command
    errors = codes.atc_errors(said, opset)
    failed = f"ATC failed (exit code {code}{'' if made else ', no OM'}{'' if SUCCESS in text else ', no success line'})"
    if not errors:
        raise ToolError(f"{failed}: {codes.failure('atc', said, 'look into ~/ascend/log')}; log {log}")
    first = errors[0]
    where = f" at operator {one_line(first.operator, 60)}" if first.operator else ""
    others = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    raise ToolError(f"{failed}: {first.code}{where}: {one_line(first.text)}{others}: {first.advice}; log {log}")
