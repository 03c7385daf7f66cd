"""An Ascend NPU through pyACL: an OM made by 03, one device, one context, one stream.

Written against the vendor's documentation and tested with an emulator of that contract; never run on a device. Host and
device buffers are allocated once. With `execution: async` there are two sets of them: while the device works on one batch,
the next is copied in and the one before is copied out. Copies stay synchronous: they overlap because execution is not.
"""

from __future__ import annotations

import contextlib
import ctypes
import operator
import signal
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import acl
import numpy as np

from ..ascend import cann
from ..ascend.codes import acl_text
from ..data.batches import Batch
from ..errors import BackendError
from . import Answer, Backend

if not hasattr(acl, "init"):
    raise ImportError(f"{acl.__file__} is another module of that name")


_HUGE_FIRST = 0  # ACL_MEM_MALLOC_HUGE_FIRST
_TO_DEVICE, _TO_HOST = 1, 2  # ACL_MEMCPY_HOST_TO_DEVICE, ACL_MEMCPY_DEVICE_TO_HOST
_GIVE_A_HANDLE = frozenset({"create_data_buffer", "mdl.create_dataset", "mdl.create_desc"})  # and no return code
_DTYPES = {0: np.float32, 1: np.float16, 4: np.uint8}  # ACL_FLOAT, ACL_FLOAT16, ACL_UINT8


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Let Ctrl-C wait till the end: between a handle's making and its being noted it would be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


class _Buffer:
    """One tensor in both memories: a device block, a host block seen as an array, and a dataset that holds the first."""

    def __init__(self, device: PyAcl, shape: tuple[int, ...], dtype: np.dtype, size_bytes: int):
        self.size_bytes = size_bytes
        self.device_pointer = device.take("rt.malloc", "rt.free", size_bytes, _HUGE_FIRST)
        self.host_pointer = device.take("rt.malloc_host", "rt.free_host", size_bytes)
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(self.host_pointer))
        self.host: np.ndarray = raw.view(dtype).reshape(shape)
        data = device.take("create_data_buffer", "destroy_data_buffer", self.device_pointer, size_bytes)
        self.dataset = device.take("mdl.create_dataset", "mdl.destroy_dataset")
        device.call("mdl.add_dataset_buffer", self.dataset, data)


