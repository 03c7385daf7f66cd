"""An emulated ATC: checks every flag against the recorded contract and writes an OM that holds the ONNX graph.

`EMULATED_CANN` is its version (8.1.RC1 without), `EMULATED_SOC` does not matter to it: ATC needs no device.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from pathlib import Path

import onnx

OPSETS = {"5": (9, 13), "6": (9, 13), "7": (9, 18), "8": (9, 18), "9": (9, 18)}
PRECISION = {
    "force_fp32", "cube_fp16in_fp32out", "force_fp16", "allow_fp32_to_fp16", "must_keep_origin_dtype", "allow_mix_precision",
    "allow_mix_precision_fp16", "allow_mix_precision_bf16", "allow_fp32_to_bf16",
}  # fmt: skip
PRECISION_V2 = {"fp16", "origin", "cube_fp16in_fp32out", "mixed_float16", "mixed_bfloat16", "mixed_hif8", "cube_hif8"}
SOCS = {
    "Ascend310", "Ascend310P1", "Ascend310P3", "Ascend310P5", "Ascend310P7", "Ascend310B1", "Ascend310B2", "Ascend310B3",
    "Ascend310B4", "Ascend610", "Ascend910A", "Ascend910B", "Ascend910ProA", "Ascend910ProB", "Ascend910PremiumA",
    "Ascend910B1", "Ascend910B2", "Ascend910B2C", "Ascend910B3", "Ascend910B4", "Ascend910B4-1",
    *(f"Ascend910_{n}" for n in (9362, 9372, 9381, 9382, 9391, 9392)),
}  # fmt: skip
FLAGS = {
    "framework", "model", "output", "mode", "input_format", "input_shape", "soc_version", "log", "precision_mode",
    "precision_mode_v2", "modify_mixlist", "keep_dtype", "customize_dtypes", "op_select_implmode", "optypelist_for_implmode",
    "op_precision_mode", "fusion_switch_file", "enable_small_channel", "insert_op_conf", "output_type", "input_fp16_nodes",
    "deterministic", "op_debug_level", "external_weight", "check_report",
}  # fmt: skip
AIPP_FIELDS = (
    r"aipp_mode|related_input_rank|input_format|src_image_size_[wh]|crop|padding|csc_switch|rbuv_swap_switch|ax_swap_switch|"
    r"load_start_pos_[wh]|crop_size_[wh]|(left|right|top|bottom)_padding_size|padding_value|mean_chn_[0-3]|min_chn_[0-3]|"
    r"var_reci_chn_[0-3]|matrix_r[0-2]c[0-2]|(in|out)put_bias_[0-2]"
)
DTYPES = {"FP32": 0, "FP16": 1, "UINT8": 4, "INT8": 2}


class RefusedError(Exception):
    """A code and its text."""


def refuse(code: str, text: str) -> None:
    raise RefusedError(f"{code}: {text}")


def parse(arguments: list[str]) -> dict[str, str]:
    flags = {}
    for argument in arguments:
        match = re.fullmatch(r"--([a-z0-9_]+)=(.*)", argument, re.DOTALL)
        if not match:
            refuse("E10001", f"Value [{argument}] for parameter [flag] is invalid. Reason: expected --name=value.")
        name, value = match.groups()
        if name not in FLAGS:
            refuse("E10001", f"Value [{name}] for parameter [flag] is invalid. Reason: unknown command line flag.")
        if value == "":
            refuse("E10004", f"Value for parameter [--{name}] is empty.")
        flags[name] = value
    return flags


def check(flags: dict[str, str]) -> onnx.ModelProto:
    for name in ("framework", "model", "output", "soc_version"):
        if name not in flags:
            refuse("E10007", f"Parameter [--{name}] is required.")
    if flags["framework"] != "5":
        refuse("E10001", f"Value [{flags['framework']}] for parameter [--framework] is invalid. Reason: the model is ONNX.")
    for name in ("model", "output"):
        if not re.fullmatch(r"[\w./\-\u4e00-\u9fff]+", flags[name]):
            refuse("E10001", f"Value [{flags[name]}] for parameter [--{name}] is invalid. Reason: characters.")
    if not Path(flags["model"]).is_file():
        refuse("E10410", f"File [{flags['model']}] does not exist.")
    allowed = {
        "soc_version": SOCS,
        "input_format": {"NCHW", "NCDHW", "ND"},
        "log": {"null", "debug", "info", "warning", "error"},
        "precision_mode": PRECISION,
        "precision_mode_v2": PRECISION_V2,
        "op_select_implmode": {
            "high_performance", "high_precision", "high_performance_for_all", "high_precision_for_all",
        },
        "output_type": set(DTYPES),
        "op_debug_level": set("01234"),
        "external_weight": set("012"),
    }  # fmt: skip
    for name, values in allowed.items():
        if name in flags and flags[name] not in values:
            refuse(
                "E10001", f"Value [{flags[name]}] for parameter [--{name}] is invalid. Reason: it must be in {sorted(values)}."
            )
    for name in ("enable_small_channel", "deterministic"):
        if flags.get(name, "0") not in ("0", "1"):
            refuse("E10006", f"Value [{flags[name]}] for parameter [--{name}] must be 1 or 0.")
    if "precision_mode" in flags and "precision_mode_v2" in flags:
        refuse("E10047", "[--precision_mode] and [--precision_mode_v2] are mutually exclusive.")
    bf16 = "bf" in flags.get("precision_mode", "") + flags.get("precision_mode_v2", "")
    if bf16 and not re.search("910B|910_93|310B", flags["soc_version"]):
        refuse("E10001", f"Value [bf16] for parameter [--precision_mode] is invalid. Reason: not on {flags['soc_version']}.")
    if "optypelist_for_implmode" in flags and flags.get("op_select_implmode") not in ("high_performance", "high_precision"):
        refuse("E10001", "Value for parameter [--optypelist_for_implmode] is invalid. Reason: op_select_implmode is not set.")
    for name in ("insert_op_conf", "modify_mixlist", "keep_dtype", "op_precision_mode", "fusion_switch_file"):
        if name in flags and not Path(flags[name]).is_file():
            refuse("E10410", f"File [{flags[name]}] does not exist.")
    graph = onnx.load(flags["model"])
    low, high = OPSETS[os.environ.get("EMULATED_CANN", "8.1.RC1")[0]]
    opset = next(entry.version for entry in graph.opset_import if entry.domain == "")
    if not low <= opset <= high:
        node = graph.graph.node[0]
        refuse("EZ9010", f"No parser is registered for Op [{node.name}, optype [ai.onnx::{opset}::{node.op_type}]].")
    check_shape(flags, graph)
    return graph


def check_shape(flags: dict[str, str], graph: onnx.ModelProto) -> None:
    image = graph.graph.input[0]
    dims = [side.dim_value for side in image.type.tensor_type.shape.dim]
    if "input_shape" in flags:
        match = re.fullmatch(r"([\w./]+):(\d+(?:,\d+)*)", flags["input_shape"])
        if not match:
            refuse(
                "E10002",
                f"Value [{flags['input_shape']}] for [--input_shape] is invalid; it must be formatted as name:n,c,h,w.",
            )
        name, wanted = match[1], [int(side) for side in match[2].split(",")]
        if name != image.name:
            refuse("E10016", f"Opname [{name}] specified in [--input_shape] is not found in the model.")
        if wanted != dims:
            refuse("E10001", f"Value {wanted} for parameter [--input_shape] is invalid. Reason: the model has {dims}.")
    elif 0 in dims:
        refuse("E10001", "Value for parameter [--input_shape] is invalid. Reason: the model is dynamic.")


def read_aipp(path: str, dims: list[int]) -> dict:
    text = Path(path).read_text(encoding="utf-8")
    body = re.fullmatch(r"\s*aipp_op\s*\{(.*)\}\s*", text, re.DOTALL)
    if not body:
        refuse("E10001", f"File [{path}] is not a valid AIPP configuration.")
    fields = dict(re.findall(r"(\w+)\s*:\s*(\S+)", body[1]))
    for name, value in fields.items():
        if not re.fullmatch(AIPP_FIELDS, name):
            refuse("E10001", f"AIPP field [{name}] is unknown.")
        if name.startswith("mean_chn") and not (value.isdigit() and int(value) <= 255):
            refuse("E10001", f"AIPP field [{name}] takes integers 0 to 255, not {value}.")
        if name.startswith("min_chn") and not 0 <= float(value) <= 255:
            refuse("E10001", f"AIPP field [{name}] takes 0 to 255, not {value}.")
    formats = ("RGB888_U8", "XRGB8888_U8", "YUV420SP_U8", "YUV400_U8")
    modelled = "aipp_mode|related_input_rank|input_format|src_image_size_[hw]|(mean|min|var_reci)_chn_[0-3]|rbuv_swap_switch"
    if extra := [name for name, value in fields.items() if not re.fullmatch(modelled, name) and value != "false"]:
        refuse("E10001", f"EMULATED: AIPP fields {extra} are not modelled.")
    if fields.get("input_format") in ("XRGB8888_U8", "YUV420SP_U8", "YUV400_U8"):
        refuse("E10001", f"EMULATED: AIPP input_format {fields['input_format']} is not modelled.")
    if fields.get("aipp_mode") != "static" or fields.get("input_format") not in formats:
        refuse("E10001", "AIPP needs aipp_mode static and an input_format.")
    for name, side in (("src_image_size_h", dims[2]), ("src_image_size_w", dims[3])):
        if int(fields.get(name, 0)) not in (0, side):
            refuse("E10001", f"AIPP field [{name}] is {fields[name]}, the model takes {side}.")
    defaults = {"mean_chn": 0, "min_chn": 0, "var_reci_chn": 1}
    constants = {key: [float(fields.get(f"{key}_{i}", default)) for i in range(3)] for key, default in defaults.items()}
    return {**constants, "swap": fields.get("rbuv_swap_switch") == "true"}


def build(flags: dict[str, str], graph: onnx.ModelProto) -> None:
    def tensor(value: onnx.ValueInfoProto) -> dict:
        kind = value.type.tensor_type
        dtype = {onnx.TensorProto.FLOAT: 0, onnx.TensorProto.FLOAT16: 1, onnx.TensorProto.UINT8: 4}[kind.elem_type]
        return {"name": value.name, "dims": [side.dim_value for side in kind.shape.dim], "dtype": dtype}

    source, target = tensor(graph.graph.input[0]), tensor(graph.graph.output[0])
    facts = {"EMULATED": True, "soc_version": flags["soc_version"], "flags": flags, "inputs": [source], "outputs": [target]}
    if "insert_op_conf" in flags:
        if flags.get("input_format", "NCHW") != "NCHW":
            refuse("E10001", "AIPP takes NCHW or NHWC models only.")
        facts["aipp"] = read_aipp(flags["insert_op_conf"], source["dims"])
        batch, channels, height, width = source["dims"]
        source.update(dims=[batch, height, width, channels], dtype=4)
    if flags.get("input_fp16_nodes") == source["name"]:
        if "aipp" in facts:
            refuse("E10001", "[--input_fp16_nodes] names an input of [--insert_op_conf].")
        source["dtype"] = DTYPES["FP16"]
    precision = flags.get("precision_mode", "") + flags.get("precision_mode_v2", "")
    facts["rounds"] = precision in ("force_fp16", "fp16")
    if "output_type" in flags:
        target["dtype"] = DTYPES[flags["output_type"]]
    end = "_linux_x86_64.om" if os.environ.get("EMULATED_OM_NAMES") == "long" else ".om"
    with zipfile.ZipFile(flags["output"] + end, "w") as archive:
        archive.writestr("facts.json", json.dumps(facts))
        archive.writestr("graph.onnx", graph.SerializeToString())


def main(arguments: list[str]) -> int:
    print("ATC start working now, please wait for a moment. (EMULATED, no CANN)", flush=True)
    try:
        flags = parse(arguments)
        build(flags, check(flags))
    except RefusedError as err:
        print("ATC run failed, Please check the detail log, Try 'atc --help' for more information")
        print(err)
        return 1
    print("ATC run success, welcome to the next use.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
