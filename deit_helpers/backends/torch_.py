"""PyTorch from the checkpoint itself, on the CPU or a CUDA GPU: eager or compiled, fp32, bf16 or fp16.

The model takes uint8 crops and normalises them itself in fp32: a quarter of the bytes to copy, and they arrive channels
last. On a GPU it is compiled with CUDA graphs unless `runtime` says otherwise; two batches are in flight, the next one
being copied while the GPU works. Never run on a GPU by the authors unless the README says so.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch

from ..errors import BackendError
from ..metrics.latency import in_turn, peak_rate, time_ms
from ..metrics.operators import OperatorProfile, family_of_torch, operator_table
from ..run.host import machine
from .contract import PEAK_SIDE, Backend, Execution, Loaded

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_PEAK_SIDES = {"cpu": PEAK_SIDE, "cuda": 8192}


class _FromCrops(torch.nn.Module):  # type: ignore[misc]  # mypy does not look into torch
    """A model and the normalisation before it: crops (B, H, W, 3) uint8 -> logits (B, C) float32."""

    def __init__(self, model: torch.nn.Module, mean: tuple[float, ...], std: tuple[float, ...], kind: torch.dtype):
        super().__init__()
        self.model, self.kind = model.to(kind), kind
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        x = crops.permute(0, 3, 1, 2).float() / 255
        return self.model(((x - self.mean) / self.std).to(self.kind)).float()


class Torch(Backend):
    """A timm model in inference mode; on a GPU it queues.

    Attributes:
        forward: crops (B, H, W, 3) uint8 to logits (B, C) float32, both on the device.
    """

    runtime_keys: ClassVar[dict[str, type]] = {"device": str, "compile": bool, "threads": int}
    forward: Any = None

    def load(self) -> Loaded:
        kind, device = self.runtime.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"), self.options.device
        if kind not in _PEAK_SIDES:
            raise BackendError(f"runtime: device: {kind!r}, expected cpu or cuda")
        if kind == "cuda" and device >= torch.cuda.device_count():
            gpus = torch.cuda.device_count()
            raise BackendError(f"device {device}: torch finds {gpus} CUDA GPUs: correct device, or runtime")
        if "threads" in self.runtime:
            torch.set_num_threads(self.runtime["threads"])
        self._type, self.on_gpu = _TYPES[self.options.precision], kind == "cuda"
        self._device = torch.device(kind, device if self.on_gpu else None)
        if self.on_gpu:
            torch.cuda.set_device(self._device)  # of the events and streams below
            # fp32 means fp32: cuDNN's convolutions use TF32 otherwise
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            self._copies = torch.cuda.Stream()
        if self.options.network is None:
            raise BackendError("torch runs the checkpoint itself: open it with bench.open_model")
        network, recipe = self.options.network(), self.options.recipe
        self.forward = _FromCrops(network, recipe.mean, recipe.std, self._type).to(self._device)
        self.compiled = self.runtime.get("compile", self.on_gpu)
        if self.compiled:
            # reduce-overhead records CUDA graphs: without them a small batch is bound by launching kernels
            mode = "reduce-overhead" if self.on_gpu else "default"
            self.forward = torch.compile(self.forward, mode=mode, dynamic=False)
            self.hint = "; if the compiler is at fault, set runtime: {compile: false}"
        sessions = [None] * (2 if self.on_gpu else 1)  # nothing of its own belongs to a batch
        side = network.patch_embed.img_size[0]
        return Loaded(sessions, self.options.batch_size, network.num_classes, side, np.dtype(np.uint8))

    def infer(self, session: None, batch: np.ndarray) -> Execution:
        with self._inference(batch):
            return Execution(self.forward(self.upload(batch)).cpu().numpy())

    @contextlib.contextmanager
    def _inference(self, batch: np.ndarray) -> Iterator[None]:
        try:
            with torch.inference_mode():
                yield
        except torch.OutOfMemoryError as err:
            raise BackendError(f"batch of {len(batch)} images does not fit the GPU's memory: use a smaller batch size") from err

    def upload(self, batch: np.ndarray) -> torch.Tensor:
        """The batch on the device; on a GPU the copy is only queued."""
        x = torch.from_numpy(batch)
        return x.pin_memory().to(self._device, non_blocking=True) if self.on_gpu else x

    def start(self, session: None, batch: np.ndarray) -> tuple[torch.Tensor, list[Any]]:
        """Queue a batch on a GPU: its logits to be, and events when it was sent, begun, ended and copied back."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        sent, begun, ended, copied = events
        compute = torch.cuda.current_stream()
        with self._inference(batch):
            with torch.cuda.stream(self._copies):
                sent.record()
                x = self.upload(batch)
            compute.wait_stream(self._copies)
            x.record_stream(compute)  # its memory was taken for another stream
            begun.record()
            logits = self.forward(x)
            ended.record()
            # in the order of the stream, so before the next run of a CUDA graph overwrites it
            logits = logits.to("cpu", non_blocking=True)
            copied.record()
        return logits, events

    def finish(self, started: tuple[torch.Tensor, list[Any]]) -> Execution:
        logits, (sent, begun, ended, copied) = started
        copied.synchronize()
        # by the GPU's clock: the logits may be taken much later than they came
        return Execution(logits.numpy(), begun.elapsed_time(ended), sent.elapsed_time(copied))

    def describe(self) -> dict[str, Any]:
        gpu = torch.cuda.get_device_name(self._device) if self.on_gpu else None
        return {
            "backend": "torch",
            "version": torch.__version__,
            "device": gpu or "CPU",
            "hardware": gpu or machine()["cpu"],
            "precision": self.options.precision,
            "compiled": self.compiled,
        }

    def profile(self, batch: np.ndarray, at_most: int) -> OperatorProfile:
        """Run with torch's profiler on and off in turn, after a warm-up: operators on a CPU, kernels on a GPU."""
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self.on_gpu:
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        events = list[Any]()

        def plain() -> float:
            return time_ms(lambda: self.infer(None, batch))

        def profiled() -> float:
            with torch.profiler.profile(activities=kinds, acc_events=True) as profiler:
                ms = plain()
            events.append(profiler.key_averages())
            return ms

        plain()
        profiled_ms, plain_ms = in_turn(profiled, lambda: plain, at_most)
        rows = []
        for event in itertools.chain.from_iterable(events[1:]):  # after the warm-up
            # The time of a kernel is listed twice, under itself and under the operator that launched it.
            on_gpu = event.device_type == torch.autograd.DeviceType.CUDA
            total_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            # Annotations span kernels that are listed too; copies to and from the host are no operators.
            operator = not (getattr(event, "is_user_annotation", False) or event.key.startswith(("Memcpy", "Memset")))
            if total_us > 0 and on_gpu == self.on_gpu and operator:
                rows.append((family_of_torch(event.key), event.key, event.key, event.count, total_us))
        return OperatorProfile(operator_table(rows, "torch"), len(profiled_ms), profiled_ms, plain_ms)

    def peak_flops_per_s(self) -> float:
        """Best rate of a square matrix product in this precision on this device."""
        side = _PEAK_SIDES[self._device.type]
        a = torch.randn((side, side), device=self._device).to(self._type)

        def multiply() -> None:
            torch.mm(a, a)
            if self.on_gpu:
                torch.cuda.synchronize()

        return peak_rate(multiply, side)

    def close(self, failing: bool) -> None:
        if self.forward is None:  # it was not loaded
            return
        self.forward = None
        with contextlib.suppress(RuntimeError):
            if self.compiled:
                torch.compiler.reset()
            torch.cuda.empty_cache()
