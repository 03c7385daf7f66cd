"""Recorded files, mutated, through a parser: `python tests/fuzz.py PARSER SECONDS [SEED]`; without arguments, the parsers.

Whatever the input, a parser gives a value or a DeitError of one short line, within a few seconds. What does otherwise is kept
in a file that is named. A parser is a row of PARSERS: a name for its files, recorded samples, and what reads such a file.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from recorded import GHOSTNET, OP_STATISTIC, OP_SUMMARY, PUBLISHED, table_of_chips
from safetensors.torch import save

from deit_helpers.ascend import ais_bench, benchmark, codes, dumps, msprof, npu_smi
from deit_helpers.data import labels
from deit_helpers.errors import DeitError
from deit_helpers.model import checkpoint_files, names
from deit_helpers.run.folder import Run
from deit_helpers.run.spec import RunSpec

SLOWEST_S = 10  # for one input
LARGEST = 200_000  # bytes of one
SNIPPETS = [
    b"", b"\0", b"\n", b"\r", b"\t", b",", b";", b"|", b'"', b"\\", b"[" * 3000, b"{" * 50, b"(" * 500, b"\xff\xfe", b"\xe9",
    b"\xef\xbb\xbf", "\u3000\u0664\u2028".encode(), b"-1", b"0", b"NaN", b"inf", b"1e999", b"1e-999", b"9" * 400, b"9" * 5000,
    b"N/A", b"NA", b"null", b"true", b"[]", b"{}", b"x" * 3000, b" " * 3000, b"../..", b"PK\x03\x04",
]  # fmt: skip


class Parser(NamedTuple):
    """A row of the table: a file of this name below a new folder holds a mutated sample, `read` takes the file's path."""

    file: str
    samples: list[bytes]
    read: Callable[[Path], object]


def texts(*samples: str) -> list[bytes]:
    return [sample.encode() for sample in samples]


def npy(*values: float) -> bytes:
    with tempfile.TemporaryFile() as file:
        np.save(file, np.array([values], np.float32))
        file.seek(0)
        return file.read()


