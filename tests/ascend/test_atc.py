"""The command of ATC."""

from __future__ import annotations

from pathlib import PurePosixPath

from deit_helpers.ascend import atc


def test_the_command_is_the_recipes_argument_for_argument() -> None:
    command = atc.command(PurePosixPath("bs8/deit_bs8.onnx"), "image", [8, 3, 224, 224], "Ascend310P3", {"log": None})
    assert command == [
        "atc",
        "--framework=5",
        "--model=bs8/deit_bs8.onnx",
        "--output=bs8/deit_bs8",
        "--input_format=NCHW",
        "--input_shape=image:8,3,224,224",
        "--soc_version=Ascend310P3",
        "--check_report=bs8/check_result.json",
    ]
