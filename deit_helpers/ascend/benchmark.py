"""File formats of the `benchmark` tool of CANN 5.1: the data set it reads, the performance file it writes."""

from __future__ import annotations

import json
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
    files.write_text(info, "".join(lines))
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

    @property
    def images(self) -> int:
        """How many images the run had: its rate times its wall time."""
        return round(self.rates["e2e"] * self.e2e_ms / 1000)

    @property
    def e2e_efficiency(self) -> float:
        """End-to-end rate over the rate of the model call alone."""
        return self.rates["e2e"] / self.interface_per_s


_CELL = r"\s*(\d+(?:\.\d+)?)\s*\|"  # of a table in Markdown
MOST = 1e12  # of anything a file may say
_LABELS = {"inference": "infer(?:ence)?", "postprocess": "post(?:process)?"}  # the two variants that were observed
_NUMBER = r"([0-9.,]{1,40}(?![0-9.,])(?:[eE][+-]?\d{1,9})?)(?:\s*samples/s)?"  # a longer one is none, and takes long


def read_perf(text: str, source: str) -> Performance:
    """Read the five lines of a performance file, in either labelling.

    Args:
        source: the file's name, for errors.

    Raises:
        ArtifactError: a line is missing; names file and line.
    """
    rates = {}
    for stage in ROWS:
        label = _LABELS.get(stage, stage)
        line = re.search(rf"^\s*\[{label}\] throughputRate: {_NUMBER}", text, re.MULTILINE)
        if not line:
            raise ArtifactError(
                f"{source}: no line '[{stage}] throughputRate: …': name a perf_vision_batchsize_<n>_device_<d>.txt"
            )
        rates[stage] = _positive(line[1], stage, source)
    latency = re.search(rf"^\s*\[e2e\].*latency: {_NUMBER}", text, re.MULTILINE)
    interface = re.search(rf"Interface throughputRate: {_NUMBER}", text)
    if not latency or not interface:
        raise ArtifactError(f"{source}: no e2e latency or no Interface throughputRate: let the tool write the file again")
    e2e_ms, interface_per_s = _positive(latency[1], "e2e latency", source), _positive(interface[1], "Interface", source)
    if rates["e2e"] > 1.05 * interface_per_s:
        raise ArtifactError(
            f"{source}: {rates['e2e']:g} images/s end to end, {interface_per_s:g} of the model alone: not possible"
        )
    return Performance(rates, e2e_ms, interface_per_s)


def _positive(text: str, name: str, source: str) -> float:
    """A number of a performance file.

    Raises:
        ArtifactError: not one finite number above zero; names file and place.
    """
    text = text.rstrip(",.")
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < MOST:
        expected = "expected a number above 0, with a decimal point"
        raise ArtifactError(f"{source}: {name} is {text!r}, {expected}: let the tool write the file again")
    return value


def read_pure(text: str, source: str) -> tuple[float, float]:
    """Images per second and ms per image of the pure-inference mode, from its file or console (`=` and `:` both occur).

    Raises:
        ArtifactError: no such line.
    """
    line = re.search(rf"ave_throughputRate\s*[:=]\s*{_NUMBER}.*ave_latency\s*[:=]\s*([0-9.,eE+-]{{1,40}})ms", text)
    if not line:
        raise ArtifactError(f"{source}: no line 'ave_throughputRate = … ave_latency = …ms': name a PureInfer_perf_of_…txt")
    return _positive(line[1], "ave_throughputRate", source), _positive(line[2], "ave_latency", source)


def _percent(text: str, source: str) -> float:
    value = float(text)
    if not 0 <= value <= 100:
        raise ArtifactError(f"{source}: {one_line(text, 60)} %: expected 0 to 100: mend the figure")
    return value


class Recipe(NamedTuple):
    """What a recipe's text prints: performance by batch size, and accuracies as (where, Acc@1, Acc@5) in percent."""

    performance: dict[int, Performance]
    accuracies: list[tuple[str, float, float]]


def read_recipe(text: str, source: str) -> Recipe:
    """Find the performance blocks, `result.json` lines and accuracy tables in a text such as a ModelZoo README.

    A block belongs to the batch size named last before it (`batch8`, `perf_vision_batchsize_8_device_0.txt`).

    Raises:
        ArtifactError: a block is damaged, or no batch size stands before it.
    """
    performance = {}
    for block in re.finditer(r"^\[e2e\].*(?:\n+\[.*)*", text, re.MULTILINE):
        sizes = re.findall(r"batch(?:size_)?(\d{1,5})(?!\d)", text[: block.start()])
        if not sizes:
            raise ArtifactError(f"{source}: performance lines without a batch size before them: name the tool's own file")
        performance[int(sizes[-1])] = read_perf(block[0], source)
    accuracies = []
    for line in text.split("\n"):  # one pattern for all of it takes minutes on a long line
        line = line[line.find('{"title"') : line.rfind("}") + 1]
        if not line.startswith("{") or '"Top1 accuracy"' not in line:
            continue
        try:
            values = {row["key"]: row["value"] for row in json.loads(line)["value"]}
            top = [_percent(str(values[f"Top{k} accuracy"]).rstrip("%"), source) for k in (1, 5)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
            why = f"({one_line(err)}): {one_line(line, 60)}"
            raise ArtifactError(f"{source}: a result.json in it cannot be read {why}: mend the line") from err
        accuracies.append(("its result.json", top[0], top[1]))
    for size, top1, top5 in re.findall(rf"^\|\s*BS(\d{{1,9}})\s*\|{_CELL}{_CELL}", text, re.MULTILINE):
        accuracies.append((f"its table, BS{size}", _percent(top1, source), _percent(top5, source)))
    return Recipe(performance, accuracies)
