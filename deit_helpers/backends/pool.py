"""A loaded backend and its sessions: batches checked, several in flight, in order and timed; failures become one line."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from ..data.batches import Batch
from ..data.prefetch import mapped, pipelined
from ..errors import BackendError
from ..metrics.latency import time_ms
from ..run.backends import BACKENDS
from .contract import Backend, Execution, Options, Queued

WARMUP_BATCHES, WARMUP_S = 3, 1.0  # warm up with so many batches, or two where they take longer than this


class Prediction(NamedTuple):
    """Logits (B, C) of a batch, and how long they took.

    `latency_ms` is from the call until they were there. `interface_ms` is the execution alone where the backend can tell it
    from its copies; else it leaves out what passed before the prediction before, so that they add up where batches overlap.
    """

    batch: Batch
    logits: np.ndarray
    interface_ms: float
    latency_ms: float


_Call = tuple[Batch, Execution, int, int]  # a batch that was run, when it was sent, and when it was back, in ns


class Pool:
    """A model that is ready; use it as a context manager.

    Attributes:
        backend: the runtime itself, which may be a `Profiler`.
        batch_size, classes, image_px, dtype: as in `Loaded`.
        in_flight: how many batches are sent at once; they share the device, or wait for each other, and latencies show it.
        workers: how many of them are computed side by side, each by a thread; 1 where a device queues them.
        tuning_s: what finding the best number of sessions took.
        warmup_ms: what `warm_up` returned; empty before.
    """

    def __init__(self, backend: Backend):
        self.backend, self.path, self.tuning_s, self.warmup_ms = backend, backend.path, 0.0, list[float]()
        try:
            with self.failing("loading"):
                loaded = backend.load()
        except BaseException:  # nothing may stay on a device
            backend.close(failing=True)
            raise
        self.sessions, self.batch_size, self.classes, self.image_px, self.dtype = loaded
        side = self.image_px
        self._image_shape = (side, side, 3) if self.dtype == np.uint8 else (3, side, side)
        self._idle = SimpleQueue[Any]()
        for session in self.sessions:
            self._idle.put(session)
        self.in_flight = len(self.sessions)
        self.workers = 1 if isinstance(backend, Queued) else self.in_flight

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sessions, self._idle = (), SimpleQueue()  # their memory may be the device's
        self.backend.close(failing=exc_info[0] is not None)

    def describe(self) -> dict[str, Any]:
        """Runtime, version, device and precision, as the backend says."""
        return self.backend.describe()

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """Logits (B, C) float32, owned by the caller, of a batch that `transforms.prepare` made for `dtype`.

        Raises:
            BackendError: wrong batch or image size, or logits of the wrong shape, infinite or NaN.
        """
        self.check_batch(batch)
        with self.failing("a batch"):
            logits = self._execute(batch).logits
        return self.check_logits(logits, len(batch))

    def predictions(self, batches: Iterable[Batch], singly: bool = False) -> Generator[Prediction, None, None]:
        """The prediction of every batch, in order; `in_flight` batches are worked on at once, unless `singly`.

        An error of the batches themselves comes after the predictions of those before it.

        Raises:
            BackendError: as `infer`, naming the batch.
        """
        returned_ns = 0
        # closed also after an error, whose traceback would keep the threads
        with contextlib.closing(self._calls(batches, singly)) as calls:
            for batch, (logits, interface_ms, latency_ms), call_sent_ns, call_returned_ns in calls:
                self.check_logits(logits, len(batch.tensor), batch.start)
                if interface_ms is None:
                    interface_ms = max(call_returned_ns - max(call_sent_ns, returned_ns), 0) / 1e6
                if latency_ms is None:
                    latency_ms = (call_returned_ns - call_sent_ns) / 1e6
                returned_ns = max(call_returned_ns, returned_ns)
                yield Prediction(batch, logits, interface_ms, latency_ms)

    def warm_up(self, batch: Batch) -> list[float]:
        """ms of calls one at a time, once until the runtime is warm: the second may still record what the first compiled."""
        if calls_ms := self.warmup_ms:
            return calls_ms
        while len(calls_ms) < WARMUP_BATCHES and (len(calls_ms) < 2 or sum(calls_ms) < 1000 * WARMUP_S):
            calls_ms.append(time_ms(lambda: self.infer(batch.tensor)))
        if self.in_flight > 1:  # what the other sessions use, too
            for _ in self.predictions([batch] * self.in_flight):
                pass
        return calls_ms

    def noise(self, images: int) -> Batch:
        """A batch for timing. Not of one colour: a chip that is held to a power limit is faster on that."""
        rng, shape = np.random.default_rng(0), (images, *self._image_shape)
        tensor = rng.integers(0, 256, shape, np.uint8) if self.dtype == np.uint8 else rng.standard_normal(shape, np.float32)
        return Batch(0, tensor, np.ones(images, bool))

    def check_batch(self, batch: np.ndarray) -> None:
        """Raise a BackendError unless the model takes so many images of this type and shape."""
        if self.batch_size is not None and len(batch) != self.batch_size:
            made_for = f"batch of {len(batch)} images, {self.path.name} was made for {self.batch_size}"
            raise BackendError(f"{made_for}: pad it with batches.pad")
        if batch.dtype != self.dtype:
            raise BackendError(
                f"batch of {batch.dtype}, {self.path.name} takes {self.dtype}: convert it with transforms.prepare"
            )
        if batch.shape[1:] != self._image_shape:
            expected = "x".join(map(str, self._image_shape))
            raise BackendError(f"images of shape {batch.shape[1:]}, {self.path.name} takes {expected}")

    def check_logits(self, logits: np.ndarray, images: int, first: int = 0) -> np.ndarray:
        """Return logits (B, C) of the images from number `first` on, or raise a BackendError: wrong shape, NaN or infinite."""
        batch, expected = f"the batch from image {first}", (images, self.classes)
        if logits.shape != expected:
            raise BackendError(f"{self.path.name} returned logits of shape {logits.shape} for {batch}, expected {expected}")
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(bad):
            raise BackendError(f"{self.path.name} returned NaN or infinite logits for image {first + bad[0]}, in {batch}")
        return logits

    @contextlib.contextmanager
    def failing(self, what: str) -> Iterator[None]:
        """Turn an exception of the runtime into a BackendError that names the model and the batch."""
        backend = self.backend
        try:
            yield
        except backend.errors as err:
            reason = " ".join(str(err).split())[:200]
            raise BackendError(f"{self.path}: {type(backend).__name__} failed on {what} ({reason}){backend.hint}") from err

    def _execute(self, batch: np.ndarray) -> Execution:
        session = self._idle.get()
        try:
            return self.backend.infer(session, batch)
        finally:
            self._idle.put(session)

    def _calls(self, batches: Iterable[Batch], singly: bool) -> Generator[_Call, None, None]:
        if singly or self.in_flight == 1:
            return (self._call(batch) for batch in batches)
        if self.workers == 1:
            return self._queued(batches)
        return mapped(self._call, batches, self.workers, self.workers + 1)  # one more batch waits for them

    def _call(self, batch: Batch) -> _Call:
        self.check_batch(batch.tensor)
        sent_ns = time.perf_counter_ns()
        with self.failing(f"the batch from image {batch.start}"):
            return batch, self._execute(batch.tensor), sent_ns, time.perf_counter_ns()

    def _queued(self, batches: Iterable[Batch]) -> Generator[_Call, None, None]:
        """A batch is sent while the device works on the one before."""
        backend, sessions = self.backend, itertools.cycle(self.sessions)
        assert isinstance(backend, Queued)

        def send(batch: Batch) -> tuple[Batch, Any, int]:
            self.check_batch(batch.tensor)
            sent_ns = time.perf_counter_ns()
            with self.failing(f"the batch from image {batch.start}"):
                return batch, backend.start(next(sessions), batch.tensor), sent_ns

        def finish(sent: tuple[Batch, Any, int]) -> _Call:
            batch, started, sent_ns = sent
            with self.failing(f"the batch from image {batch.start}"):
                return batch, backend.finish(started), sent_ns, time.perf_counter_ns()

        yield from pipelined(send, finish, batches, self.in_flight)


def open_backend(name: str, path: Path, options: Options | None = None) -> Pool:
    """Load a model into a backend; use it as a context manager.

    Raises:
        BackendError: unknown here, not installed (with the command that installs it), or the model cannot be loaded.
    """
    row = BACKENDS.get(name)
    if row is None or row.target is None:
        names = ", ".join(other for other, row in BACKENDS.items() if row.target)
        raise BackendError(f"backend {name!r}: expected one of {names}")
    module, _, class_name = row.target.partition(":")
    try:
        backend_class = getattr(importlib.import_module(module), class_name)
    except (ImportError, OSError, SyntaxError) as err:  # the last two: a broken installation
        raise BackendError(f"backend {name!r} cannot be loaded ({err}); get it with: {row.install}") from err
    return Pool(backend_class(path, options or Options()))
