"""File formats of ais_bench: the `*_summary.json` beside its output folder, and the `sumary.json` of 2022."""

from __future__ import annotations

import bisect
import json
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ArtifactError, one_line
from .benchmark import MOST


class Summary(NamedTuple):
    """What the tool measured, copies and warm-up left out.

    Attributes:
        batch_ms: ms of every execution; empty where the file has no list.
        images_per_s: of the model.
        mean_ms: per batch: 1000 * batch size / rate, so with several in flight less than an execution takes.
        in_flight: how many executions ran at once at most (`--threads`).
    """

    batch_ms: list[float]
    images_per_s: float
    batch_size: int
    mean_ms: float
    in_flight: int


def read_summary(path: Path) -> Summary:
    """Read a summary.

    `throughput` is 1000 * batch size / mean ms: the batch size is not in the file, and follows from the two.

    Raises:
        ArtifactError: not JSON, a key is missing, or executions of several batch sizes; names file and key.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
        batch_ms, mean_ms, in_flight = _times(values)
        rate, mean_ms = values["throughput"] * 1.0, mean_ms * 1.0
    except KeyError as err:
        raise ArtifactError(f"{path}: no key {err}; expected a summary of ais_bench: name its <folder>_summary.json") from err
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as err:
        raise ArtifactError(f"{path}: cannot be read ({one_line(err)}): name the <folder>_summary.json of ais_bench") from err
    if not 0 < mean_ms < MOST or not all(0 < ms < MOST for ms in batch_ms) or not 0 < rate < MOST:
        raise ArtifactError(f"{path}: {len(batch_ms)} executions at {rate:g} images/s: run the tool again")
    size = rate * mean_ms / 1000
    if abs(size - round(size)) > 0.01 * size:
        raise ArtifactError(f"{path}: batches of {size:.2f} images on average: measure one batch size at a time")
    return Summary(batch_ms, rate, round(size), mean_ms, in_flight)


def _times(values: dict[str, Any]) -> tuple[list[float], float, int]:
    """ms of every execution, ms per batch, and how many ran at once.

    A run with `--threads` lists the start and the end of each, which overlap; the tool of 2022 gives their mean alone.
    """
    if "npu_compute_time_list" not in values:
        return [], values["NPU_compute_time"]["mean"], 1
    times, stated = values["npu_compute_time_list"], values.get("NPU_compute_time", {}).get("mean")
    if not times or not isinstance(times[0], list):
        return [ms * 1.0 for ms in times], stated or sum(times) / max(len(times), 1), 1
    starts, ends = (sorted(side) for side in zip(*times, strict=True))
    at_once = max(i - bisect.bisect_right(ends, start) for i, start in enumerate(starts, 1))
    return [end - start for start, end in times], stated or (ends[-1] - starts[0]) / len(times), at_once
