"""OpenVINO on the CPU, from the same static ONNX graph: fp32, and bf16 or fp16 where the processor computes in it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import openvino as ov
import pandas as pd
from openvino import opset13, properties

from ..errors import BackendError
from ..metrics.latency import peak_rate, rounds, time_ms
from ..metrics.operators import COLUMNS, OperatorProfile, family_of, with_shares
from ..run.host import machine
from . import PEAK_SIDE, Backend

_TYPES = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "fp16": ov.Type.f16}


@functools.cache
def _core() -> ov.Core:
    """One for the process. Each sets up a stack for signal handlers and puts back the one before when it ends: of two that
    end in the order they began, the second puts back one that is freed, and the next signal, such as Ctrl-C, is a crash."""
    return ov.Core()


class OpenVino(Backend):
    runtime_keys: ClassVar[dict[str, type]] = {"threads": int, "streams": int}

    def __init__(self, model: Path, precision: str = "fp32", device: int = 0, options: dict[str, Any] | None = None):
        super().__init__(model, precision, device, options)
        able = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision.upper() not in able:
            has = ", ".join(name.lower() for name in able if name.lower() in _TYPES)
            raise BackendError(f"precision: this CPU does not compute in {precision} with OpenVINO; it has {has}")
        self._config: dict[str, Any] = {properties.hint.inference_precision: _TYPES[precision]}
        if "threads" in self.runtime:
            self._config[properties.inference_num_threads] = self.runtime["threads"]
        if "cache" in self.options:
            self._config[properties.cache_dir] = str(self.options["cache"])
        try:
            self._graph = _core().read_model(model)
        except RuntimeError as err:
            raise BackendError(f"{model}: OpenVINO cannot read it ({str(err).strip().splitlines()[-1]})") from err
        takes, gives = self._graph.input(0).partial_shape, self._graph.output(0).partial_shape
        if takes.rank.get_length() != 4 or gives.rank.get_length() != 2:
            raise BackendError(f"{model}: maps {takes} to {gives}, expected images (N, 3, H, W) to logits (N, C)")
        self.dtype = np.dtype(self._graph.input(0).element_type.to_dtype())
        self.batch_size = takes[0].get_length() if takes[0].is_static else None
        self.image_px, self.classes = takes[2].get_length(), gives[1].get_length()
        with self.failing("loading"):
            streams = {properties.num_streams: self.streams}
            self._compiled = _core().compile_model(self._graph, "CPU", {**self._config, **streams})
        for _ in range(self.streams):
            self.free.put(self._compiled.create_infer_request())

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        with self.one_free() as request:
            request.infer({0: batch}, share_inputs=True)
            return request.get_output_tensor(0).data.astype(np.float32)  # a copy: the request is used again

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
            request = _core().compile_model(self._graph, "CPU", config).create_infer_request()
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
        request = _core().compile_model(ov.Model([product], [left]), "CPU", config).create_infer_request()
        a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        return peak_rate(lambda: request.infer({0: a}, share_inputs=True), PEAK_SIDE)
