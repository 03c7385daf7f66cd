"""ONNX Runtime on the CPU: the embedded default and the fp32 reference; `providers` of the spec come before the CPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from ..errors import BackendError
from ..metrics.latency import in_turn, peak_rate, time_ms
from ..metrics.operators import OperatorProfile, table_from_onnxruntime
from ..run.host import machine, physical_cores
from .contract import PEAK_SIDE, Backend, Execution, Loaded

# onnxruntime's own exceptions share no base class but Exception.
_OWN = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
_ERRORS_ONLY = 3  # onnxruntime's log severity; warnings are about its own optimiser


class OnnxRuntime(Backend):
    runtime_keys: ClassVar[dict[str, type]] = {"threads": int, "streams": int}
    errors = (RuntimeError, *_OWN)

    def load(self) -> Loaded:
        if self.options.precision != "fp32":
            asked = f"the spec asks for {self.options.precision}"
            raise BackendError(f"onnxruntime runs this graph in fp32 only, {asked}: set precision: fp32")
        # one for each batch: the callers of a session share its threads
        sessions = [self._open(self.streams) for _ in range(self.streams)]
        image, logits = sessions[0].get_inputs()[0], sessions[0].get_outputs()[0]
        self._used = sessions[0].get_providers()
        if len(image.shape) != 4 or len(logits.shape) != 2:
            shapes = f"{image.shape} to {logits.shape}"
            raise BackendError(f"{self.path}: maps {shapes}, expected images (N, 3, H, W) to logits (N, C)")
        self._input, self._output = image.name, logits.name
        batch, _, side, _ = image.shape  # the third is H or W, and they are equal
        dtype = np.dtype(np.uint8 if image.type == "tensor(uint8)" else np.float32)
        return Loaded(sessions, batch if isinstance(batch, int) else None, logits.shape[1], side, dtype)

    def infer(self, session: onnxruntime.InferenceSession, batch: np.ndarray) -> Execution:
        return Execution(session.run([self._output], {self._input: batch})[0])

    def describe(self) -> dict[str, Any]:
        device = self._used[0].removesuffix("ExecutionProvider")
        return {
            "backend": "onnxruntime",
            "version": onnxruntime.__version__,
            "device": device,
            "hardware": machine()["cpu"] if device == "CPU" else device,  # it does not say which GPU
            "providers": self._used,
            "precision": self.options.precision,
            "streams": self.streams,
        }

    def _open(self, streams: int = 1, model: bytes | None = None, trace: str = "") -> onnxruntime.InferenceSession:
        """A session with its share of the threads; with `trace`, the beginning of a file's name, it is profiled."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        threads = self.runtime.get("threads", 0)  # 0: one per physical core
        options.intra_op_num_threads = max((threads or physical_cores()) // streams, 1) if streams > 1 else threads
        if trace:
            options.enable_profiling, options.profile_file_prefix = True, trace
        providers = self._providers()
        try:
            return onnxruntime.InferenceSession(model or self.path, options, providers=providers)
        except self.errors as err:
            what = self.path if model is None else "a matrix product"
            raise BackendError(f"{what}: ONNX Runtime cannot load it ({str(err).splitlines()[0]})") from err

    def _providers(self) -> list[tuple[str, Any]]:
        """The providers of the spec with their options, then the CPU for what they do not take."""
        wanted, available, cpu = self.options.providers, onnxruntime.get_available_providers(), "CPUExecutionProvider"
        for name in wanted.keys() - set(available):  # not in this build of ONNX Runtime
            hint = "pip install onnxruntime-cann" if name == "CANNExecutionProvider" else "install the build that has it"
            raise BackendError(f"providers: this ONNX Runtime has {', '.join(available)}, not {name}: {hint}, or leave it out")
        return [*((name, options) for name, options in wanted.items() if name != cpu), (cpu, wanted.get(cpu, {}))]

    def profile(self, batch: np.ndarray, at_most: int) -> OperatorProfile:
        """Run with ONNX Runtime's profiler on and off in turn, one batch at a time.

        Sessions of their own are used, so that the profiler never slows a timed run.
        """

        def timed(session: onnxruntime.InferenceSession) -> Callable[[], float]:
            return lambda: time_ms(lambda: self.infer(session, batch))

        with tempfile.TemporaryDirectory() as folder:
            session = self._open(trace=str(Path(folder) / "trace"))
            profiled_ms, plain_ms = in_turn(timed(session), lambda: timed(self._open()), at_most)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        # Session start-up and the warm-up run come before the second `model_run`.
        runs = sorted(event["ts"] for event in events if event["name"] == "model_run")
        counted = [event for event in events if event["ts"] >= runs[1]]
        return OperatorProfile(table_from_onnxruntime(counted), len(profiled_ms), profiled_ms, plain_ms)

    def peak_flops_per_s(self) -> float:
        """Best rate of a square matrix product with a constant factor, as in the model, by this runtime and precision."""
        weight = onnx.numpy_helper.from_array(np.ones((PEAK_SIDE, PEAK_SIDE), np.float32), "b")
        values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, weight.dims) for name in "ac"]
        node = onnx.helper.make_node("MatMul", ["a", "b"], ["c"])
        graph = onnx.helper.make_graph([node], "peak", values[:1], values[1:], [weight])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=8)
        session = self._open(model=model.SerializeToString())
        a = np.random.default_rng(0).standard_normal(weight.dims).astype(np.float32)
        return peak_rate(lambda: session.run(None, {"a": a}), PEAK_SIDE)