def pth(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


CHIPS = texts(
    table_of_chips("| 0  310B4 | Alarm | 0.0  65  15 / 15 |", "| 0  0 | NA | 0  NA / 15609 |"),
    table_of_chips("| 0 | Ascend950DT | OK | 380.7  44  0 / 0 |", "|   |   | NA | 0  0 / 0  6632 / 86016 |"),
    table_of_chips(
        "| 0  910B3 | OK | 90.4  32  0 / 0 |", "| 0 | 0000:C1:00.0 | 0  0 / 0  41697/ 65536 |", "| 0 0 | 1 | x | 2 |"
    ),
    "dcmi model initialized failed, because the device is used. ret is -8020\n",
)
LOGS = texts(
    "ATC run failed, Please check\nE19010: No parser is registered for Op [Conv_52, optype [ai.onnx::11::Conv]].\n TraceBack\n",
    "[PID: 1] 2026-07-03-02:49:31.770.240 Invalid_Argument(E10001): Value [a] for parameter [--soc_version] is invalid.\n",
    "EZ9999: Inner Error!\nEZ9999[PID: 2] 2025-10-29-03:18:08.948 (EZ9999):  The first dim.\nEZ9999  Aicore kernel failed\n",
    "EZ3003: No supported Ops kernel and engine are found for [Conv_52], optype [Conv].\nNo module named 'x'\nKilled\n",
)
SUMMARIES = texts(
    '{"filesinfo": {}, "npu_compute_time_list": [60.0, 64.0, 62.5], "throughput": 128.7, "pid": 1}',
    '{"npu_compute_time_list": [[1000.0, 1004.2], [1000.1, 1004.3]], "throughput": 3636.4, "NPU_compute_time": {"mean": 2.2}}',
    GHOSTNET,
)
RESULT = '{"title": "x", "value": [{"key": "Top1 accuracy", "value": "79.69%"}, {"key": "Top5 accuracy", "value": "94.97%"}]}'
TASKS = f"{OP_SUMMARY}\nSoftmaxV2,s1,AI_CORE,30.25\nN/A,N/A,EVENT_WAIT,1.5\nTransData,t,AI_CORE,40\nTotal,,,71.75\n"
TYPES = f"{OP_STATISTIC}\nTransData,40,935253.6\nConv2D,10,100\nBatchMatMulV3,240,19941.5\n"
SPEC = "run: a\nmodel: deit_small_patch16_224\ncheckpoint: c.pth\nimages: i\n"
MORE = "batch_sizes: [1, 8]\nedits: [fold_scale]\npreprocess: {resize_px: 248}\natc: {op_select_implmode: x}\ntime_box_s: 1e1\n"
LABELS = texts(
    "a.jpg 0\r\nb c.png\t999\n",
    "ImageId,PredictionString\nval_0,n01440764 1 2 3 4\n",
    'name;label\n"a.jpg";3\n',
    "65\n970\n",
    "val_0.JPEG\tn02119789\t0\t32\t44\t62\n",
    "/data/val/A.JPG 1\nC:\\x\\b c.png 2\ne\u0301 4\n",
)
STATE = {"blocks.0.attn.qkv.weight": torch.zeros(6, 2), "pos_embed": torch.ones(1, 5, 2), "head.weight": torch.ones(3, 2)}
PARSERS = {
    "npu_smi": Parser("npu.txt", CHIPS, lambda path: npu_smi.parse(text_of(path))),
    "npu_smi_failure": Parser("npu.txt", CHIPS, lambda path: said("npu-smi", path)),
    "atc": Parser("atc.log", LOGS, lambda path: codes.atc_errors(text_of(path), 11)),
    "atc_failure": Parser("atc.log", LOGS, lambda path: said("atc", path)),
    "ais_bench": Parser("x_summary.json", SUMMARIES, ais_bench.read_summary),
    "benchmark": Parser(
        "perf.txt", texts(*(text for _, text in PUBLISHED)), lambda path: benchmark.read_perf(text_of(path), str(path))
    ),
    "pure_inference": Parser(
        "pure.txt", texts("ave_throughputRate = 155.975samples/s, ave_latency = 6.42435ms\n"),
        lambda path: benchmark.read_pure(text_of(path), str(path)),
    ),
    "recipe": Parser(
        "README.md", texts(f"| BS1 | 79.5 | 94.83 |\n{RESULT}\nbatchsize_8:\n{PUBLISHED[1][1]}", f"bs batch1\n{RESULT}\n"),
        lambda path: benchmark.read_recipe(text_of(path), str(path)),
    ),
    "op_summary": Parser(
        "op_summary_20240101000000.csv", texts(TASKS, TASKS.replace(",", "\t"), TASKS.replace(",", ";").replace(".", ",")),
        lambda path: msprof.batches(msprof.read(path.parent)),
    ),
    "op_statistic": Parser(
        "op_statistic_0_1.csv", texts(TYPES, TYPES.replace(",", ";")), lambda path: msprof.batches(msprof.read(path.parent))
    ),
    "dump_txt": Parser("a_1.txt", texts("1 2.5 -3e-1 \n", "0.1 0.2"), lambda path: dumps.read(path.parent, ["a.jpg"])),
    "dump_bin": Parser("a_1.bin", [np.float32([1, 2, 3]).tobytes()], lambda path: dumps.read(path.parent, ["a.jpg"])),
    "spec": Parser("x.yaml", texts(SPEC + MORE, SPEC), RunSpec.load),
    "labels": Parser("labels.txt", LABELS, lambda path: labelled(path, None)),
    "labels_devkit": Parser("labels.txt", LABELS, lambda path: labelled(path, "devkit")),
    "checkpoint": Parser(
        "x.pth", [pth(STATE), pth({"model": STATE, "a": 3}), pth({"state_dict": STATE, "model_ema": STATE}), save(STATE)],
        lambda path: names.timm_names(checkpoint_files.read(path, ema=False)[0]),
    ),
    "dump_npy": Parser("a_0.npy", [npy(1, 2, 3), npy(4)], lambda path: dumps.read(path.parent, ["a.jpg"])),
}  # fmt: skip


def text_of(path: Path) -> str:
    """As `subprocess` decodes what a program prints, and as performance files are read."""
    return path.read_text(encoding="utf-8", errors="replace")


def labelled(path: Path, labels_format: str | None) -> list[int]:
    keys = {"run": "a", "model": "m", "checkpoint": "c", "images": "i", "labels": path.name, "labels_format": labels_format}
    run = Run(RunSpec.from_mapping(keys, "fuzz"), path.parent / "reports", path.parent)
    return labels.labels_of(run, ["a.jpg", "b c.png", "é.jpg", "val_0.JPEG"], 1000)


def said(tool: str, path: Path) -> None:
    """Raise what a failed program said, as its caller does."""
    raise DeitError(codes.failure(tool, text_of(path), "look into its log"))


def mutated(rng: random.Random, samples: list[bytes]) -> bytes:
    """A sample with one to six changes: a part is cut out, doubled, moved, replaced by a snippet, or bytes are set."""
    data = rng.choice(samples)
    for _ in range(rng.randint(1, 6)):
        start, end = sorted(rng.randint(0, len(data)) for _ in range(2))
        if rng.random() < 0.5:
            end = min(end, start + rng.randint(0, 8))
        part = data[start:end]
        other = rng.choice(samples)
        new = rng.choice([
            b"", part * 2, part * rng.choice([3, 100, 3000]), rng.choice(SNIPPETS), part + rng.choice(SNIPPETS),
            bytes(rng.randrange(256) for _ in part[:50]), other[rng.randint(0, len(other)) :],
        ])  # fmt: skip
        data = (data[:start] + new + data[end:])[:LARGEST]
    return data


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Interrupt what takes longer than SLOWEST_S, in Python code and between calls of C code."""

    def late(*_: object) -> None:
        raise TimeoutError(f"no answer within {SLOWEST_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SLOWEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(parser: Parser, path: Path) -> str | None:
    """What is wrong with a parser's answer to a file; None where it is a value or a proper error."""
    try:
        with time_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser.read(path)
    except DeitError as err:
        message = str(err)
        if len(message) > 500 or not message.isprintable():
            return f"a message of {len(message)} characters: {message[:200]!a}"
    except Exception as err:
        return f"{type(err).__name__}: {str(err)[:200]}"
    return None


def fuzz(name: str, seed: int, goes_on: Callable[[int], bool]) -> tuple[int, list[str]]:
    """Mutate while `goes_on(inputs so far)`: how many inputs there were, and the first five faults, their inputs kept."""
    parser, rng, faults, count = PARSERS[name], random.Random(seed), list[str](), 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = Path(folder) / parser.file
        while goes_on(count) and len(faults) < 5:
            path.write_bytes(mutated(rng, parser.samples))
            count += 1
            if wrong := fault(parser, path):
                kept = Path(tempfile.gettempdir()) / f"fuzz-{name}-{seed}-{count}"
                shutil.copy(path, kept)
                faults.append(f"{kept}: {wrong}")
    return count, faults


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(f"{__doc__}\n{' '.join(PARSERS)}")
        return 2
    name, seconds, seed = arguments[0], float(arguments[1]), int((arguments[2:] or ["0"])[0])
    end = time.monotonic() + seconds
    count, faults = fuzz(name, seed, lambda _: time.monotonic() < end)
    print(f"{name}: {count} inputs, {len(faults)} faults", *faults, sep="\n  ")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
