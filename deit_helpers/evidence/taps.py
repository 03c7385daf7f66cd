"""The first bad layer: the taps of two versions of one network compared image by image, in constant memory.

A tap is a point that every version has: the name is that of torch's module, the ONNX node is found by what it computes.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..backends import Options, Pool, open_backend
from ..data import batches, sources, transforms
from ..errors import ArtifactError, BackendError, SpecError
from ..files import read_json
from ..graph.graph import Graph
from ..graph.taps import tap_values
from ..model.taps import LOGITS, Module, Observe, computed_by, tap_names
from ..run import hashing, records
from ..run.folder import Run
from ..run.validation import nearest

NAMES = ("torch", "onnx", "edited", "backend")
IMAGES = 16
# Relative error that rounding may reach, by the coarser precision of the two sides; and the unit of rounding itself.
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
UNITS = {"fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7}
JUMP = 10.0  # a bad layer multiplies the error by more than this; what rounding grows by from tap to tap is less
VALUES_AT_ONCE = 160  # taps times images in memory, 0.45 MB each in DeiT-small; what is more is run in turns
UNDISTURBED = 0.1  # marking taps may move the logits by so much of what is looked for


class File:
    """An ONNX graph in ONNX Runtime or OpenVINO, which return further values when these are marked as outputs.

    Attributes:
        nodes: the taps that it has, with the ONNX node of each.
        batch_size: None for any.
        disturbance: how far marking taps moved its logits so far, relative to them; 0 is bit for bit.
    """

    def __init__(self, run: Run, path: Path, backend: str, options: Options, crops: np.ndarray):
        self.path, self.backend, self.options, self.recipe, self.disturbance = path, backend, options, run.spec.recipe, 0.0
        proto = onnx.load(path)
        stored = {tensor.data_type for tensor in proto.graph.initializer}
        self.precision = "fp16" if onnx.TensorProto.FLOAT16 in stored else options.precision
        values = tap_values(Graph(proto))
        taps = {tap: value for tap, value in zip(tap_names(len(values) // 6), values, strict=False) if value is not None}
        self.values = {tap: value.name for tap, value in taps.items()}
        self.nodes = {tap: value.producer().name for tap, value in taps.items()} | {LOGITS: proto.graph.output[0].name}
        del proto, values, taps  # 200 MB
        with open_backend(backend, path, options) as model:
            self.batch_size, self.dtype = model.batch_size, model.dtype
            self.logits = self._values(model, [LOGITS], crops)[LOGITS]

    @contextlib.contextmanager
    def observing(self, taps: Sequence[str]) -> Iterator[Observe]:
        """Values by tap, when it is called with the number of the first crop and the crops."""
        marked = [tap for tap in taps if tap != LOGITS]
        with tempfile.TemporaryDirectory(prefix="deit-report-") as folder:
            path = Path(folder) / "marked.onnx"
            proto = onnx.load(self.path)
            proto.graph.output.extend(onnx.ValueInfoProto(name=self.values[tap]) for tap in marked)
            onnx.save(proto, path)
            del proto
            with open_backend(self.backend, path, self.options) as model:

                def observe(first: int, crops: np.ndarray) -> dict[str, np.ndarray]:
                    values = self._values(model, [LOGITS, *marked], crops)
                    moved = Sums()
                    moved.add(self.logits[first : first + len(crops)], values[LOGITS])
                    self.disturbance = max(self.disturbance, moved.row()["relative_rms"])
                    return values

                yield observe

    def _values(self, model: Pool, names: list[str], crops: np.ndarray) -> dict[str, np.ndarray]:
        size, parts = self.batch_size or 2, []
        for start in range(0, len(crops), size):
            images = transforms.prepare(crops[start : start + size], self.recipe, self.dtype)
            batch = batches.pad(start, images, self.batch_size or len(images))
            with model.failing(f"the batch from image {start}"):
                parts.append([value[batch.valid] for value in outputs(model.sessions[0], batch.tensor)])
        return dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))


def outputs(session: Any, batch: np.ndarray) -> list[np.ndarray]:
    """All outputs of a graph in a session of ONNX Runtime or OpenVINO, with NaN where that is what comes out."""
    if hasattr(session, "run"):
        return session.run(None, {session.get_inputs()[0].name: batch})
    session.infer({0: batch})
    return [tensor.data.astype(np.float32) for tensor in session.output_tensors]


Side = Module | File


class Sums:
    """Running sums of one tap over images; values that are infinite or NaN on a side are counted, and left out of the rest."""

    def __init__(self) -> None:
        self.images = self.not_finite = 0
        self.max_abs_diff = self.difference = self.left = self.right = self.product = 0.0

    def add(self, left: np.ndarray, right: np.ndarray) -> None:
        """Add values (B, …) of the same images."""
        finite = np.isfinite(left) & np.isfinite(right)
        self.images += len(left)
        self.not_finite += int(finite.size - np.count_nonzero(finite))
        a, b = (np.where(finite, side, 0).ravel().astype(np.float64) for side in (left, right))
        difference = b - a
        self.max_abs_diff = max(self.max_abs_diff, float(np.abs(difference).max()))
        self.difference += float(difference @ difference)
        self.left += float(a @ a)
        self.right += float(b @ b)
        self.product += float(a @ b)

    def row(self) -> dict[str, Any]:
        """The statistics so far; `relative_rms` is the root mean square of the difference by that of the left side."""
        norms = math.sqrt(self.left * self.right)
        return {
            "images": self.images,
            "max_abs_diff": self.max_abs_diff,
            "relative_rms": math.sqrt(self.difference / self.left) if self.left else float(self.difference > 0),
            "cosine": self.product / norms if norms else None,
            "not_finite": self.not_finite,
        }


def localize(run: Run, left: str, right: str) -> dict[str, Any]:
    """Compare two versions of the run's network on some of its images; returns the content of `localize.json`.

    Args:
        left, right: one of NAMES, or the path of an ONNX file of the same network.

    Raises:
        SpecError: it is none of these, or a network without such taps.
        ArtifactError: what is to be compared is not here.
        BackendError: the backend returns nothing but logits.
    """
    at, chosen = run.at(min(run.spec.batch_sizes)), {"left": left, "right": right}
    paths = {key: _path(at, key, value) for key, value in chosen.items()}
    records.require(at, "index")
    names, _ = sources.read_index(at)
    count = min(IMAGES, len(names))
    indices = [i * len(names) // count for i in range(count)]
    crops = batches.crops_at(at, indices)
    with tempfile.TemporaryDirectory(prefix=".taps-", dir=run.folder) as folder:  # on a disk: half a GB for DeiT-small
        sides = {key: _open(at, value, paths[key], crops, Path(folder)) for key, value in chosen.items()}
        # the simplified graph's tokens: both sides may have padded ones
        tokens = (read_json(at.file("optimize")).get("edits") or [{}])[0].get("softmax_tokens_after") or [None]
        facts = compare(sides["left"], sides["right"], crops, tokens[0])
    for key, side in sides.items():
        path = paths[key]
        file = run.relative(path) if path.is_relative_to(run.folder) else str(path)
        made = {"name": chosen[key], "file": file, "sha256": hashing.sha256(path) if path.is_file() else None}  # hub: no file
        facts[key] = {**made, "precision": side.precision, "disturbance": side.disturbance}
    return facts | {"images": [names[i] for i in indices]}


def _path(run: Run, key: str, value: str) -> Path:
    """The file behind a parameter, which must be here."""
    device_model = run.spec.backend_row.device_model
    name = {"torch": "checkpoint", "onnx": "onnx", "edited": "static_onnx", "backend": device_model}.get(value)
    if name == "checkpoint":
        return run.checkpoint
    if name == "om":
        what = f"{key}: backend: an OM in {run.spec.backend} returns its logits and nothing else"
        raise BackendError(f"{what}: compile one with ATC's --out_nodes and compare its outputs, or compare edited")
    if name:
        records.require(run, name)
        return run.file(name)
    if not value.endswith(".onnx"):
        raise SpecError(f"{key}: {value!r}, expected {', '.join(NAMES)} or the path of an .onnx file{nearest(value, [*NAMES])}")
    if not (run.root / value).is_file():
        raise ArtifactError(f"{key}: {value}: no such file: give the path of an .onnx file, or one of {', '.join(NAMES)}")
    return run.root / value


def _open(run: Run, value: str, path: Path, crops: np.ndarray, folder: Path) -> Side:
    spec = run.spec
    precision = spec.precision if value == "backend" else "fp32"
    if path == run.checkpoint:
        return Module(run, precision, transforms.tensors(crops, spec.recipe), Path(tempfile.mkdtemp(dir=folder)))
    if value != "backend":
        return File(run, path, "onnxruntime", Options(), crops)
    runtime = {key: setting for key, setting in spec.runtime.items() if key != "streams"}
    return File(run, path, spec.backend, Options(precision, spec.device, providers=spec.providers, runtime=runtime), crops)


def compare(left: Side, right: Side, crops: np.ndarray, tokens: int | None = None) -> dict[str, Any]:
    """Compare two versions on crops (N, H, W, 3) uint8 at all taps, or by bisection where marking them moves the logits.

    Args:
        tokens: how many are real, where both sides have padded ones.

    Returns:
        `taps`, a row each in the order of computing; `precision` and `tolerance`; `method`; `verdict` of `first_bad`.
    """
    names = [tap for tap in tap_names(max(len(side.nodes) for side in (left, right))) if tap in {**left.nodes, **right.nodes}]
    both = [tap for tap in names if tap in left.nodes and tap in right.nodes]
    precision = max((side.precision for side in (left, right)), key=lambda name: TOLERANCES[name])
    tolerance = TOLERANCES[precision]
    step = max(side.batch_size or 1 for side in (left, right))
    at_once = max(1, VALUES_AT_ONCE // step)

    def measured(taps: Sequence[str]) -> dict[str, dict[str, Any]]:
        sums = {tap: Sums() for tap in taps}
        with left.observing(taps) as at_left, right.observing(taps) as at_right:
            for first in range(0, len(crops), step):
                chunk = crops[first : first + step]
                values = at_left(first, chunk), at_right(first, chunk)
                for tap in taps:
                    sums[tap].add(*_alike(values[0][tap], values[1][tap], tokens))
        return {tap: total.row() for tap, total in sums.items()}

    rows: dict[str, dict[str, Any]] = {}
    for start in range(0, len(both), at_once):
        rows |= measured(both[start : start + at_once])
    sought = max(tolerance, rows[LOGITS]["relative_rms"])
    disturbed = max(left.disturbance, right.disturbance) > UNDISTURBED * sought
    if disturbed:
        rows = _bisected(measured, both, tolerance)
    taps = [{"tap": tap, "computed_by": computed_by(tap), "left_node": left.nodes.get(tap),
             "right_node": right.nodes.get(tap), **rows.get(tap, {})} for tap in names]  # fmt: skip
    return {
        "precision": precision,
        "tolerance": tolerance,
        "method": "one at a time, by bisection" if disturbed else "all at once",
        "taps": taps,
        "verdict": first_bad(taps, tolerance, UNITS[precision]),
    }


def _alike(left: np.ndarray, right: np.ndarray, tokens: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that both sides have, the first ones of (B, N, C): without padded ones, and without those left out."""
    if left.ndim != 3:
        return left, right
    count = min(left.shape[1], right.shape[1], tokens or left.shape[1])
    return left[:, :count], right[:, :count]


