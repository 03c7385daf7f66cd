"""PyTorch from the checkpoint itself, on the CPU or a CUDA GPU: eager or compiled, fp32, bf16 or fp16.

On a GPU the model is compiled with CUDA graphs unless `runtime` says otherwise; two batches are in flight, the next one
being copied while the GPU works. Never run on a GPU by the authors unless the README says so.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from ..errors import BackendError
from ..images import Batch
from ..profile import COLUMNS, OperatorProfile, family_of_torch, with_shares
from . import PEAK_SIDE, Answer, Backend, peak_rate

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_PEAK_SIDES = {"cpu": PEAK_SIDE, "cuda": 8192}
_AHEAD = 2  # batches on their way to or on a GPU


class Torch(Backend):
    """A timm model in inference mode. `options` hold `module`, which builds it, and `batch_size`."""

    runtime_keys: ClassVar[dict[str, type]] = {"device": str, "compile": bool, "channels_last": bool, "threads": int}

    def __init__(self, model: Path, precision: str = "fp32", device: int = 0, options: dict[str, Any] | None = None):
        super().__init__(model, precision, device, options)
        kind = self.runtime.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
        if kind not in _PEAK_SIDES:
            raise BackendError(f"runtime: device: {kind!r}, expected cpu or cuda")
        if kind == "cuda" and device >= torch.cuda.device_count():
            raise BackendError(
                f"device {device}: torch finds {torch.cuda.device_count()} CUDA GPUs: correct device, or runtime"
            )
        if "threads" in self.runtime:
            torch.set_num_threads(self.runtime["threads"])
        self._kind, self._type = kind, _TYPES[precision]
        self._device = torch.device(f"cuda:{device}" if kind == "cuda" else "cpu")
        layout = torch.channels_last if self.runtime.get("channels_last") else torch.contiguous_format
        module = self.options["module"]().to(self._device, self._type, memory_format=layout)
        self.compiled = self.runtime.get("compile", kind == "cuda")
        # reduce-overhead records CUDA graphs: without them a small batch is bound by launching kernels
        mode = "reduce-overhead" if kind == "cuda" else "default"
        self._forward = torch.compile(module, mode=mode) if self.compiled else module
        self.batch_size = self.options["batch_size"]
        self.dtype = np.dtype(np.float32)
        self.image_px = module.patch_embed.img_size[0]
        self.classes = module.num_classes

    def _run(self, batch: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(batch)
        if self._kind == "cuda":
            x = x.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode():
            # A copy: with CUDA graphs the next run overwrites the output.
            return self._forward(x.to(self._type)).float().clone()

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        try:
            return self._run(batch).cpu().numpy()
        except torch.OutOfMemoryError as err:
            raise BackendError(f"batch of {len(batch)} images does not fit the GPU's memory: use a smaller batch size") from err

    def stream(self, batches: Iterable[Batch]) -> Iterator[Answer]:
        """On a GPU the next batch is copied and queued while it works."""
        if self._kind == "cpu":
            yield from super().stream(batches)
            return
        running = deque[tuple[Batch, torch.Tensor, Any, int]]()
        for batch in batches:
            self.check_batch(batch.tensor)
            if len(running) == _AHEAD:
                yield self._finished(running)
            started_ns = time.perf_counter_ns()
            logits = self._run(batch.tensor).to("cpu", non_blocking=True)
            done = torch.cuda.Event()
            done.record()
            running.append((batch, logits, done, started_ns))
        while running:
            yield self._finished(running)

    def _finished(self, running: deque[tuple[Batch, torch.Tensor, Any, int]]) -> Answer:
        batch, logits, done, started_ns = running.popleft()
        done.synchronize()
        return self._answer(batch, logits.numpy(), started_ns, time.perf_counter_ns())

    def describe(self) -> dict[str, Any]:
        name = torch.cuda.get_device_name(self._device) if self._kind == "cuda" else "CPU"
        return {
            "backend": "torch",
            "version": torch.__version__,
            "device": name,
            "precision": self.precision,
            "compiled": self.compiled,
        }

    def profile(self, batch: np.ndarray, iterations: int) -> OperatorProfile:
        """Run under torch's profiler, a first, uncounted run warming up. Times of a GPU are those of its kernels."""
        self._infer(batch)
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self._kind == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        start = time.perf_counter()
        with torch.profiler.profile(activities=kinds, acc_events=True) as profiler:
            for _ in range(iterations):
                self._infer(batch)
        batch_ms = 1000 * (time.perf_counter() - start) / iterations
        rows = []
        for event in profiler.key_averages():
            total_us = event.self_device_time_total if self._kind == "cuda" else event.self_cpu_time_total
            if total_us > 0:
                rows.append((family_of_torch(event.key), event.key, event.key, event.count, total_us))
        return OperatorProfile(with_shares(pd.DataFrame(rows, columns=COLUMNS[:5]), "torch"), iterations, batch_ms)

    def peak_flops_per_s(self) -> float:
        """Best rate of a square matrix product in this precision on this device."""
        side = _PEAK_SIDES[self._kind]
        a = torch.randn((side, side), device=self._device).to(self._type)

        def multiply() -> None:
            torch.mm(a, a)
            if self._kind == "cuda":
                torch.cuda.synchronize(self._device)

        return peak_rate(multiply, side)

    def __exit__(self, *exc_info: object) -> None:
        del self._forward
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