class PyAcl(Backend):
    """One OM on one device. Use it in a `with` block: everything it took is given back at its end."""

    def __init__(self, model: Path, precision: str = "fp16", device: int = 0, options: dict[str, Any] | None = None):
        super().__init__(model, precision, device, options)
        self.in_flight = 2 if self.options.get("execution", "sync") == "async" else 1
        self._releases: list[tuple[str, tuple[Any, ...]]] = []
        self._running: tuple[_Buffer, _Buffer] | None = None
        self._started_ns = 0
        self._alone_ms: list[float] = []
        self._thread = threading.get_ident()
        try:
            with _ctrl_c_waits():
                self._open()
        except BaseException:  # nothing may stay on the device
            self._release(quiet=True)
            raise

    def _open(self) -> None:
        self.take("init", "finalize")
        self.take("rt.set_device", "rt.reset_device", self.device)
        self.take("rt.create_context", "rt.destroy_context", self.device)
        self._stream = self.take("rt.create_stream", "rt.destroy_stream")
        self._model_id = self.take("mdl.load_from_file", "mdl.unload", str(self.model))
        self._desc = self.take("mdl.create_desc", "mdl.destroy_desc")
        self.call("mdl.get_desc", self._desc, self._model_id)
        takes, gives = self._interface()
        self._slots = [(_Buffer(self, *takes), _Buffer(self, *gives)) for _ in range(self.in_flight)]

    def _interface(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Shape, dtype and bytes of input and output, checked; sets what the base class wants to know."""
        mdl, desc = acl.mdl, self._desc
        counts = mdl.get_num_inputs(desc), mdl.get_num_outputs(desc)
        if counts != (1, 1):
            raise BackendError(f"{self.model}: {counts[0]} inputs and {counts[1]} outputs, expected one of each: run 03 again")
        sides = []
        # v2: under static AIPP its product is the size of the input in bytes
        for side, dims in (("input", "get_input_dims_v2"), ("output", "get_output_dims")):
            shape = tuple(self.call(f"mdl.{dims}", desc, 0)["dims"])
            code, size_bytes = (getattr(mdl, f"get_{side}_{what}")(desc, 0) for what in ("data_type", "size_by_index"))
            if code not in _DTYPES:
                raise BackendError(f"{self.model}: a tensor of ACL data type {code}, expected float, float16 or uint8")
            dtype = np.dtype(_DTYPES[code])
            if (bytes_of := int(np.prod(shape)) * dtype.itemsize) != size_bytes:
                found = f"{size_bytes} bytes for {shape} {dtype}, which is {bytes_of}"
                raise BackendError(f"{self.model}: AscendCL says {found}: run 03 again without dynamic shapes")
            sides.append((shape, dtype, size_bytes))
        takes, gives = sides
        images_last = takes[1] == np.uint8
        if len(takes[0]) != 4 or takes[0][3 if images_last else 1] != 3 or len(gives[0]) != 2 or takes[0][0] != gives[0][0]:
            raise BackendError(f"{self.model}: maps {takes[0]} to {gives[0]}, expected a batch of images to as many logits")
        self.batch_size, self.classes, self.image_px = takes[0][0], gives[0][1], takes[0][2]
        self.dtype = np.dtype(np.uint8) if images_last else np.dtype(np.float32)  # an fp16 input is filled from float32
        return takes, gives

    def call(self, name: str, *arguments: Any) -> Any:
        """Call AscendCL and check its return code, which stands alone or last; some calls give a handle and no code.

        Raises:
            BackendError: the code is not 0, with its meaning and what to do; or the handle is 0.
        """
        if threading.get_ident() != self._thread:
            raise BackendError(f"acl.{name}: {self.model.name} was opened in another thread: use it in one")
        result = operator.attrgetter(name)(acl)(*arguments)
        where = f"acl.{name} on device {self.device} for {self.model.name}"
        if name in _GIVE_A_HANDLE:
            if not result:
                raise BackendError(f"{where}: gave no handle, memory may have run out")
            return result
        value, code = result if isinstance(result, tuple) else (None, result)
        if code:
            raise BackendError(f"{where}: {acl_text(code)}")
        return value

    def take(self, name: str, release: str, *arguments: Any) -> Any:
        """Call, and have what it gave, or its arguments, released at the end, the last first."""
        value = self.call(name, *arguments)
        self._releases.append((release, arguments if value is None else (value,)))
        return value

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        if self.in_flight > 1:
            if self._running:
                raise BackendError("infer in the middle of a stream: take its last answer first")
            self._feed(batch)
            self._wait()  # at once: this is the execution alone
            self.execution_ms = (time.perf_counter_ns() - self._started_ns) / 1e6
            self._alone_ms.append(self.execution_ms)
            return self._drain()
        source, target = self._slots[0]
        self._copy_in(source, batch)
        start_ns = time.perf_counter_ns()
        self.call("mdl.execute", self._model_id, source.dataset, target.dataset)
        self.execution_ms = (time.perf_counter_ns() - start_ns) / 1e6
        return self._copy_out(target)

    def stream(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
        """With `execution: async`, the next batch is copied in and the one before copied out while the device works.

        When a batch was done shows only when the next one is started, so the execution alone is that of the warm-up, where
        batches went one at a time.
        """
        if self.in_flight == 1:
            yield from super().stream(batches)
            return
        self.execution_ms = float(np.median(self._alone_ms)) if self._alone_ms else None
        waiting: tuple[Batch, int] | None = None
        for batch in batches:
            self.check_batch(batch.tensor)
            sent_ns = time.perf_counter_ns()
            found = self._feed(batch.tensor)
            if waiting is not None and found is not None:
                yield self._answer(waiting[0], found, waiting[1], time.perf_counter_ns())
            waiting = batch, sent_ns
        if waiting is not None:
            yield self._answer(waiting[0], self._drain(), waiting[1], time.perf_counter_ns())

    def _feed(self, batch: np.ndarray) -> np.ndarray | None:
        source, target = self._slots[0]
        self._copy_in(source, batch)  # while the device works on the other set
        self._wait()
        before, self._running, sets = self._running, (source, target), (source.dataset, target.dataset)
        self._started_ns = time.perf_counter_ns()
        self.call("mdl.execute_async", self._model_id, *sets, self._stream)
        self._slots.reverse()
        return self._copy_out(before[1]) if before else None  # while the device works on this one

    def _drain(self) -> np.ndarray:
        assert self._running is not None
        self._wait()
        running, self._running = self._running, None
        return self._copy_out(running[1])

    def _wait(self) -> None:
        if self._running:
            self.call("rt.synchronize_stream", self._stream)

    def _copy_in(self, buffer: _Buffer, batch: np.ndarray) -> None:
        buffer.host[:] = batch
        size = buffer.size_bytes
        self.call("rt.memcpy", buffer.device_pointer, size, buffer.host_pointer, size, _TO_DEVICE)

    def _copy_out(self, buffer: _Buffer) -> np.ndarray:
        size = buffer.size_bytes
        self.call("rt.memcpy", buffer.host_pointer, size, buffer.device_pointer, size, _TO_HOST)
        return buffer.host.astype(np.float32)  # a copy: the buffer is used again

    def describe(self) -> dict[str, Any]:
        facts = cann.describe("pyacl", acl.get_soc_name(), self.device, self.precision)
        return {**facts, "execution": "async" if self.in_flight > 1 else "sync"}

    def __exit__(self, *exc_info: object) -> None:
        self._release(quiet=exc_info[0] is not None)

    def _release(self, quiet: bool) -> None:
        """Give everything back, the last first, also after a failure.

        Args:
            quiet: an exception is on its way already; it is the one to be seen.
        """
        failed: BaseException | None = None
        try:
            self._wait()
        except BaseException as err:
            failed = err
        self._running, self._slots = None, []  # their host memory goes now
        while self._releases:
            name, arguments = self._releases.pop()
            try:
                self.call(name, *arguments)
            except BaseException as err:  # also a second Ctrl-C: the rest is released all the same
                failed = failed or err
        if failed and not (quiet and isinstance(failed, BackendError)):
            raise failed
