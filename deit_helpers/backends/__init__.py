"""Runtimes behind one small contract. Listing them imports none of them.

A new runtime is one file with a `Backend` subclass and one line in REGISTRY.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from ..errors import BackendError

if TYPE_CHECKING:
    from ..profile import OperatorProfile

# name -> (class, how to get it)
REGISTRY = {
    "onnxruntime": ("deit_helpers.backends.ort:OnnxRuntime", "pip install onnxruntime"),
    "pyacl": ("deit_helpers.backends.pyacl:PyAcl", "on an Ascend host: source set_env.sh of the CANN toolkit"),
}


@runtime_checkable
class Profiler(Protocol):
    """What a backend may also offer: its own profiler, and the rate of a plain matrix product."""

    def profile(self, batch: np.ndarray, iterations: int) -> OperatorProfile: ...

    def peak_flops_per_s(self) -> float: ...


class Backend(ABC):
    """One loaded model. Subclasses set what it takes and gives, and implement `_infer`.

    Attributes:
        batch_size: None: any.
        dtype: float32 for normalised (B, 3, H, W), uint8 for crops (B, H, W, 3) that the model normalises itself.
        image_px: H and W.
    """

    batch_size: int | None
    classes: int
    image_px: int
    dtype: np.dtype

    def __init__(self, model: Path, precision: str = "fp32", device: int = 0, options: dict[str, Any] | None = None):
        self.model, self.precision, self.device, self.options = model, precision, device, options or {}

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """Run one batch.

        Args:
            batch: as `images.prepare` makes it for `dtype`, C-contiguous.

        Returns:
            Logits (B, C) float32, owned by the caller.

        Raises:
            BackendError: wrong batch or image size, or logits of the wrong shape, infinite or NaN.
        """
        self.check_batch(batch)
        return self.check_logits(self._infer(batch), len(batch))

    def check_batch(self, batch: np.ndarray) -> None:
        """Check a batch before it is run.

        Raises:
            BackendError: another number of images, dtype or shape than the model takes.
        """
        if self.batch_size is not None and len(batch) != self.batch_size:
            made_for = f"batch of {len(batch)} images, {self.model.name} was made for {self.batch_size}"
            raise BackendError(f"{made_for}: pad it with images.pad")
        if batch.dtype != self.dtype:
            raise BackendError(f"batch of {batch.dtype}, {self.model.name} takes {self.dtype}: convert it with images.prepare")
        takes = (self.image_px, self.image_px, 3) if self.dtype == np.uint8 else (3, self.image_px, self.image_px)
        if batch.shape[1:] != takes:
            raise BackendError(f"images of shape {batch.shape[1:]}, {self.model.name} takes {'x'.join(map(str, takes))}")

    def check_logits(self, logits: np.ndarray, images: int) -> np.ndarray:
        """Return the logits (B, C) of so many images if they can be some.

        Raises:
            BackendError: wrong shape, NaN or infinite.
        """
        if logits.shape != (images, self.classes):
            raise BackendError(f"{self.model.name} returned logits of shape {logits.shape}, expected {(images, self.classes)}")
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(bad):
            raise BackendError(f"{self.model.name} returned NaN or infinite logits for row {bad[0]} of the batch")
        return logits

    @abstractmethod
    def _infer(self, batch: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Runtime, version, device and precision, for the report."""


@runtime_checkable
class Pipelined(Protocol):
    """What a backend may also offer: to work on one batch while the next is prepared."""

    asynchronous: bool

    def feed(self, batch: np.ndarray) -> np.ndarray | None: ...

    def drain(self) -> np.ndarray: ...


def open_backend(
    name: str, model: Path, precision: str = "fp32", device: int = 0, options: dict[str, Any] | None = None
) -> Backend:
    """Load a model into a backend; use it as a context manager.

    Raises:
        BackendError: unknown here, not installed (with the command that installs it), or the model cannot be loaded.
    """
    if name not in REGISTRY:
        raise BackendError(f"backend {name!r} is not part of this version; it has: {', '.join(REGISTRY)}")
    target, hint = REGISTRY[name]
    module, _, class_name = target.partition(":")
    try:
        backend_class = getattr(importlib.import_module(module), class_name)
    except ImportError as err:
        raise BackendError(f"backend {name!r} cannot be loaded ({err}); get it with: {hint}") from err
    return backend_class(model, precision, device, options)
