"""Runtimes behind one small contract. Listing them imports none of them.

A new runtime is one file with a `Backend` subclass and one row in `run/backends.py`.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ..data.batches import Batch
from ..data.prefetch import mapped
from ..errors import BackendError
from ..metrics.latency import time_ms
from ..metrics.operators import OperatorProfile
from ..run.backends import BACKENDS

WARMUP_BATCHES, WARMUP_S = 3, 3.0  # warm up with so many batches, or two where they take longer than this
PEAK_SIDE = 1536  # such matrices fit no cache of a core


@runtime_checkable
class Profiler(Protocol):
    """What a backend may also offer: its own profiler, and the rate of a plain matrix product."""

    def profile(self, batch: np.ndarray, at_most: int) -> OperatorProfile: ...

    def peak_flops_per_s(self) -> float: ...


class Answer(NamedTuple):
    """Logits (B, C) of a batch, and how long they took.

    `latency_ms` is from the call until they were here. `interface_ms` is the execution alone where the backend can tell it
    from its copies; else it leaves out what passed before the answer before, so that they add up where batches overlap.
    """

    batch: Batch
    logits: np.ndarray
    interface_ms: float
    latency_ms: float


class Backend(ABC):
    """One loaded model. Subclasses set what it takes and gives, and implement `_infer`.

    Attributes:
        batch_size: None: any.
        dtype: float32 for normalised (B, 3, H, W), uint8 for crops (B, H, W, 3) that the model normalises itself.
        image_px: H and W.
        runtime_keys: what `runtime` of the spec may say, with the type of each value.
        streams: how many batches `stream` works on at once.
        tuning_s: what finding the best settings took when it was loaded.
        free: what a stream runs with, such as a session of its own, of those that do not run; see `one_free`.
        in_flight: how many it has sent at once; they share the device, or wait for each other, and latencies show it.
    """

    runtime_keys: ClassVar[dict[str, type]] = {}
    errors: ClassVar[tuple[type[Exception], ...]] = (RuntimeError,)  # of the runtime; most raise this one
    hint = ""  # what may help
    tuning_s = 0.0
    # ms of the last execution alone, for a backend that can tell it from its copies
    execution_ms: float | None = None
    _answered_ns = 0

    batch_size: int | None
    classes: int
    image_px: int
    dtype: np.dtype

    def __init__(self, model: Path, precision: str = "fp32", device: int = 0, options: dict[str, Any] | None = None):
        self.model, self.precision, self.device, self.options = model, precision, device, options or {}
        self.runtime: dict[str, Any] = self.options.get("runtime") or {}
        name = type(self).__name__
        for key, value in self.runtime.items():
            if type(value) is not self.runtime_keys.get(key):
                known = ", ".join(f"{key}: {kind.__name__}" for key, kind in self.runtime_keys.items()) or "nothing"
                raise BackendError(f"runtime: {name} does not take {key}: {value!r}; it takes {known}")
            if type(value) is int and value < 1:
                raise BackendError(f"runtime: {key}: {value}, expected 1 or more")
        self.streams = self.in_flight = self.runtime.get("streams", 1)
        self.free = SimpleQueue[Any]()

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
        with self.failing("a batch"):
            logits = self._infer(batch)
        return self.check_logits(logits, len(batch))

    def stream(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
        """The answer to every batch, in order. `streams` are worked on at once, each by a thread, and one more waits for them.

        Raises:
            BackendError: as `infer`, naming the batch.
        """
        several = self.streams > 1
        done = mapped(self._timed, batches, self.streams, self.streams + 1) if several else (self._timed(b) for b in batches)
        with contextlib.closing(done):  # also after an error, whose traceback would keep the threads
            for found in done:
                yield self._answer(*found)

    def _timed(self, batch: Batch) -> tuple[Batch, np.ndarray, int, int]:
        """A batch, its logits, and when it was sent and done, in ns."""
        self.check_batch(batch.tensor)
        called = time.perf_counter_ns()
        with self.failing(f"the batch from image {batch.start}"):
            logits = self._infer(batch.tensor)
        return batch, logits, called, time.perf_counter_ns()

    def warm_up(self, batch: Batch) -> list[float]:
        """ms of calls one at a time, until the runtime is warm: the second may still record what the first compiled."""
        found: list[float] = []
        while len(found) < WARMUP_BATCHES and (len(found) < 2 or sum(found) < 1000 * WARMUP_S):
            found.append(time_ms(lambda: self.infer(batch.tensor)))
        if self.in_flight > 1:  # what the others use, too
            for _ in self.stream([batch] * self.in_flight):
                pass
        return found

    @contextlib.contextmanager
    def one_free(self) -> Iterator[Any]:
        """One of what the streams run with, for as long as the block lasts."""
        taken = self.free.get()
        try:
            yield taken
        finally:
            self.free.put(taken)

    @contextlib.contextmanager
    def failing(self, what: str) -> Iterator[None]:
        """Turn an exception of the runtime (`errors`) into a BackendError that names the model and the batch."""
        try:
            yield
        except self.errors as err:
            reason = " ".join(str(err).split())[:200]
            raise BackendError(f"{self.model}: {type(self).__name__} failed on {what} ({reason}){self.hint}") from err

    def _answer(self, batch: Batch, logits: np.ndarray, called_ns: int, returned_ns: int) -> Answer:
        begun_ns, self._answered_ns = max(called_ns, self._answered_ns), max(returned_ns, self._answered_ns)
        logits = self.check_logits(logits, len(batch.tensor), batch.start)
        interface_ms = max(returned_ns - begun_ns, 0) / 1e6 if self.execution_ms is None else self.execution_ms
        return Answer(batch, logits, interface_ms, (returned_ns - called_ns) / 1e6)

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
        if batch.shape[1:] != self.image_shape:
            takes = "x".join(map(str, self.image_shape))
            raise BackendError(f"images of shape {batch.shape[1:]}, {self.model.name} takes {takes}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        side = self.image_px
        return (side, side, 3) if self.dtype == np.uint8 else (3, side, side)

    def noise(self, images: int) -> Batch:
        """A batch for timing. Not of one colour: a chip that is held to a power limit is faster on that."""
        rng, shape = np.random.default_rng(0), (images, *self.image_shape)
        eight_bit = self.dtype == np.uint8
        tensor = rng.integers(0, 256, shape, np.uint8) if eight_bit else rng.standard_normal(shape, np.float32)
        return Batch(0, tensor, np.ones(images, bool))

    def check_logits(self, logits: np.ndarray, images: int, first: int = 0) -> np.ndarray:
        """Return the logits (B, C) of so many images if they can be some.

        Args:
            first: number of the batch's first image in the data set, for errors.

        Raises:
            BackendError: wrong shape, NaN or infinite.
        """
        batch = f"the batch from image {first}"
        if logits.shape != (images, self.classes):
            expected = (images, self.classes)
            raise BackendError(f"{self.model.name} returned logits of shape {logits.shape} for {batch}, expected {expected}")
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(bad):
            raise BackendError(f"{self.model.name} returned NaN or infinite logits for image {first + bad[0]}, in {batch}")
        return logits

    @abstractmethod
    def _infer(self, batch: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Runtime, version, device and precision, for the report; and the hardware: what alike devices have in common."""


def open_backend(
    name: str, model: Path, precision: str = "fp32", device: int = 0, options: dict[str, Any] | None = None
) -> Backend:
    """Load a model into a backend; use it as a context manager.

    Raises:
        BackendError: unknown here, not installed (with the command that installs it), or the model cannot be loaded.
    """
    row = BACKENDS.get(name)
    if row is None or row.target is None:
        known = ", ".join(known for known, row in BACKENDS.items() if row.target)
        raise BackendError(f"backend {name!r}: expected one of {known}")
    module, _, class_name = row.target.partition(":")
    try:
        backend_class = getattr(importlib.import_module(module), class_name)
    except (ImportError, OSError, SyntaxError) as err:  # the last two: a broken installation
        raise BackendError(f"backend {name!r} cannot be loaded ({err}); get it with: {row.install}") from err
    return backend_class(model, precision, device, options)
