"""ONNX Runtime on the CPU: the embedded default and the fp32 reference."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from ..errors import BackendError
from ..metrics.latency import peak_rate, rounds, time_ms
from ..metrics.operators import OperatorProfile, layer_norm_nodes, table_from_onnxruntime
from ..run.host import machine, physical_cores
from . import PEAK_SIDE, Backend

# onnxruntime's own exceptions share no base class but Exception.
_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)
_ERRORS_ONLY = 3  # onnxruntime's log severity; warnings are about its own optimiser


class OnnxRuntime(Backend):
    """A session of ONNX Runtime; `providers` of the spec come before the CPU."""

    runtime_keys: ClassVar[dict[str, type]] = {"threads": int, "streams": int}
    errors = _ERRORS

    def __init__(self, model: Path, precision: str = "fp32", device: int = 0, options: dict[str, Any] | None = None):
        super().__init__(model, precision, device, options)
        if precision != "fp32":
            raise BackendError(f"onnxruntime runs this graph in fp32 only, the spec asks for {precision}: set precision: fp32")
        self._providers = self._wanted()
        # one for each: the callers of a session share its threads
        sessions = [self._open(onnxruntime.SessionOptions(), streams=self.streams) for _ in range(self.streams)]
        inputs, outputs = sessions[0].get_inputs(), sessions[0].get_outputs()
        self._used = sessions[0].get_providers()
        for session in sessions:
            self.free.put(session)
        self._input, self._output = inputs[0].name, outputs[0].name
        if len(inputs[0].shape) != 4 or len(outputs[0].shape) != 2:
            shapes = f"{inputs[0].shape} to {outputs[0].shape}"
            raise BackendError(f"{model}: maps {shapes}, expected images (N, 3, H, W) to logits (N, C)")
        self.dtype = np.dtype(np.uint8 if inputs[0].type == "tensor(uint8)" else np.float32)
        batch, _, self.image_px, _ = inputs[0].shape  # the third is H or W, and they are equal
        self.batch_size = batch if isinstance(batch, int) else None
        self.classes = outputs[0].shape[1]

    def _wanted(self) -> list[tuple[str, dict[str, Any]]]:
        """The providers of the spec with their options, then the CPU for what they do not take.

        Raises:
            BackendError: one is not in this build of ONNX Runtime.
        """
        wanted = self.options.get("providers") or {}
        there = onnxruntime.get_available_providers()
        for name in wanted:
            if name not in there:
                hint = "pip install onnxruntime-cann" if name == "CANNExecutionProvider" else "install the build that has it"
                raise BackendError(f"providers: this ONNX Runtime has {', '.join(there)}, not {name}: {hint}, or leave it out")
        cpu = "CPUExecutionProvider"
        return [*((name, options) for name, options in wanted.items() if name != cpu), (cpu, wanted.get(cpu, {}))]

    def _open(
        self, options: onnxruntime.SessionOptions, model: Path | bytes | None = None, streams: int = 1
    ) -> onnxruntime.InferenceSession:
        options.log_severity_level = _ERRORS_ONLY
        threads = self.runtime.get("threads", 0)  # 0: one per physical core
        options.intra_op_num_threads = max((threads or physical_cores()) // streams, 1) if streams > 1 else threads
        try:
            return onnxruntime.InferenceSession(model or self.model, options, providers=self._providers)
        except _ERRORS as err:
            what = self.model if model is None else "a matrix product"
            raise BackendError(f"{what}: ONNX Runtime cannot load it ({str(err).splitlines()[0]})") from err

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        with self.one_free() as session:
            return session.run([self._output], {self._input: batch})[0]

    def describe(self) -> dict[str, Any]:
        device = self._used[0].removesuffix("ExecutionProvider")
        return {
            "backend": "onnxruntime",
            "version": onnxruntime.__version__,
            "device": device,
            "hardware": machine()["cpu"] if device == "CPU" else device,  # it does not say which GPU
            "providers": self._used,
            "precision": self.precision,
            "streams": self.streams,
        }

    def profile(self, batch: np.ndarray, at_most: int) -> OperatorProfile:
        """Run with ONNX Runtime's profiler on and off in turn, one batch at a time, after a warm-up.

        Sessions of their own are used, so that the profiler never slows a timed run.
        """
        plain_ms, profiled_ms = [], []
        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "trace")
            plain, profiled = self._open(onnxruntime.SessionOptions()), self._open(options)
            for session in (plain, profiled):
                session.run([self._output], {self._input: batch})
            for _ in rounds(at_most):
                plain_ms.append(time_ms(lambda: plain.run([self._output], {self._input: batch})))
                profiled_ms.append(time_ms(lambda: profiled.run([self._output], {self._input: batch})))
            events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
        # Session start-up and the warm-up run come before the second `model_run`.
        runs = sorted(event["ts"] for event in events if event["name"] == "model_run")
        counted = [event for event in events if event["ts"] >= runs[1]]
        table = table_from_onnxruntime(counted, layer_norm_nodes(onnx.load(self.model)))
        return OperatorProfile(table, len(profiled_ms), profiled_ms, plain_ms)

    def peak_flops_per_s(self) -> float:
        """Best rate of a square matrix product with a constant factor, as in the model, by this runtime and precision."""
        weight = onnx.numpy_helper.from_array(np.ones((PEAK_SIDE, PEAK_SIDE), np.float32), "b")
        values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, weight.dims) for name in "ac"]
        node = onnx.helper.make_node("MatMul", ["a", "b"], ["c"])
        graph = onnx.helper.make_graph([node], "peak", values[:1], values[1:], [weight])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=8)
        session = self._open(onnxruntime.SessionOptions(), model.SerializeToString())
        a = np.random.default_rng(0).standard_normal(weight.dims).astype(np.float32)
        return peak_rate(lambda: session.run(None, {"a": a}), PEAK_SIDE)
