"""The taps: points that the torch module and every graph made from it have in common, and their values in torch.

`python -m deit_helpers.model.taps FOLDER RUN ROOT PRECISION` leaves the values of the crops in a folder; `Module` runs that.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendError, SpecError
from ..run.folder import Run
from . import apart, checkpoint

EMBEDDING, LOGITS = "blocks.0.norm1.input", "logits"
# Of a block, by name below `blocks.N`: what computes it since the point before. `.input` is what the module reads.
POINTS = {
    "norm1": "norm1",
    "attn": "attn.qkv, softmax, attn.proj",
    "norm2.input": "residual addition",
    "norm2": "norm2",
    "mlp.act": "mlp.fc1, mlp.act",
    "": "mlp.fc2, residual addition",
}
LIMIT_S = 1800
Observe = Callable[[int, np.ndarray], dict[str, np.ndarray]]  # number of the first crop, crops -> values by tap


def tap_names(depth: int) -> list[str]:
    """The names of all taps of a network of so many blocks, in the order in which they are computed."""
    of_blocks = [f"blocks.{block}.{point}".rstrip(".") for block in range(depth) for point in POINTS]
    return [EMBEDDING, *of_blocks, LOGITS]


def computed_by(tap: str) -> str:
    """The modules between a tap and the one before it."""
    ends = {EMBEDDING: "patch_embed, cls_token, pos_embed", LOGITS: "norm, head"}
    return ends[tap] if tap in ends else POINTS["".join(tap.split(".", 2)[2:])]


class Module:
    """The network of the spec with hooks. It runs once, on tensors (N, 3, H, W), in a process of its own: torch takes 1 GB.

    The values of all taps, float32 (1, N, C), are left in `folder / "IMAGE-TAP.npy"`: 33 MB an image for DeiT-small.

    Attributes:
        nodes: the taps that it has, with the module of each.

    Raises:
        SpecError: the network is built otherwise.
        BackendError: the process ended before its time.
        DeitError: as `checkpoint.load`.
    """

    batch_size, disturbance = None, 0.0

    def __init__(self, run: Run, precision: str, tensors: np.ndarray, folder: Path):
        self.precision, self.folder = precision, folder
        facts, why = apart.work(run, __name__, folder, tensors, precision, limit_s=LIMIT_S)
        if why:
            raise BackendError(f"torch: {run.spec.model} with hooks {why}: compare onnx with edited, or free memory")
        self.nodes: dict[str, str] = {tap: tap for tap in facts["taps"]}

    @contextlib.contextmanager
    def observing(self, taps: Sequence[str]) -> Iterator[Observe]:
        """Values by tap, when it is called with the number of the first crop and the crops."""

        def observe(first: int, crops: np.ndarray) -> dict[str, np.ndarray]:
            images = range(first, first + len(crops))
            return {tap: np.concatenate([np.load(_path(self.folder, i, tap)) for i in images]) for tap in taps}

        yield observe


def main(folder: Path, run_folder: Path, root: Path, precision: str) -> None:
    """Do the work in that process."""
    import torch

    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    with apart.working(folder, run_folder, root) as (run, tensors, facts):
        module = checkpoint.load(run)[0].to(kind)
        facts["taps"] = tap_names(_depth(module))
        image = 0

        def keep(tap: str, value: Any) -> None:
            np.save(_path(folder, image, tap), value.float().numpy())

        for tap in facts["taps"]:
            _hook(module, tap, keep)  # writes at once: all values of an image would be 66 MB more
        for image in range(len(tensors)):
            with torch.inference_mode():
                keep(LOGITS, module(torch.from_numpy(tensors[image : image + 1]).to(kind)))


def _path(folder: Path, image: int, tap: str) -> Path:
    return folder / f"{image}-{tap}.npy"


def _depth(module: Any) -> int:
    depth = len(getattr(module, "blocks", ()))
    modules = {name for name, _ in module.named_modules()}
    if not depth or not {tap.removesuffix(".input") for tap in tap_names(depth)} - {LOGITS} <= modules:
        kind = type(module).__name__
        raise SpecError(f"torch: a {kind} has no blocks of norm1, attn, norm2 and mlp.act: compare onnx with edited or a file")
    return depth


def _hook(module: Any, tap: str, keep: Callable[[str, Any], None]) -> None:
    """Let every call of the module give the tensor of a tap to `keep`; the logits it returns itself."""
    if tap == LOGITS:
        return
    target = module.get_submodule(tap.removesuffix(".input"))
    if tap.endswith(".input"):
        target.register_forward_pre_hook(lambda _, inputs: keep(tap, inputs[0]))
    else:
        target.register_forward_hook(lambda _, inputs, output: keep(tap, output))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
