"""OpenVINO on the CPU, from the same static ONNX graph: fp32, and bf16 or fp16 where the processor computes in it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import openvino as ov
from openvino import opset13, properties

from ..errors import BackendError
from ..metrics.latency import in_turn, peak_rate, time_ms
from ..metrics.operators import OperatorProfile, family_of, operator_table
from ..run.host import machine
from .contract import PEAK_SIDE, Backend, Execution, Loaded

_TYPES = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "fp16": ov.Type.f16}


@functools.cache
def _core() -> ov.Core:
    """One for the process. Each sets up a stack for signal handlers and puts back the one before when it ends: of two that
    end in the order they began, the second puts back one that is freed, and the next signal, such as Ctrl-C, is a crash."""
    return ov.Core()


class OpenVino(Backend):
    runtime_keys: ClassVar[dict[str, type]] = {"threads": int, "streams": int}

    def load(self) -> Loaded:
        able = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self.options.precision.upper() not in able:
            has = ", ".join(name.lower() for name in able if name.lower() in _TYPES)
            asked = self.options.precision
            raise BackendError(f"precision: this CPU does not compute in {asked} with OpenVINO; it has {has}")
        try:
            self._graph = _core().read_model(self.path)
        except RuntimeError as err:
            raise BackendError(f"{self.path}: OpenVINO cannot read it ({str(err).strip().splitlines()[-1]})") from err
        image, logits = self._graph.input(0).partial_shape, self._graph.output(0).partial_shape
        if image.rank.get_length() != 4 or logits.rank.get_length() != 2:
            raise BackendError(f"{self.path}: maps {image} to {logits}, expected images (N, 3, H, W) to logits (N, C)")
        self._config: dict[str, Any] = {properties.hint.inference_precision: _TYPES[self.options.precision]}
        if "threads" in self.runtime:
            self._config[properties.inference_num_threads] = self.runtime["threads"]
        self._compiled = self._compile({properties.num_streams: self.streams})
        # not OpenVINO's AsyncInferQueue, whose results come in any order, nor its hints: measured, neither is faster
        requests = [self._compiled.create_infer_request() for _ in range(self.streams)]
        batch_size = image[0].get_length() if image[0].is_static else None
        dtype = np.dtype(self._graph.input(0).element_type.to_dtype())
        return Loaded(requests, batch_size, logits[1].get_length(), image[2].get_length(), dtype)

    def infer(self, session: ov.InferRequest, batch: np.ndarray) -> Execution:
        session.infer({0: batch}, share_inputs=True)
        return Execution(session.get_output_tensor(0).data.astype(np.float32))  # a copy: the request is used again

    def describe(self) -> dict[str, Any]:
        used = self._compiled.get_property(properties.hint.inference_precision)
        return {
            "backend": "openvino",
            "version": ov.__version__.partition("-")[0],
            "device": "CPU",
            "hardware": machine()["cpu"],
            "precision": self.options.precision,
            "precision_used": used.get_type_name(),
            "streams": self.streams,
        }

    def _compile(self, config: dict[str, Any]) -> ov.CompiledModel:
        cache = {properties.cache_dir: str(self.options.cache)} if self.options.cache else {}
        return _core().compile_model(self._graph, "CPU", {**self._config, **cache, **config})

    def profile(self, batch: np.ndarray, at_most: int) -> OperatorProfile:
        """Run with OpenVINO's performance counters on and off in turn, one batch at a time in one stream."""

        runs = list[list[ov.ProfilingInfo]]()

        def opened(counters: bool) -> Callable[[], float]:
            config = {properties.enable_profiling: counters, properties.num_streams: 1}
            request = self._compile(config).create_infer_request()

            def run() -> float:
                ms = time_ms(lambda: request.infer({0: batch}, share_inputs=True))
                if counters:
                    runs.append(request.profiling_info)
                return ms

            return run

        profiled_ms, plain_ms = in_turn(opened(True), lambda: opened(False), at_most)
        rows = []
        for layer in itertools.chain.from_iterable(runs[1:]):  # after the warm-up
            if layer.status == ov.ProfilingInfo.Status.EXECUTED:
                kind, us = layer.node_type, layer.real_time.total_seconds() * 1e6
                rows.append((family_of(kind, True), kind, layer.node_name, 1, us))
        return OperatorProfile(operator_table(rows, "openvino"), len(profiled_ms), profiled_ms, plain_ms)

    def peak_flops_per_s(self) -> float:
        """Best rate of a square matrix product with a constant factor, as in the model, by this runtime and precision."""
        shape = (PEAK_SIDE, PEAK_SIDE)
        left = opset13.parameter(shape, np.float32)
        product = opset13.matmul(left, opset13.constant(np.ones(shape, np.float32)), False, False)
        request = _core().compile_model(ov.Model([product], [left]), "CPU", self._config).create_infer_request()
        a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        return peak_rate(lambda: request.infer({0: a}, share_inputs=True), PEAK_SIDE)
