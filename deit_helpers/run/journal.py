"""Shards of 05: logits and timings of a fixed number of images, each complete or absent."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import files
from . import hashing, records
from .folder import Run
from .lineage import SHARD_CODE

SHARD_IMAGES = 2048  # and up to the next full batch


class Shard(NamedTuple):
    """Images `first` to `stop` of a run, and the file that holds their logits and timings."""

    first: int
    stop: int
    path: Path


def shards(run: Run, count: int) -> list[Shard]:
    """How `count` images are divided: whole batches, SHARD_IMAGES or a little more."""
    step = _step(run)
    bounds = [(first, min(first + step, count)) for first in range(0, count, step)]
    return [Shard(first, stop, _folder(run) / f"{first:07d}-{stop - 1:07d}.npz") for first, stop in bounds]


def key(run: Run) -> str:
    """What the logits of a shard depend on: model, data, backend and precision.

    Not on how many threads or streams, or which of several chips, made them, nor on what is written beside them.
    """
    made_from = records.key(run, "infer")
    spec = {name: value for name, value in made_from["spec"].items() if name not in ("bins", "device")}
    spec["runtime"] = {name: value for name, value in run.spec.runtime.items() if name not in ("threads", "streams")}
    return hashing.fingerprint({**made_from, "spec": spec, "code": hashing.code_sha256(records.code_of(run, SHARD_CODE))})


def made_by(facts: dict[str, Any]) -> str:
    """What must be the same for all shards of a run: the runtime and the hardware, not which of several devices."""
    return "{backend} {version} on {hardware} in {precision}".format_map(facts["runtime"])


def consecutive(missing: list[Shard]) -> list[list[Shard]]:
    """Shards in groups without a gap: a group is worked on in one go."""
    groups: list[list[Shard]] = []
    for shard in missing:
        if not groups or groups[-1][-1].stop != shard.first:
            groups.append([])
        groups[-1].append(shard)
    return groups


def discard(run: Run, chosen: tuple[int, int] | None = None) -> None:
    """Drop the shards of a run, or the first to the last of those chosen.

    Raises:
        ArtifactError: they cannot be removed.
    """
    folder, step = _folder(run), _step(run)
    try:
        if chosen is None and folder.exists():
            shutil.rmtree(folder)
        for path in folder.glob("*.npz"):
            first = path.stem.partition("-")[0]
            if chosen and first.isdigit() and chosen[0] <= int(first) // step <= chosen[1]:
                path.unlink()
    except OSError as err:
        raise files.unwritable(folder, err) from err


def _step(run: Run) -> int:
    return -(-SHARD_IMAGES // run.size) * run.size


def _folder(run: Run) -> Path:
    return run.file("infer").parent / "shards"


def write(shard: Shard, logits: np.ndarray, timings: np.ndarray, facts: dict[str, Any]) -> None:
    """Write a shard: logits (n, C), timings of its batches in ms (`latency.TIMINGS`), how it was made, and its `key`."""
    with files.atomic(shard.path) as temporary, temporary.open("wb") as file:
        np.savez(file, logits=logits, timings=timings, facts=json.dumps(facts))


def read(shard: Shard, key: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]] | None:
    """What `write` put into a shard's file; None when it is absent, damaged, or of another model, data set or code."""
    try:
        with shard.path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            facts, logits = json.loads(str(file["facts"])), file["logits"]
            if facts.get("key") != key or len(logits) != shard.stop - shard.first:
                return None
            return logits, file["timings"], facts
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