def _bisected(
    measured: Callable[[Sequence[str]], dict[str, dict[str, Any]]], taps: list[str], tolerance: float
) -> dict[str, dict[str, Any]]:
    """Search the first tap over tolerance with one tap marked at a time, in as many steps as halving takes.

    It rests on errors that stay once they are there, as along a residual stream.
    """
    rows = measured(taps[-1:])  # the logits, for which nothing is marked
    low, high = 0, len(taps) - 1 if _error(rows[taps[-1]]) > tolerance else 0
    while low < high:
        middle = (low + high) // 2
        rows |= measured([taps[middle]])
        low, high = (low, middle) if _error(rows[taps[middle]]) > tolerance else (middle + 1, high)
    return rows


def first_bad(rows: list[dict[str, Any]], tolerance: float, unit: float) -> dict[str, Any]:
    """Which tap is the first bad one: of those up to the first over tolerance, the one where the error jumps most.

    A jump is the error by the largest before it, at least `unit`. It is one bad layer only where that is above JUMP; else the
    error grew over the tolerance little by little, as rounding does, and the first tap over tolerance is named.

    Returns:
        `kind`: `none`, `jump` or `growth`; and unless none is over it, `tap`, `error`, `not_finite`, `tap_before` and
        `error_before` (of the tap before, None at the first), `over` (the first tap over tolerance).
    """
    seen = [row for row in rows if "relative_rms" in row]
    errors = [_error(row) for row in seen]
    over = next((i for i, error in enumerate(errors) if error > tolerance), None)
    if over is None:
        return {"kind": "none"}
    jumps = [error / most for error, most in zip(errors, itertools.accumulate(errors, max, initial=unit), strict=False)]
    jump = max(range(over + 1), key=jumps.__getitem__)
    kind, at = ("jump", jump) if jumps[jump] > JUMP else ("growth", over)
    before = seen[at - 1] if at else {}
    return {
        "kind": kind,
        "tap": seen[at]["tap"],
        "error": seen[at]["relative_rms"],
        "not_finite": seen[at]["not_finite"],
        "tap_before": before.get("tap"),
        "error_before": before.get("relative_rms"),
        "over": seen[over]["tap"],
    }


def _error(row: dict[str, Any]) -> float:
    return math.inf if row["not_finite"] else row["relative_rms"]
