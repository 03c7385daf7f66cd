"""File formats of ais_bench (0.0.2): the `*_summary.json` beside its output folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from ..errors import ArtifactError
from .benchmark import MOST


class Summary(NamedTuple):
    """What the tool measured: ms of every execution (copies excluded, warm-up excluded), images per second of the model."""

    batch_ms: list[float]
    images_per_s: float
    batch_size: int


def read_summary(path: Path) -> Summary:
    """Read a summary.

    `throughput` is 1000 * batch size / mean ms: the batch size is not in the file, and follows from the two.

    Raises:
        ArtifactError: not JSON, or a key is missing; names file and key.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
        times, rate = [ms * 1.0 for ms in values["npu_compute_time_list"]], values["throughput"] * 1.0
    except KeyError as err:
        raise ArtifactError(f"{path}: no key {err}; expected a summary of ais_bench: name its <folder>_summary.json") from err
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as err:
        raise ArtifactError(f"{path}: cannot be read ({err}): name the <folder>_summary.json of ais_bench") from err
    if not times or not all(0 < ms < MOST for ms in times) or not 0 < rate < MOST:
        raise ArtifactError(f"{path}: {len(times)} executions at {rate:g} images/s: run the tool again")
    return Summary(times, rate, round(rate * sum(times) / len(times) / 1000))
