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
from collections.abc import Iterator
from typing import Any, ClassVar

import acl
import numpy as np

from ..ascend import cann
from ..ascend.codes import acl_text
from ..errors import BackendError
from .contract import Backend, Execution, Loaded

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


_Buffers = tuple[_Buffer, _Buffer]  # where one batch goes in, and where its logits come out


class PyAcl(Backend):
    """One OM on one device. With `execution: async` it queues: it has two sessions, each with buffers of its own."""

    times_executions: ClassVar[bool] = True

    def load(self) -> Loaded:
        self._releases: list[tuple[str, tuple[Any, ...]]] = []
        self._running: _Buffers | None = None
        self._alone_ms: list[float] = []
        self._thread = threading.get_ident()
        self._asynchronous = self.options.execution == "async"
        with _ctrl_c_waits():
            return self._open()

    def _open(self) -> Loaded:
        device = self.options.device
        self.take("init", "finalize")
        self.take("rt.set_device", "rt.reset_device", device)
        self.take("rt.create_context", "rt.destroy_context", device)
        self._stream = self.take("rt.create_stream", "rt.destroy_stream")
        self._model_id = self.take("mdl.load_from_file", "mdl.unload", str(self.path))
        self._desc = self.take("mdl.create_desc", "mdl.destroy_desc")
        self.call("mdl.get_desc", self._desc, self._model_id)
        counts = acl.mdl.get_num_inputs(self._desc), acl.mdl.get_num_outputs(self._desc)
        if counts != (1, 1):
            raise BackendError(f"{self.path}: {counts[0]} inputs and {counts[1]} outputs, expected one of each: run 03 again")
        # v2: under static AIPP its product is the size of the input in bytes
        images, logits = self._tensor("input", "get_input_dims_v2"), self._tensor("output", "get_output_dims")
        (shape, dtype, _), (logits_shape, *_) = images, logits
        images_last = dtype == np.uint8
        if len(shape) != 4 or shape[3 if images_last else 1] != 3 or len(logits_shape) != 2 or shape[0] != logits_shape[0]:
            raise BackendError(f"{self.path}: maps {shape} to {logits_shape}, expected a batch of images to as many logits")
        sessions = [(_Buffer(self, *images), _Buffer(self, *logits)) for _ in range(2 if self._asynchronous else 1)]
        input_dtype = np.dtype(np.uint8 if images_last else np.float32)  # an fp16 input is filled from float32
        return Loaded(sessions, shape[0], logits_shape[1], shape[2], input_dtype)

    def _tensor(self, side: str, dims: str) -> tuple[tuple[int, ...], np.dtype, int]:
        """Shape, dtype and bytes of the input or the output."""
        mdl, desc = acl.mdl, self._desc
        shape = tuple(self.call(f"mdl.{dims}", desc, 0)["dims"])
        code, size_bytes = (getattr(mdl, f"get_{side}_{what}")(desc, 0) for what in ("data_type", "size_by_index"))
        if code not in _DTYPES:
            raise BackendError(f"{self.path}: a tensor of ACL data type {code}, expected float, float16 or uint8")
        dtype = np.dtype(_DTYPES[code])
        if (bytes_of := int(np.prod(shape)) * dtype.itemsize) != size_bytes:
            difference = f"{size_bytes} bytes for {shape} {dtype}, which is {bytes_of}"
            raise BackendError(f"{self.path}: AscendCL says {difference}: run 03 again without dynamic shapes")
        return shape, dtype, size_bytes

    def call(self, name: str, *arguments: Any) -> Any:
        """Call AscendCL and check its return code, which stands alone or last; some calls give a handle and no code.

        Raises:
            BackendError: the code is not 0, with its meaning and what to do; or the handle is 0.
        """
        if threading.get_ident() != self._thread:
            raise BackendError(f"acl.{name}: {self.path.name} was opened in another thread: use it in one")
        result = operator.attrgetter(name)(acl)(*arguments)
        where = f"acl.{name} on device {self.options.device} for {self.path.name}"
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

    def infer(self, session: _Buffers, batch: np.ndarray) -> Execution:
        if self._running:
            raise BackendError("infer while a batch is under way: take its prediction first")
        source, target = session
        self._copy_in(source, batch)
        start_ns = time.perf_counter_ns()
        if not self._asynchronous:
            self.call("mdl.execute", self._model_id, source.dataset, target.dataset)
            return self._executed(target, (time.perf_counter_ns() - start_ns) / 1e6)
        self._execute_async(session)
        self._wait()  # at once: this is the execution alone
        self._alone_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
        return self._executed(target, self._alone_ms[-1])

    def start(self, session: _Buffers, batch: np.ndarray) -> _Buffers:
        """Copy a batch in while the device works on the one before, wait for that one, and let this one run."""
        self._copy_in(session[0], batch)
        self._wait()
        self._execute_async(session)
        return session

    def finish(self, started: _Buffers) -> Execution:
        """Copy the logits out, while the device works on the next batch if there is one.

        When a batch was done shows only when the next one is started, so the execution alone is that of the warm-up, where
        batches went one at a time.
        """
        if self._running is started:
            self._wait()
        return self._executed(started[1], float(np.median(self._alone_ms)) if self._alone_ms else None)

    def _execute_async(self, session: _Buffers) -> None:
        self._running = session  # before the call: what may have begun is waited for, also after a failure
        self.call("mdl.execute_async", self._model_id, *(buffer.dataset for buffer in session), self._stream)

    def _wait(self) -> None:
        if self._running:
            self.call("rt.synchronize_stream", self._stream)
            self._running = None

    def _copy_in(self, buffer: _Buffer, batch: np.ndarray) -> None:
        buffer.host[:] = batch
        size = buffer.size_bytes
        self.call("rt.memcpy", buffer.device_pointer, size, buffer.host_pointer, size, _TO_DEVICE)

    def _executed(self, buffer: _Buffer, ms: float | None) -> Execution:
        size = buffer.size_bytes
        self.call("rt.memcpy", buffer.host_pointer, size, buffer.device_pointer, size, _TO_HOST)
        return Execution(buffer.host.astype(np.float32), ms)  # a copy: the buffer is used again

    def describe(self) -> dict[str, Any]:
        facts = cann.describe("pyacl", acl.get_soc_name(), self.options.device, self.options.precision)
        return {**facts, "execution": self.options.execution}

    def close(self, failing: bool) -> None:
        """Give everything back, the last first, also after a failure."""
        failure: BaseException | None = None
        try:
            self._wait()
        except BaseException as err:
            failure = err
        self._running = None  # the host memory of its buffers goes now
        while self._releases:
            name, arguments = self._releases.pop()
            try:
                self.call(name, *arguments)
            except BaseException as err:  # also a second Ctrl-C: the rest is released all the same
                failure = failure or err
        if failure and not (failing and isinstance(failure, BackendError)):
            raise failure
