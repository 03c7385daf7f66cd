"""An emulated pyACL that enforces the vendor's contract. Import it as `acl` by putting this folder on `sys.path`.

Signatures, return orders and codes are those of the recorded contract. Host and device memory are apart; async work is
done when its stream is synchronised, and what it will write is spoilt until then. Broken rules that real hardware may let
pass go to `violations`; what is still allocated at the end is in `leaks()`. An OM is a file written by the emulated ATC.

Environment: `EMULATED_SOC` (chip of this host), `EMULATED_DEVICES` (count), `EMULATED_FAULTS` (JSON: name of a call ->
[number of the call, code]), `EMULATED_REPORT` (file that gets violations and leaks at
finalize, or when the process ends without).
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import io
import itertools
import json
import os
import signal
import sys
import threading
import weakref
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

EMULATED = True
FLOAT, FLOAT16, UINT8 = 0, 1, 4
_NUMPY = {FLOAT: np.float32, FLOAT16: np.float16, UINT8: np.uint8}
_TOLERANCE = 64  # bytes an input buffer may be short
violations: list[str] = []


class _State:
    """Everything of the process; `reset()` of this module makes a new one."""

    def __init__(self) -> None:
        self.initialised = 0
        self.finalised = False
        self.config: str | None = None
        self.handles = itertools.count(0x1000, 0x10)
        self.device_address = itertools.count(0x7F00_0000_0000, 1 << 32)
        self.devices: dict[int, int] = {}  # id -> how often set
        self.contexts: dict[int, dict[str, Any]] = {}
        self.streams: dict[int, dict[str, Any]] = {}
        self.device_memory: dict[int, np.ndarray] = {}
        self.host_memory: dict[int, Any] = {}
        self.freed: set[int] = set()
        self.buffers: dict[int, list[int]] = {}
        self.datasets: dict[int, list[int]] = {}
        self.descs: dict[int, int | None] = {}
        self.models: dict[int, dict[str, Any]] = {}
        self.temporary_bytes: dict[int, weakref.ref | int] = {}
        self.modes: dict[int, set[str]] = {}
        self.calls: dict[str, int] = {}
        self.thread = threading.local()


_state = _State()


def reset() -> None:
    """Forget everything, as a new process would."""
    global _state
    _state = _State()
    violations.clear()


def leaks() -> list[str]:
    """What was not released, in words."""
    s = _state
    kinds = {
        "device memory": s.device_memory,
        "host memory": s.host_memory,
        "data buffer": s.buffers,
        "dataset": s.datasets,
        "model description": s.descs,
        "model": s.models,
        "stream": s.streams,
        "context": [handle for handle, context in s.contexts.items() if context["explicit"]],
        "device": s.devices,
    }
    leaked = [f"{len(held)} × {kind}" for kind, held in kinds.items() if held]
    return leaked + (["not finalised"] if s.initialised and not s.finalised else [])


def _broken(rule: str) -> None:
    violations.append(rule)


def _faults() -> dict[str, list[int]]:
    return json.loads(os.environ.get("EMULATED_FAULTS") or "{}")


def _call(name: str, empty: Any = None, context: bool = True, bare: bool = False):
    """Count the calls, inject faults, and check that AscendCL is initialised and the thread has a context.

    Args:
        empty: what a failed call returns besides its code: None for a bare code, else the value before it.
        context: whether the call needs a current context.
        bare: the call gives a handle without a code, 0 when it fails.
    """

    def wrap(function):
        @functools.wraps(function)
        def inner(*arguments: Any) -> Any:
            def failed(code: int) -> Any:
                if bare:
                    return 0
                return code if empty is None else (empty, code)

            _state.calls[name] = _state.calls.get(name, 0) + 1
            number, code = _faults().get(name, (0, 0))
            if number == _state.calls[name]:
                if code == -2:  # the user's Ctrl-C
                    raise KeyboardInterrupt
                if code == -3:  # the same, just after the call
                    result = function(*arguments)
                    signal.raise_signal(signal.SIGINT)
                    return result
                return failed(code)
            if not _state.initialised or _state.finalised:
                _broken(f"{name} outside init and finalize")
                return failed(100001)
            if context and _current() is None:
                return failed(107002)
            return function(*arguments)

        return inner

    return wrap


def _current() -> int | None:
    handle = getattr(_state.thread, "context", None)
    if handle is not None and handle not in _state.contexts:
        _broken("a context of a device that was reset, or a destroyed one, is in use")
        return None
    return handle


def _new(store: dict[int, Any], value: Any) -> int:
    handle = next(_state.handles)
    store[handle] = value
    return handle


# --- process -------------------------------------------------------------------------------------------------------


def init(config: str | None = None) -> int:
    _state.calls["init"] = _state.calls.get("init", 0) + 1
    number, code = _faults().get("init", (0, 0))
    if number == _state.calls["init"]:
        return code
    if config is not None and not Path(config).is_file():
        return 100003
    content = Path(config).read_text() if config else None
    if _state.initialised and not _state.finalised and content != _state.config:
        return 100000
    _state.config = content
    if _state.initialised and not _state.finalised:
        _state.initialised += 1
        _broken("init twice")
        return 100002
    _state.initialised, _state.finalised = 1, False
    return 0


def finalize() -> int:
    _state.calls["finalize"] = _state.calls.get("finalize", 0) + 1
    number, code = _faults().get("finalize", (0, 0))
    if number == _state.calls["finalize"]:
        return code
    if _state.finalised:
        _broken("finalize twice")
        return 100037
    if _state.streams:
        _broken("finalize before the streams were destroyed")
    _state.finalised = True
    _report()
    return 0


def get_soc_name() -> str | None:
    return os.environ.get("EMULATED_SOC", "Ascend310P3")


def get_recent_err_msg() -> str:
    return "EMULATED: no details"


# --- runtime -------------------------------------------------------------------------------------------------------


@_call("rt.get_device_count", 0, context=False)
def _get_device_count() -> tuple[int, int]:
    return int(os.environ.get("EMULATED_DEVICES", "1")), 0


@_call("rt.set_device", context=False)
def _set_device(device: int) -> int:
    if not 0 <= device < int(os.environ.get("EMULATED_DEVICES", "1")):
        return 107001
    _state.devices[device] = _state.devices.get(device, 0) + 1
    default = next((h for h, c in _state.contexts.items() if c["device"] == device and not c["explicit"]), None)
    if default is None:
        default = _new(_state.contexts, {"device": device, "explicit": False})
    _state.thread.context = default
    return 0


@_call("rt.reset_device", context=False)
def _reset_device(device: int) -> int:
    if device not in _state.devices:
        return 107001
    _state.devices[device] -= 1
    if _state.devices[device] == 0:
        del _state.devices[device]
        mine = [handle for handle, context in _state.contexts.items() if context["device"] == device]
        if any(_state.contexts[handle]["explicit"] for handle in mine):
            _broken("reset_device before its contexts were destroyed")
        if any(stream["context"] in mine for stream in _state.streams.values()):
            _broken("reset_device before its streams were destroyed")
        for handle in mine:
            if not _state.contexts[handle]["explicit"]:
                del _state.contexts[handle]
    return 0


@_call("rt.create_context", 0, context=False)
def _create_context(device: int) -> tuple[int, int]:
    if device not in _state.devices:
        return 0, 107001
    _state.thread.context = _new(_state.contexts, {"device": device, "explicit": True})
    return _state.thread.context, 0


@_call("rt.destroy_context", context=False)
def _destroy_context(context: int) -> int:
    if context not in _state.contexts:
        return 107017
    if not _state.contexts[context]["explicit"]:
        _broken("destroy_context of a default context")
        return 107000
    if any(stream["context"] == context for stream in _state.streams.values()):
        _broken("destroy_context before its streams were destroyed")
    del _state.contexts[context]
    if getattr(_state.thread, "context", None) == context:
        _state.thread.context = None
    return 0


@_call("rt.set_context", context=False)
def _set_context(context: int) -> int:
    if context not in _state.contexts or _state.contexts[context]["device"] not in _state.devices:
        _broken("set_context with a context that is gone, or of a device that was reset")
        return 107017
    _state.thread.context = context
    return 0


@_call("rt.get_context", 0)
def _get_context() -> tuple[int, int]:
    return _state.thread.context, 0


@_call("rt.create_stream", 0)
def _create_stream() -> tuple[int, int]:
    return _new(_state.streams, {"context": _current(), "queue": []}), 0


@_call("rt.destroy_stream")
def _destroy_stream(stream: int) -> int:
    if stream not in _state.streams:
        return 107017
    if _state.streams[stream]["context"] != _current():
        return 107003
    if _state.streams[stream]["queue"]:
        _broken("destroy_stream before synchronize_stream")
    del _state.streams[stream]
    return 0


@_call("rt.synchronize_stream")
def _synchronize_stream(stream: int) -> int:
    if stream not in _state.streams:
        return 107017
    if _state.streams[stream]["context"] != _current():
        return 107003
    queue = _state.streams[stream]["queue"]
    while queue:
        code = queue.pop(0)["run"]()
        if code:
            queue.clear()
            return code
    return 0


@_call("rt.malloc", 0)
def _malloc(size: int, policy: int) -> tuple[int, int]:
    if size <= 0:
        return 0, 100000
    if policy not in range(8):
        return 0, 100000
    address = next(_state.device_address)
    _state.device_memory[address] = np.full(size, 0xCD, np.uint8)  # uninitialised
    return address, 0


@_call("rt.free")
def _free(address: int) -> int:
    if address not in _state.device_memory:
        _broken("double free of device memory" if address in _state.freed else "free of what acl.rt.malloc did not give")
        return 107000
    if any(address in task["touches"] for stream in _state.streams.values() for task in stream["queue"]):
        _broken("free of device memory that queued work still uses")
    del _state.device_memory[address]
    _state.freed.add(address)
    return 0


@_call("rt.malloc_host", 0)
def _malloc_host(size: int) -> tuple[int, int]:
    if size <= 0:
        return 0, 100000
    room = (ctypes.c_uint8 * (size + 64))()
    address = -(-ctypes.addressof(room) // 64) * 64
    _state.host_memory[address] = (room, size)
    return address, 0


_graveyard: list[Any] = []  # freed host memory stays mapped, so that a late read finds poison rather than crashes


@_call("rt.free_host")
def _free_host(address: int) -> int:
    if address not in _state.host_memory:
        _broken("double free of host memory" if address in _state.freed else "free_host of what malloc_host did not give")
        return 107000
    if any(address in task["touches"] for stream in _state.streams.values() for task in stream["queue"]):
        _broken("free_host of memory that queued work still uses")
    room, _ = _state.host_memory.pop(address)
    ctypes.memset(room, 0xFF, len(room))
    _graveyard.append(room)
    _state.freed.add(address)
    return 0


def _device_block(address: int) -> tuple[int, np.ndarray] | None:
    for base, block in _state.device_memory.items():
        if base <= address < base + len(block):
            return base, block[address - base :]
    return None


def _host_view(address: int, count: int) -> np.ndarray:
    reference = _state.temporary_bytes.get(address)
    if isinstance(reference, int):
        gc.collect()
        if sys.getrefcount(_bytes_alive[address]) <= _BYTES_REFERENCES:
            _broken("dangling bytes_to_ptr: the bytes object is gone")
    return np.frombuffer((ctypes.c_uint8 * count).from_address(address), np.uint8)


def _copy(dst: int, dest_max: int, src: int, count: int, kind: int) -> tuple[int, Any, set[int]]:
    """Check a copy; returns its code, the function that does it, and the blocks it touches."""
    if kind not in range(8):
        return 100000, None, set()
    if count == 0:
        return 0, (lambda: 0), set()
    if count > dest_max:
        return 107000, None, set()
    sides, touches, on_device = [], set(), []
    for address in (dst, src):
        block = _device_block(address)
        freed = next((base for base in _state.freed if base == address), None)
        if block is None and freed is not None:
            _broken("copy from or to freed memory")
            return 107000, None, set()
        on_device.append(block is not None)
        touches.add(block[0] if block else address)
        sides.append(block[1] if block else None)
        if block is not None and len(block[1]) < count:
            _broken("copy beyond the end of device memory")
            return 107000, None, set()
        if block is None and address in _state.host_memory and _state.host_memory[address][1] < count:
            _broken("copy beyond the end of host memory")
            return 107000, None, set()
    expected = {(True, False): 1, (False, True): 2, (True, True): 3, (False, False): 0}[on_device[0], on_device[1]]
    if kind not in (expected, 4):
        _broken(f"memcpy kind {kind} where the addresses say {expected}")

    def run() -> int:
        target = sides[0][:count] if sides[0] is not None else _host_view(dst, count)
        source = sides[1][:count] if sides[1] is not None else _host_view(src, count)
        target[:] = source
        return 0

    return 0, run, touches


def _pending(blocks: set[int]) -> bool:
    return any(blocks & task["writes"] for stream in _state.streams.values() for task in stream["queue"])


def _in_use(blocks: set[int]) -> bool:
    return any(blocks & task["touches"] for stream in _state.streams.values() for task in stream["queue"])


@_call("rt.memcpy")
def _memcpy(dst: int, dest_max: int, src: int, count: int, kind: int) -> int:
    code, run, touches = _copy(dst, dest_max, src, count, kind)
    if code or run is None:
        return code
    if _pending(touches):
        _broken("read or overwrite of the result of queued work before synchronize_stream")
    target = _device_block(dst)
    if _in_use({target[0] if target else dst}):
        _broken("overwrite of what queued work still reads, before synchronize_stream")
    return run()


@_call("rt.memcpy_async")
def _memcpy_async(dst: int, dest_max: int, src: int, count: int, kind: int, stream: int) -> int:
    if stream not in _state.streams:
        return 107017
    if _state.streams[stream]["context"] != _current():
        return 107003
    if dst % 64 or src % 64:
        return 107008
    if kind == 0:
        return 207000
    code, run, touches = _copy(dst, dest_max, src, count, kind)
    if code or run is None:
        return code
    target = _device_block(dst)
    if target is None:  # spoilt until the stream is synchronised
        _host_view(dst, count)[:] = 0xFF
    _state.streams[stream]["queue"].append({"run": run, "touches": touches, "writes": {target[0] if target else dst}})
    return 0


@_call("rt.get_run_mode", 0, context=False)
def _get_run_mode() -> tuple[int, int]:
    return 1, 0


rt = SimpleNamespace(
    get_device_count=_get_device_count,
    set_device=_set_device,
    reset_device=_reset_device,
    get_run_mode=_get_run_mode,
    create_context=_create_context,
    destroy_context=_destroy_context,
    set_context=_set_context,
    get_context=_get_context,
    create_stream=_create_stream,
    destroy_stream=_destroy_stream,
    synchronize_stream=_synchronize_stream,
    malloc=_malloc,
    free=_free,
    malloc_host=_malloc_host,
    free_host=_free_host,
    memcpy=_memcpy,
    memcpy_async=_memcpy_async,
)


# --- data ----------------------------------------------------------------------------------------------------------


@_call("create_data_buffer", context=False, bare=True)
def create_data_buffer(address: int, size: int) -> int:
    if (address == 0) != (size == 0) or size < 0:
        _broken("create_data_buffer with an address and no size, or the other way round")
    return _new(_state.buffers, [address, size])


@_call("destroy_data_buffer", context=False)
def destroy_data_buffer(buffer: int) -> int:
    if buffer not in _state.buffers:
        _broken("destroy_data_buffer twice, or of something else")
        return 100000
    del _state.buffers[buffer]
    return 0


def get_data_buffer_addr(buffer: int) -> int:
    return _state.buffers[buffer][0]


def get_data_buffer_size(buffer: int) -> int:
    return _state.buffers[buffer][1]


def update_data_buffer(buffer: int, address: int, size: int) -> int:
    if buffer not in _state.buffers:
        return 100000
    _state.buffers[buffer][:] = [address, size]
    return 0


# --- models --------------------------------------------------------------------------------------------------------


def _open_om(content: bytes) -> dict[str, Any]:
    import onnxruntime

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        facts = json.loads(archive.read("facts.json"))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(archive.read("graph.onnx"), options, providers=["CPUExecutionProvider"])
    return {"facts": facts, "session": session, "context": _current(), "busy": threading.Lock()}


@_call("mdl.load_from_file", 0)
def _load_from_file(path: str) -> tuple[int, int]:
    file = Path(path)
    if not file.is_file() or file.stat().st_size == 0:
        return 0, 145002
    try:
        model = _open_om(file.read_bytes())
    except (zipfile.BadZipFile, KeyError, ValueError):
        return 0, 145006
    if model["facts"]["soc_version"] != get_soc_name():
        return 0, 507008
    return _new(_state.models, model), 0


@_call("mdl.unload")
def _unload(model: int) -> int:
    if model not in _state.models:
        return 145003
    if _state.models[model]["context"] != _current():
        _broken("unload in another context than load")
        return 107004
    if any(model in task["touches"] for stream in _state.streams.values() for task in stream["queue"]):
        _broken("unload of a model that queued work still uses")
    del _state.models[model]
    return 0


@_call("mdl.create_desc", bare=True)
def create_desc() -> int:
    return _new(_state.descs, None)


@_call("mdl.get_desc")
def _get_desc(desc: int, model: int) -> int:
    if desc not in _state.descs:
        return 100000
    if model not in _state.models:
        return 145003
    _state.descs[desc] = model
    return 0


@_call("mdl.destroy_desc", context=False)
def destroy_desc(desc: int) -> int:
    if desc not in _state.descs:
        _broken("destroy_desc twice, or of something else")
        return 100000
    del _state.descs[desc]
    return 0


def _tensors(desc: int, side: str) -> list[dict[str, Any]]:
    return _state.models[_state.descs[desc]]["facts"][side]


def _bytes_of(tensor: dict[str, Any]) -> int:
    return int(np.prod(tensor["dims"])) * np.dtype(_NUMPY[tensor["dtype"]]).itemsize


def _dims(desc: int, index: int, side: str) -> tuple[dict[str, Any], int]:
    tensors = _tensors(desc, side)
    if not 0 <= index < len(tensors):
        return {}, 100000
    return {"name": tensors[index]["name"], "dimCount": len(tensors[index]["dims"]), "dims": list(tensors[index]["dims"])}, 0


@_call("mdl.execute")
def _execute(model: int, inputs: int, outputs: int) -> int:
    code, run, _, _ = _prepare(model, inputs, outputs, "execute")
    if code:
        return code
    busy = _state.models[model]["busy"]
    if not busy.acquire(blocking=False):
        _broken("execute of one model in two threads at once")
        return run()
    try:
        return run()
    finally:
        busy.release()


@_call("mdl.execute_async")
def _execute_async(model: int, inputs: int, outputs: int, stream: int) -> int:
    if stream not in _state.streams:
        return 107017
    if _state.streams[stream]["context"] != _current():
        return 107003
    for other, held in _state.streams.items():
        if other != stream and any(model in task["touches"] for task in held["queue"]):
            _broken("execute_async of one model on two streams at once")
    code, run, touches, writes = _prepare(model, inputs, outputs, "execute_async")
    if not code:
        _state.streams[stream]["queue"].append({"run": run, "touches": touches, "writes": writes})
    return code


def _prepare(model: int, inputs: int, outputs: int, how: str) -> tuple[int, Any, set[int], set[int]]:
    if model not in _state.models:
        return 145003, None, set(), set()
    held = _state.models[model]
    if held["context"] != _current():
        _broken("execute in another context than load")
        return 107004, None, set(), set()
    modes = _state.modes.setdefault(model, set())
    modes.add(how)
    if len(modes) > 1:
        _broken("execute and execute_async of one model in one process")
    if inputs not in _state.datasets or outputs not in _state.datasets:
        return 100000, None, set(), set()
    facts = held["facts"]
    for side, dataset in (("inputs", inputs), ("outputs", outputs)):
        if len(_state.datasets[dataset]) != len(facts[side]):
            return 145000, None, set(), set()
    blocks: dict[str, list[np.ndarray]] = {"inputs": [], "outputs": []}
    touches: set[int] = {model}
    writes: set[int] = set()
    for side, dataset in (("inputs", inputs), ("outputs", outputs)):
        for tensor, buffer in zip(facts[side], _state.datasets[dataset], strict=True):
            if buffer not in _state.buffers:
                return 100000, None, set(), set()
            address, size = _state.buffers[buffer]
            block = _device_block(address)
            if block is None:
                _broken("execute on memory that is not the device's, or freed")
                return 100000, None, set(), set()
            required = _bytes_of(tensor)
            if size + (_TOLERANCE if side == "inputs" else 0) < required:
                return 145000, None, set(), set()
            touches.add(block[0])
            if side == "outputs":
                writes.add(block[0])
            blocks[side].append(block[1])
    if how == "execute" and _pending(touches):
        _broken("execute on buffers that queued work still writes")

    def run() -> int:
        feeds = {}
        for tensor, block in zip(facts["inputs"], blocks["inputs"], strict=True):
            required = _bytes_of(tensor)
            data = np.zeros(required, np.uint8)
            data[: min(required, len(block))] = block[:required]
            array = data.view(_NUMPY[tensor["dtype"]]).reshape(tensor["dims"])
            if "aipp" in facts:  # fp16, as on the chip
                aipp = facts["aipp"]
                low, scale = (np.asarray(aipp[key], np.float16).astype(np.float32) for key in ("min_chn", "var_reci_chn"))
                swapped = array[..., ::-1] if aipp["swap"] else array
                array = ((swapped.astype(np.float32) - aipp["mean_chn"] - low) * scale).transpose(0, 3, 1, 2)
            name = held["session"].get_inputs()[0].name
            wanted = np.uint8 if held["session"].get_inputs()[0].type == "tensor(uint8)" else np.float32
            feeds[name] = np.ascontiguousarray(array.astype(wanted))
        results = held["session"].run(None, feeds)
        for tensor, block, result in zip(facts["outputs"], blocks["outputs"], results, strict=True):
            if facts.get("rounds"):  # the chip computed in fp16
                result = result.astype(np.float16)
            raw = np.ascontiguousarray(result.astype(_NUMPY[tensor["dtype"]])).view(np.uint8).reshape(-1)
            block[: len(raw)] = raw
        return 0

    return 0, run, touches, writes


@_call("mdl.create_dataset", context=False, bare=True)
def create_dataset() -> int:
    return _new(_state.datasets, [])


@_call("mdl.add_dataset_buffer", 0, context=False)
def add_dataset_buffer(dataset: int, buffer: int) -> tuple[int, int]:
    if dataset not in _state.datasets or buffer not in _state.buffers:
        return dataset, 100000
    _state.datasets[dataset].append(buffer)
    return dataset, 0


@_call("mdl.destroy_dataset", context=False)
def destroy_dataset(dataset: int) -> int:
    if dataset not in _state.datasets:
        _broken("destroy_dataset twice, or of something else")
        return 100000
    del _state.datasets[dataset]
    return 0


def _input_dims_plain(desc: int, index: int) -> tuple[dict[str, Any], int]:
    return _dims(desc, index, "inputs")


mdl = SimpleNamespace(
    load_from_file=_load_from_file,
    unload=_unload,
    create_desc=create_desc,
    get_desc=_get_desc,
    destroy_desc=destroy_desc,
    get_num_inputs=lambda desc: len(_tensors(desc, "inputs")),
    get_num_outputs=lambda desc: len(_tensors(desc, "outputs")),
    get_input_size_by_index=lambda desc, i: _bytes_of(_tensors(desc, "inputs")[i]),
    get_output_size_by_index=lambda desc, i: _bytes_of(_tensors(desc, "outputs")[i]),
    get_input_dims=_input_dims_plain,
    get_input_dims_v2=_input_dims_plain,
    get_output_dims=lambda desc, i: _dims(desc, i, "outputs"),
    get_input_data_type=lambda desc, i: _tensors(desc, "inputs")[i]["dtype"],
    get_output_data_type=lambda desc, i: _tensors(desc, "outputs")[i]["dtype"],
    get_input_name_by_index=lambda desc, i: _tensors(desc, "inputs")[i]["name"],
    get_output_name_by_index=lambda desc, i: _tensors(desc, "outputs")[i]["name"],
    create_dataset=create_dataset,
    add_dataset_buffer=add_dataset_buffer,
    destroy_dataset=destroy_dataset,
    get_dataset_num_buffers=lambda dataset: len(_state.datasets[dataset]),
    get_dataset_buffer=lambda dataset, i: _state.datasets[dataset][i],
    execute=_execute,
    execute_async=_execute_async,
)


# --- util ----------------------------------------------------------------------------------------------------------

_bytes_alive: dict[int, bytes] = {}
_BYTES_REFERENCES = 2  # ours, and the argument of getrefcount


def _bytes_to_ptr(data: bytes) -> int:
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    _bytes_alive[address] = data  # kept, so that a dangling pointer is noticed rather than followed
    _state.temporary_bytes[address] = 1
    return address


def _ptr_to_bytes(address: int, size: int) -> bytes:
    return bytes(_host_view(address, size))


util = SimpleNamespace(bytes_to_ptr=_bytes_to_ptr, ptr_to_bytes=_ptr_to_bytes)


def _report() -> None:
    path = os.environ.get("EMULATED_REPORT")
    if path and _state.calls and (_state.finalised or _state.initialised):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"violations": violations, "leaks": leaks(), "calls": _state.calls}) + "\n")


atexit.register(lambda: None if _state.finalised else _report())
