"""The command of the emulated ais_bench: flags, input rules, output layout and summary as they are recorded of 0.0.2."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
from device_program import Device, ProgramError, ended


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ais_bench", allow_abbrev=False)
    parser.add_argument("--model", "-m", required=True)
    for name in ("input", "output", "output_dirname"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--outfmt", choices=("NPY", "BIN", "TXT"), default="BIN")
    parser.add_argument("--loop", type=int, default=1)
    parser.add_argument("--warmup_count", type=int, default=1)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--batchsize", type=int)
    options = parser.parse_args(arguments)
    if options.output_dirname and not options.output:
        parser.error("--output_dirname needs --output")
    return options


def natural(path: Path) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def statistics(times: list[float]) -> dict:
    keys = ("min", "max", "mean", "median", "percentile(99%)")
    values = (min(times), max(times), np.mean(times), np.median(times), np.percentile(times, 99)) if times else [0.0] * 5
    return {**dict(zip(keys, map(float, values), strict=True)), "count": len(times)}


def save(path: Path, row: np.ndarray, kind: str) -> None:
    if kind == "NPY":
        np.save(path, row)
    elif kind == "BIN":
        row.tofile(path)
    else:
        path.write_text("".join("".join(f"{value:f} " for value in line) + "\n" for line in row))


def main(options: argparse.Namespace) -> None:
    print("[INFO] EMULATED ais_bench, no hardware")
    device = Device(options.model, options.device)
    files = []
    if options.input:
        given = (path for path in Path(options.input).iterdir() if path.suffix.lower() in (".npy", ".bin"))
        files = sorted(given, key=natural)
    output = Path(options.output or ".").absolute() / (options.output_dirname or "2025_01_01-00_00_00")
    if options.output:
        output.mkdir(parents=True)
    size, times, filesinfo = device.sizes[0], [], {}
    for _ in range(options.warmup_count):
        device(bytes(size))
    if not files:
        for _ in range(options.loop):
            outputs, ms = device(bytes(size))
            times.append(ms)
        if options.output:
            save(output / f"pure_infer_data_0.{options.outfmt.lower()}", outputs, options.outfmt)
    else:
        each = files[0].stat().st_size
        if size % each:
            raise ProgramError(f"[ERROR] arg0 tensorsize: {size} filesize: {each} not match")
        for start in range(0, len(files), size // each):
            group = files[start : start + size // each]
            padded = group + group[:1] * (size // each - len(group))
            outputs, ms = device(b"".join(path.read_bytes() for path in padded))
            times.append(ms)
            for number, (path, row) in enumerate(zip(group, np.array_split(outputs, size // each), strict=False), start):
                target = output / f"{path.name.partition('.')[0]}_0.{options.outfmt.lower()}"
                if options.output:
                    save(target, row, options.outfmt)
                    filesinfo[str(number)] = {"infiles": [str(path)], "outfiles": [str(target)]}
    device.close()
    batch_size = options.batchsize or device.batch_size
    summary = {
        "filesinfo": filesinfo,
        "args": sys.argv,
        **{name: statistics(ms) for name, ms in (("NPU_compute_time", times), ("H2D_latency", []), ("D2H_latency", []))},
        "throughput": 1000 * batch_size / np.mean(times),
        "npu_compute_time_list": times,
        "pid": os.getpid(),
    }
    if options.output:
        (output.parent / f"{output.name}_summary.json").write_text(json.dumps(summary))
    print("[INFO] -----------------Performance Summary------------------")
    numbers = ", ".join(f"{key} = {value}" for key, value in summary["NPU_compute_time"].items() if key != "count")
    print(f"[INFO] NPU_compute_time (ms): {numbers}")
    mean = summary["NPU_compute_time"]["mean"]
    print(f"[INFO] throughput 1000*batchsize.mean({batch_size})/NPU_compute_time.mean({mean}): {summary['throughput']}")


if __name__ == "__main__":
    sys.exit(ended(main, parse))
