"""An EMULATED `benchmark.x86_64` of CANN 5.1: flags, data set list, dumps and performance files as they were observed."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import numpy as np
from device_program import Device, ProgramError, ended

TYPES = {"vision", "nmt", "widedeep", "nlp", "yolocaffe", "bert", "deepfm"}
DATA = {"model_type", "input_text_path", "input_width", "input_height", "output_binary", "useDvpp"}
PURE = {"round", "om_path", "device_id", "batch_size"}


def parse(arguments: list[str]) -> dict[str, str]:
    flags: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not re.fullmatch(r"-\w+", name) or name[1:] not in DATA | PURE:
            raise ProgramError(f"[ERROR] unknown flag {name}")
        flags[name[1:]] = value if equals else rest.pop(0)
    needed = {"om_path", "device_id", "batch_size"} | (set() if "round" in flags else DATA - {"output_binary"})
    if missing := needed - flags.keys():
        raise ProgramError(f"[ERROR] missing flags {sorted(missing)}")
    if "round" in flags and DATA & flags.keys():
        raise ProgramError("[ERROR] -round takes no data set")
    if flags.get("model_type", "vision") not in TYPES:
        raise ProgramError(f"[ERROR] model_type {flags['model_type']}")
    for name in ("output_binary", "useDvpp"):
        if flags.get(name, "False").lower() not in ("true", "false"):
            raise ProgramError(f"[ERROR] {name} {flags[name]}")
    return flags


def read_list(path: str) -> list[Path]:
    files = []
    for number, line in enumerate(Path(path).read_text().splitlines()):
        match = re.fullmatch(r"(\d+) (\S+) (\d+) (\d+)", line)
        if not match or int(match[1]) != number:
            raise ProgramError(f"[ERROR] {path}: line {number}: {line}")
        files.append(Path(match[2]))
    return files


def dump(folder: Path, stem: str, row: np.ndarray, binary: bool) -> None:
    if binary:
        row.tofile(folder / f"{stem}_1.bin")
    else:
        (folder / f"{stem}_1.txt").write_text(" ".join(f"{value:.9g}" for value in row) + " ")


def run_dataset(device: Device, flags: dict[str, str], result: Path) -> None:
    files, size = read_list(flags["input_text_path"]), device.batch_size
    if len(files) % size:
        raise ProgramError(f"[ERROR] EMULATED: {len(files)} files in batches of {size}: what the real one does is not known")
    folder = result / f"dumpOutput_device{flags['device_id']}"
    folder.mkdir(parents=True)
    start, spent = time.perf_counter(), {"read": 0.0, "model": 0.0, "post": 0.0}
    for first in range(0, len(files), size):
        ticks = [time.perf_counter()]
        content = b"".join(path.read_bytes() for path in files[first : first + size])
        ticks.append(time.perf_counter())
        if len(content) != device.sizes[0]:
            raise ProgramError(f"[ERROR] input of {len(content)} bytes, the model takes {device.sizes[0]}")
        outputs, ms = device(content)
        ticks.append(time.perf_counter())
        for path, row in zip(files[first : first + size], outputs, strict=True):
            dump(folder, path.stem, row, flags.get("output_binary", "False").lower() == "true")
        ticks.append(time.perf_counter())
        spent["read"] += ticks[1] - ticks[0]
        spent["model"] += ms / 1000
        spent["post"] += ticks[3] - ticks[2]
    wall, count = time.perf_counter() - start, len(files)
    read, model, post = (count / spent[name] for name in ("read", "model", "post"))
    (result / f"perf_vision_batchsize_{size}_device_{flags['device_id']}.txt").write_text(
        f"[e2e] throughputRate: {count / wall:.6g}, latency: {1000 * wall:.6g}\n"
        f"[data read] throughputRate: {read:.6g}, moduleLatency: {1000 / read:.6g}\n"
        f"[preprocess] throughputRate: {read:.6g}, moduleLatency: {1000 / read:.6g}\n"
        f"[infer] throughputRate: {0.98 * model:.6g}, Interface throughputRate: {model:.6g}, moduleLatency: 1\n"
        f"[post] throughputRate: {post / size:.6g}, moduleLatency: {1000 * size / post:.6g}\n"
    )


def main(flags: dict[str, str]) -> None:
    print("[INFO] EMULATED benchmark, no hardware")
    device = Device(flags["om_path"], int(flags["device_id"]))
    if int(flags["batch_size"]) != device.batch_size:
        raise ProgramError(f"[ERROR] batch_size {flags['batch_size']}, the model has {device.batch_size}")
    result = Path("result")
    if "round" in flags:
        each = np.mean([device(bytes(device.sizes[0]))[1] for _ in range(int(flags["round"]))]) / device.batch_size
        print(f"[INFO] Dataset number: {int(flags['round']) - 1} finished cost {each * device.batch_size:.4g}ms")
        result.mkdir(exist_ok=True)
        name = f"PureInfer_perf_of_{Path(flags['om_path']).stem}_in_device_{flags['device_id']}.txt"
        (result / name).write_text(f"ave_throughputRate = {1000 / each:.6g}samples/s, ave_latency = {each:.6g}ms\n")
    else:
        run_dataset(device, flags, result)
    device.close()


if __name__ == "__main__":
    sys.exit(ended(main, parse))
