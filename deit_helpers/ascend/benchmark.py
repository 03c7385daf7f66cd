"""File formats of the `benchmark` tool of CANN 5.1: the data set it reads, the performance file it writes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import files
from ..errors import ArtifactError, one_line
from .dumps import stem_of

ROWS = ("data read", "preprocess", "inference", "postprocess", "e2e")  # rows of the performance file


def write_info(folder: Path, names: list[str], tensors: Iterable[np.ndarray]) -> Path:
    """Write `bins/<stem>.bin` (raw little-endian float32, CHW) and `deit_prep_bin.info` beside that folder.

    A line of the info file is `<index> <path> <width> <height>`, the path relative to the parent of `folder`: the run
    folder, where the tool is to be started. Names below class folders keep the folder in the stem, joined by `__`,
    because the tool names its dumps after the stem alone.

    Raises:
        ArtifactError: two images would get the same file.
    """
    stems: dict[str, str] = {}
    for name in names:
        stem = stem_of(name)
        if len(stem.split()) != 1:
            raise ArtifactError(f"bins: {name!r}: the tool's list is divided by spaces: rename the image, or set bins: false")
        if stem in stems:
            raise ArtifactError(f"bins: {name} and {stems[stem]} would both become {stem}.bin: rename one of the images")
        stems[stem] = name
    lines = []
    for i, (stem, tensor) in enumerate(zip(stems, tensors, strict=True)):
        path = folder / "bins" / f"{stem}.bin"
        with files.atomic(path) as temporary:
            tensor.astype("<f4").tofile(temporary)
        lines.append(f"{i} {path.relative_to(folder.parent).as_posix()} {tensor.shape[2]} {tensor.shape[1]}\n")
    info = folder / "deit_prep_bin.info"
    with files.atomic(info) as temporary:
        temporary.write_bytes(os.fsencode("".join(lines)))  # the names' own bytes: the tool opens them
    return info


def perf_vision(stages: list[dict[str, Any]], interface_per_s: float, images: int, batch_size: int) -> str:
    """The five lines of `perf_vision_batchsize_<n>_device_<d>.txt`, in the labels of CANN 5.1.RC1.

    Rates are per second: images everywhere, but batches on the postprocess line, as the tool counts. The e2e latency is
    the wall time of the whole data set in ms; a moduleLatency is 1000 / rate. C++'s default six significant digits.

    Args:
        stages: rows with name, images_per_s and seconds, one for each of ROWS.
        interface_per_s: images/s of the model call alone.
    """
    rate = {row["name"]: row["images_per_s"] for row in stages}
    batches_per_s = rate["postprocess"] * -(-images // batch_size) / images
    seconds = next(row["seconds"] for row in stages if row["name"] == "e2e")
    return (
        f"[e2e] throughputRate: {rate['e2e']:.6g}, latency: {1000 * seconds:.6g}\n"
        f"[data read] throughputRate: {rate['data read']:.6g}, moduleLatency: {1000 / rate['data read']:.6g}\n"
        f"[preprocess] throughputRate: {rate['preprocess']:.6g}, moduleLatency: {1000 / rate['preprocess']:.6g}\n"
        f"[inference] throughputRate: {rate['inference']:.6g}, Interface throughputRate: {interface_per_s:.6g}, "
        f"moduleLatency: {1000 / rate['inference']:.6g}\n"
        f"[postprocess] throughputRate: {batches_per_s:.6g}, moduleLatency: {1000 / batches_per_s:.6g}\n"
    )


class Performance(NamedTuple):
    """A performance file: rates per second (images; batches for `postprocess`), ms, and the rate of the model call alone."""

    rates: dict[str, float]
    e2e_ms: float
    interface_per_s: float


MOST = 1e12  # of anything a file may say
_LABELS = {"inference": "infer(?:ence)?", "postprocess": "post(?:process)?"}  # the two variants that were observed
_NUMBER = r"([0-9.,]+(?:[eE][+-]?\d+)?)(?:[ \t]*samples/s)?"


def read_perf(text: str, source: str, own: bool = False) -> Performance:
    """Read the five lines of a performance file, in either labelling.

    Args:
        source: the file's name, for errors.
        own: it is of `perf_vision`, whose rate of the model is of a few batches where copies go on beside it.

    Raises:
        ArtifactError: a line is missing; names file and line.
    """
    lines, rates = {}, {}
    for stage in ROWS:
        label = _LABELS.get(stage, stage)
        line = re.search(rf"^[ \t>]*\[{label}\][ \t]*throughputRate:[ \t]*{_NUMBER}(.*)", text, re.MULTILINE)
        if not line:
            raise ArtifactError(
                f"{source}: no line '[{stage}] throughputRate: …': name a perf_vision_batchsize_<n>_device_<d>.txt"
            )
        rates[stage], lines[stage] = _positive(line[1], stage, source), line[2]
    e2e_ms = _number_after("latency:", lines["e2e"], "e2e latency", source)
    interface_per_s = _number_after("Interface throughputRate:", lines["inference"], "Interface", source)
    if rates["e2e"] > 1.05 * interface_per_s and not own:
        raise ArtifactError(
            f"{source}: {rates['e2e']:g} images/s end to end, {interface_per_s:g} of the model alone: not possible"
        )
    return Performance(rates, e2e_ms, interface_per_s)


def read_pure(text: str, source: str) -> tuple[float, float]:
    """Images per second and ms per image of the pure-inference mode, from its file or console (`=` and `:` both occur).

    Raises:
        ArtifactError: no such line.
    """
    line = re.search(r"ave_throughputRate[ \t]*[:=].*", text)
    if not line or "ave_latency" not in line[0]:
        raise ArtifactError(f"{source}: no line 'ave_throughputRate = … ave_latency = …ms': name a PureInfer_perf_of_…txt")
    rate = _number_after("ave_throughputRate[ \t]*[:=]", line[0], "ave_throughputRate", source)
    return rate, _number_after("ave_latency[ \t]*[:=]", line[0], "ave_latency", source)


def _number_after(name: str, line: str, place: str, source: str) -> float:
    """The number behind a name of a performance file, a regular expression.

    Raises:
        ArtifactError: none there, or one that cannot be; names file and place.
    """
    number = re.search(rf"{name}[ \t]*{_NUMBER}", line)
    return _positive(number[1] if number else "", place, source)


def _positive(text: str, place: str, source: str) -> float:
    text = text.rstrip(",.")
    try:
        value = float(text) if len(text) <= 40 else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < MOST:
        expected = "expected a number above 0, with a decimal point"
        raise ArtifactError(f"{source}: {place} is {one_line(repr(text), 60)}, {expected}: let the tool write the file again")
    return value


_GAP = r"[ \t]{0,40}"  # of any length it would take minutes on a line of spaces
_BATCH = re.compile(rf"(?<![a-z])(?:batch|bs)[ _-]?(?:size)?{_GAP}[_=:：]?{_GAP}(\d{{1,5}})(?!\d)", re.IGNORECASE)
_CELL = rf"{_GAP}(\d+(?:\.\d+)?){_GAP}%?{_GAP}\|"
_ACCURACY = re.compile(rf"\|{_GAP}(?:BS|batch_?size){_GAP}=?{_GAP}(\d+){_GAP}\|{_CELL}{_CELL}", re.IGNORECASE)


def read_recipe(text: str, source: str) -> tuple[dict[int, Performance], list[tuple[str, float, float]]]:
    """Find the performance blocks, `result.json` lines and accuracy tables in a text such as a ModelZoo README.

    They may be indented or quoted. A block belongs to the batch size named last before it: `batch8`, `batch_size=8`,
    `perf_vision_batchsize_8_device_0.txt`, `bs8`.

    Returns:
        Performance by batch size, and accuracies as (where, Acc@1, Acc@5) in percent.

    Raises:
        ArtifactError: a block is damaged, no batch size stands before it, or two blocks are of one.
    """
    performance: dict[int, Performance] = {}
    accuracies, size, block = list[tuple[str, float, float]](), None, list[str]()
    for line in (*(line.strip(" \t>") for line in text.splitlines()), "."):
        if block and (line.startswith("[e2e]") or (line and not line.startswith("["))):  # it is over
            if size is None or performance.setdefault(size, rows := read_perf("\n".join(block), source)) != rows:
                why = "without a batch size before them" if size is None else f"of batch size {size} twice"
                raise ArtifactError(f"{source}: performance lines {why}: name the tool's own file")
            block = []
        if block or line.startswith("[e2e]"):
            block.append(line)
        elif sizes := _BATCH.findall(line):
            size = int(sizes[-1])
        if '"Top1 accuracy"' in line:
            accuracies.append(_result_json(line, source))
        elif row := _ACCURACY.match(line):
            top1, top5 = (_percent(text, source) for text in row.groups()[1:])
            accuracies.append((f"its table, BS{row[1]}", top1, top5))
    return performance, accuracies


def _result_json(line: str, source: str) -> tuple[str, float, float]:
    """Acc@1 and Acc@5 of a line that holds a `result.json`; that of fewer than five classes ends at theirs.

    Raises:
        ArtifactError: it is damaged.
    """
    try:
        rows = json.loads(line[line.index("{") : line.rindex("}") + 1])["value"]
        values = {row["key"]: str(row["value"]).rstrip("%") for row in rows}
        last = min(5, int(values.get("Number of classes", 5)))
        top1, top5 = (_percent(values[f"Top{k} accuracy"], source) for k in (1, last))
        return "its result.json", top1, top5
    except (ValueError, LookupError, TypeError, RecursionError) as err:
        why = f"({one_line(err)}): {one_line(line, 60)}"
        raise ArtifactError(f"{source}: a result.json in it cannot be read {why}: mend the line") from err


def _percent(text: str, source: str) -> float:
    value = float(text)
    if not 0 <= value <= 100:
        raise ArtifactError(f"{source}: an accuracy of {one_line(text, 60)} %: expected 0 to 100: mend the figure")
    return value
