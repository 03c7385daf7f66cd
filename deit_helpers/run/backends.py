"""What a backend is: ONE table. Listing it imports no runtime; the README of `backends/` shows a new one."""

from __future__ import annotations

from typing import Literal, NamedTuple


class BackendRow(NamedTuple):
    """One backend of the spec.

    Attributes:
        target: `module:Class` that runs the device model; None for a program of the vendor, which `executors/vendor.py` starts.
        code: files of this package that are its own: what they change, they change for this backend alone.
        install: how to get it.
        package: the package whose version its results depend on; None where that is the toolkit's.
        precisions: what it may compute in.
        device_model: the file that it loads: the static graph, ATC's OM, or the checkpoint itself.
        seen_on: what it was seen working on when it was written, as in the README's table of what was never run on hardware.
    """

    target: str | None
    code: tuple[str, ...]
    install: str
    package: str | None
    precisions: tuple[str, ...]
    device_model: Literal["static_onnx", "om", "checkpoint"]
    seen_on: str

    @property
    def needs_om(self) -> bool:
        """Whether 03 has to make an OM, by whatever means it then runs: it is an Ascend device."""
        return self.device_model == "om"

    @property
    def is_program(self) -> bool:
        """Whether a program of the vendor runs the OM, where pyACL is not to be had."""
        return self.target is None


IMPORTED_SEEN_ON = "formats recorded from public sources"
NEVER_SEEN = "nothing"  # a device of a backend that was seen on CPUs
_CPUS = "CPUs, real photographs, random and demo weights"
_STAND_INS = "stand-ins that take the flags we pass and write the recorded files"
_CANN = "on an Ascend host: source set_env.sh of the CANN toolkit"
_VENDOR = ("executors/vendor.py", "executors/measured.py", "ascend/cann.py", "ascend/dumps.py")
_CHECKPOINT = ("model/checkpoint.py", "model/checkpoint_files.py", "model/names.py")
BACKENDS = {
    "onnxruntime": BackendRow(
        "deit_helpers.backends.ort:OnnxRuntime", ("backends/ort.py",),
        "pip install onnxruntime", "onnxruntime", ("fp32",), "static_onnx", _CPUS,
    ),
    "openvino": BackendRow(
        "deit_helpers.backends.ov:OpenVino", ("backends/ov.py",),
        "pip install 'deit-report[openvino]'", "openvino", ("fp32", "bf16", "fp16"), "static_onnx", _CPUS,
    ),
    "pyacl": BackendRow(
        "deit_helpers.backends.pyacl:PyAcl", ("backends/pyacl.py",), _CANN, None, ("fp32", "fp16", "bf16"), "om",
        "an emulator of the documented contract (tests/emulator)",
    ),
    "torch": BackendRow(
        "deit_helpers.backends.torch_:Torch", ("backends/torch_.py", *_CHECKPOINT),
        "pip install 'deit-report[export]'", "torch", ("fp32", "bf16", "fp16"), "checkpoint", _CPUS,
    ),
    "ais_bench": BackendRow(
        None, (*_VENDOR, "ascend/ais_bench.py"), _CANN, None, ("fp32", "fp16", "bf16"), "om", _STAND_INS,
    ),
    "benchmark": BackendRow(
        None, (*_VENDOR, "ascend/benchmark.py"), _CANN, None, ("fp32", "fp16", "bf16"), "om", _STAND_INS,
    ),
}  # fmt: skip
