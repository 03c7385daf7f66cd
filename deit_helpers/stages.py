"""Which stage makes which file from what: inputs, spec keys, code and packages. `freshness.py` judges by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One step that makes files. `inputs` are names in FILES or in EXTERNAL; `module` is its code."""

    notebook: str
    module: str
    keys: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    packages: tuple[str, ...] = ()
    per_batch: bool = True


# In `packages` of a stage, "backend" stands for the package of the spec's backend.
BACKEND_PACKAGES = {name: name for name in ("onnxruntime", "openvino", "torch")}
_DATA_KEYS = ("images", "labels", "limit", "on_bad_image", "preprocess")
_RUNTIME_KEYS = ("backend", "precision", "device", "preprocess", "execution", "providers", "runtime")
STAGES = {
    "demo_images": Stage(
        "04_preprocess", "demo", (), (), ("demo_images",), ("scikit-learn", "numpy", "pillow"), per_batch=False
    ),
    "demo": Stage(
        "01_export", "model", ("model", "model_args", "preprocess", "limit"), ("source",), ("demo_checkpoint", "demo"),
        ("torch", "timm", "scikit-learn", "numpy", "pillow"), per_batch=False,
    ),
    "export": Stage(
        "01_export", "export", ("model", "model_args", "checkpoint", "opset", *_DATA_KEYS), ("checkpoint", "source"),
        ("onnx", "export"), ("torch", "timm", "onnx", "onnxruntime"), per_batch=False,
    ),
    "optimize": Stage(
        "02_optimize", "surgery", ("edits", "allow_inexact", *_DATA_KEYS), ("onnx", "source"), ("static_onnx", "optimize"),
        ("onnx", "onnx-ir", "onnxsim", "onnxruntime"),
    ),
    "convert": Stage(
        "03_convert", "ascend.atc", ("backend", "precision", "device", "soc_version", "aipp", "atc", "preprocess"),
        ("static_onnx",), ("convert", "om", "atc_log", "aipp"),
    ),
    "preprocess": Stage(
        "04_preprocess", "store", (*_DATA_KEYS, "bins", "stream"), ("source",),
        ("images", "index", "preprocess"), ("numpy", "pillow"), per_batch=False,
    ),
    "reference": Stage(
        "05_infer", "infer", ("preprocess", "stream"), ("onnx", "images"), ("reference",), ("onnxruntime",), per_batch=False
    ),
    "infer": Stage(
        "05_infer", "infer", (*_RUNTIME_KEYS, "bins", "stream"),
        ("device_model", "images"), ("logits", "latency", "infer", "perf_vision", "tool_log"), ("backend",),
    ),
    "score": Stage(
        "06_accuracy", "accuracy", ("expected",), ("logits", "reference", "index", "expected"), ("result", "accuracy")
    ),
    "perf": Stage(
        "07_perf", "perf", (*_RUNTIME_KEYS, "peak_tflops", "time_box_s"),
        ("device_model", "static_onnx", "images", "latency", "infer"),
        ("profile", "perf"), ("backend",),
    ),
}  # fmt: skip
MAKER = {name: stage for stage, row in STAGES.items() for name in row.outputs}
