"""OpenVINO on the CPU, from the same static ONNX graph: fp32, and bf16 or fp16 where the processor computes in it.

As many batches as there are inference streams are worked on at once, and one more is queued; how many streams pay is measured
when the model is loaded, unless `runtime: {streams: N}` says it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import openvino as ov
import pandas as pd
from openvino import opset13, properties

from ..errors import BackendError
from ..images import Batch
from ..profile import COLUMNS, OperatorProfile, family_of_openvino, with_shares
from . import PEAK_SIDE, Answer, Backend, peak_rate

_TYPES = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "fp16": ov.Type.f16}
_STREAMS = (1, 2)  # on few cores more of them share the caches and lose
_TRIALS, _TRIAL_S = 3, 0.5  # a stream count is tried so often, for so long


class OpenVino(Backend):
    runtime_keys: ClassVar[dict[str, type]] = {"threads": int, "streams": int}

    def __init__(self, model: Path, precision: str = "fp32", device: int = 0, options: dict[str, Any] | None = None):
        super().__init__(model, precision, device, options)
        self._core = ov.Core()
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision.upper() not in able:
            has = ", ".join(name.lower() for name in able if name.lower() in _TYPES)
            raise BackendError(f"precision: this CPU does not compute in {precision} with OpenVINO; it has {has}")
        self._config: dict[str, Any] = {properties.hint.inference_precision: _TYPES[precision]}
        if "threads" in self.runtime:
            self._config[properties.inference_num_threads] = self.runtime["threads"]
        if "cache" in self.options:
            self._config[properties.cache_dir] = str(self.options["cache"])
        try:
            self._graph = self._core.read_model(model)
        except RuntimeError as err:
            raise BackendError(f"{model}: OpenVINO cannot read it ({str(err).strip().splitlines()[-1]})") from err
        takes, gives = self._graph.input(0).partial_shape, self._graph.output(0).partial_shape
        if takes.rank.get_length() != 4 or gives.rank.get_length() != 2:
            raise BackendError(f"{model}: maps {takes} to {gives}, expected images (N, 3, H, W) to logits (N, C)")
        self.dtype = np.dtype(self._graph.input(0).element_type.to_dtype())
        self.batch_size = takes[0].get_length() if takes[0].is_static else None
        self.image_px, self.classes = takes[2].get_length(), gives[1].get_length()
        self._open(self.runtime.get("streams") or self._best_streams())

    def _open(self, streams: int) -> None:
        config = {**self._config, properties.num_streams: streams}
        self._compiled = self._core.compile_model(self._graph, "CPU", config)
        # One more than streams: the next batch waits inside the runtime, and no stream waits for Python.
        self.streams, self.in_flight = streams, streams + 1
        self._requests = [self._compiled.create_infer_request() for _ in range(self.in_flight)]

    def _best_streams(self) -> int:
        """The number of streams with the highest rate on this machine at this batch size, tried in turn."""
        if self.batch_size is None:
            return 1
        batch = self.blank(self.batch_size)
        rates: dict[int, list[float]] = {streams: [] for streams in _STREAMS}
        for streams in _STREAMS * _TRIALS:
            self._open(streams)
            for _ in self.stream([batch] * (streams + 1)):  # warm up
                pass
            start, done = time.perf_counter(), 0
            for _ in self.stream(self._endless(batch, start + _TRIAL_S)):
                done += 1
            rates[streams].append(done / (time.perf_counter() - start))
        return max(rates, key=lambda streams: float(np.median(rates[streams])))

    @staticmethod
    def _endless(batch: Batch, until: float) -> Iterator[Batch]:
        yield batch
        while time.perf_counter() < until:
            yield batch

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        return self._requests[0].infer({0: batch}, share_inputs=True)[0].astype(np.float32)  # a copy: the request is used again

    def stream(self, batches: Iterable[Batch]) -> Iterator[Answer]:
        """As many batches at once as there are streams, and one more queued."""
        free, running = deque(self._requests), deque[tuple[Any, Batch, int]]()
        for batch in batches:
            self.check_batch(batch.tensor)
            if not free:
                yield self._finished(running, free)
            request = free.popleft()
            running.append((request, batch, time.perf_counter_ns()))
            request.start_async({0: batch.tensor}, share_inputs=True)
        while running:
            yield self._finished(running, free)

    def _finished(self, running: deque[tuple[Any, Batch, int]], free: deque[Any]) -> Answer:
        request, batch, started_ns = running.popleft()
        request.wait()
        logits = request.get_output_tensor(0).data.astype(np.float32)
        free.append(request)
        return self._answer(batch, logits, started_ns, time.perf_counter_ns())

    def describe(self) -> dict[str, Any]:
        used = self._compiled.get_property(properties.hint.inference_precision)
        return {
            "backend": "openvino",
            "version": ov.__version__.partition("-")[0],
            "device": "CPU",
            "precision": self.precision,
            "precision_used": used.get_type_name(),
            "streams": self.streams,
        }

    def profile(self, batch: np.ndarray, iterations: int) -> OperatorProfile:
        """Run with OpenVINO's performance counters on, in a model of its own, a first, uncounted run warming up."""
        config = {**self._config, properties.enable_profiling: True, properties.num_streams: 1}
        request = self._core.compile_model(self._graph, "CPU", config).create_infer_request()
        request.infer({0: batch}, share_inputs=True)
        rows: dict[tuple[str, str, str], list[float]] = {}
        seconds = 0.0
        for _ in range(iterations):
            start = time.perf_counter()
            request.infer({0: batch}, share_inputs=True)
            seconds += time.perf_counter() - start
            for info in request.profiling_info:
                if info.status == ov.ProfilingInfo.Status.EXECUTED:
                    key = family_of_openvino(info.node_type), info.node_type, info.node_name
                    entry = rows.setdefault(key, [0, 0.0])
                    entry[0] += 1
                    entry[1] += info.real_time.total_seconds() * 1e6
        table = pd.DataFrame([(*key, *entry) for key, entry in rows.items()], columns=COLUMNS[:5])
        return OperatorProfile(with_shares(table, "openvino"), iterations, 1000 * seconds / iterations)

    def peak_flops_per_s(self) -> float:
        """Best rate of a square matrix product with a constant factor, as in the model, by this runtime and precision."""
        shape = (PEAK_SIDE, PEAK_SIDE)
        left = opset13.parameter(shape, np.float32)
        product = opset13.matmul(left, opset13.constant(np.ones(shape, np.float32)), False, False)
        config = {name: value for name, value in self._config.items() if name != properties.cache_dir}
        request = self._core.compile_model(ov.Model([product], [left]), "CPU", config).create_infer_request()
        a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        return peak_rate(lambda: request.infer({0: a}, share_inputs=True), PEAK_SIDE)
