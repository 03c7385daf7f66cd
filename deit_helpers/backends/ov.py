"""OpenVINO on the CPU, from the same static ONNX graph: fp32, and bf16 or fp16 where the processor computes in it.

As many batches as there are inference streams are worked on at once, and one more is queued; how many streams pay is measured
when the model is loaded, unless `runtime: {streams: N}` says it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import openvino as ov
import pandas as pd
from openvino import opset13, properties

from ..errors import BackendError
from ..images import Batch
from ..machine import machine
from ..profile import COLUMNS, OperatorProfile, family_of, with_shares
from ..timing import rounds, time_ms
from . import PEAK_SIDE, Answer, Backend, peak_rate

_TYPES = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "fp16": ov.Type.f16}
_STREAMS = (1, 2)  # tried; on few cores more of them share the caches and lose
_TRIALS, _TRIAL_S = 3, 0.5  # a stream count is tried so often, for so long,
_SLOW_MS = 1500.0  # unless a batch takes longer than this


class _Running(NamedTuple):
    """A batch under way, and when it was sent."""

    request: ov.InferRequest
    batch: Batch
    sent_ns: int


def _logits(request: ov.InferRequest) -> np.ndarray:
    return request.get_output_tensor(0).data.astype(np.float32)  # a copy: the request is used again


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
        streams = self.runtime.get("streams", 1)
        self._use(self._compile(streams), streams)
        if "streams" not in self.runtime and self.batch_size is not None:
            begun = time.perf_counter()
            self._find_streams(self.noise(self.batch_size))
            self.tuning_s = time.perf_counter() - begun

    def _compile(self, streams: int) -> ov.CompiledModel:
        with self.failing("loading"):
            return self._core.compile_model(self._graph, "CPU", {**self._config, properties.num_streams: streams})

    def _use(self, compiled: ov.CompiledModel, streams: int) -> None:
        self._compiled, self.streams = compiled, streams
        self.in_flight = streams + 1  # the next batch waits inside the runtime, and no stream waits for Python
        self._requests = [compiled.create_infer_request() for _ in range(self.in_flight)]

    def _find_streams(self, batch: Batch) -> None:
        """Use as many streams as give the highest rate on this machine at this batch size; they are tried in turn."""
        *_, last = self.stream([batch] * self.in_flight)
        if last.interface_ms > _SLOW_MS:  # large batches keep all cores busy, and trials of them would take minutes
            return
        compiled = {streams: self._compiled if streams == self.streams else self._compile(streams) for streams in _STREAMS}
        rates: dict[int, list[float]] = {streams: [] for streams in _STREAMS}
        for streams in _STREAMS * _TRIALS:
            self._use(compiled[streams], streams)
            for _ in self.stream([batch] * self.in_flight):  # warms up
                pass
            start = time.perf_counter()
            done = sum(1 for _ in self.stream(self._endless(batch, start + _TRIAL_S)))
            rates[streams].append(done / (time.perf_counter() - start))
        best = max(rates, key=lambda streams: float(np.median(rates[streams])))
        self._use(compiled[best], best)

    @staticmethod
    def _endless(batch: Batch, until: float) -> Iterator[Batch]:
        yield batch
        while time.perf_counter() < until:
            yield batch

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        request = self._requests[0]
        request.infer({0: batch}, share_inputs=True)
        return _logits(request)

    def stream(self, batches: Iterable[Batch]) -> Iterator[Answer]:
        """As many batches at once as there are streams, and one more queued."""
        free, running = deque(self._requests), deque[_Running]()
        for batch in batches:
            self.check_batch(batch.tensor)
            if not free:
                yield self._finished(running, free)
            running.append(_Running(free.popleft(), batch, time.perf_counter_ns()))
            with self.failing(f"the batch from image {batch.start}"):
                running[-1].request.start_async({0: batch.tensor}, share_inputs=True)
        while running:
            yield self._finished(running, free)

    def _finished(self, running: deque[_Running], free: deque[ov.InferRequest]) -> Answer:
        request, batch, sent_ns = running.popleft()
        with self.failing(f"the batch from image {batch.start}"):
            request.wait()
            logits = _logits(request)
        free.append(request)
        # By the runtime's clock: the answer may be taken much later than it came.
        return self._answer(batch, logits, sent_ns, sent_ns + round(1e6 * request.latency))

    def describe(self) -> dict[str, Any]:
        used = self._compiled.get_property(properties.hint.inference_precision)
        return {
            "backend": "openvino",
            "version": ov.__version__.partition("-")[0],
            "device": "CPU",
            "hardware": machine()["cpu"],
            "precision": self.precision,
            "precision_used": used.get_type_name(),
            "streams": self.streams,
        }

    def profile(self, batch: np.ndarray, at_most: int) -> OperatorProfile:
        """Run with OpenVINO's performance counters on and off, one batch at a time in one stream, after a warm-up each."""
        rows: dict[tuple[str, str, str], list[float]] = {}

        def request_of(counters: bool) -> Any:
            config = {**self._config, properties.enable_profiling: counters, properties.num_streams: 1}
            request = self._core.compile_model(self._graph, "CPU", config).create_infer_request()
            request.infer({0: batch}, share_inputs=True)
            return request

        plain, profiled = request_of(False), request_of(True)
        plain_ms, profiled_ms = [], []
        for _ in rounds(at_most):
            plain_ms.append(time_ms(lambda: plain.infer({0: batch}, share_inputs=True)))
            profiled_ms.append(time_ms(lambda: profiled.infer({0: batch}, share_inputs=True)))
            for info in profiled.profiling_info:
                if info.status == ov.ProfilingInfo.Status.EXECUTED:
                    key = family_of(info.node_type, True, False), info.node_type, info.node_name
                    entry = rows.setdefault(key, [0, 0.0])
                    entry[0] += 1
                    entry[1] += info.real_time.total_seconds() * 1e6
        table = pd.DataFrame([(*key, *entry) for key, entry in rows.items()], columns=COLUMNS[:5])
        return OperatorProfile(with_shares(table, "openvino"), len(profiled_ms), profiled_ms, plain_ms)

    def peak_flops_per_s(self) -> float:
        """Best rate of a square matrix product with a constant factor, as in the model, by this runtime and precision."""
        shape = (PEAK_SIDE, PEAK_SIDE)
        left = opset13.parameter(shape, np.float32)
        product = opset13.matmul(left, opset13.constant(np.ones(shape, np.float32)), False, False)
        config = {name: value for name, value in self._config.items() if name != properties.cache_dir}
        request = self._core.compile_model(ov.Model([product], [left]), "CPU", config).create_infer_request()
        a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        return peak_rate(lambda: request.infer({0: a}, share_inputs=True), PEAK_SIDE)
