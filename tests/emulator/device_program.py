"""What the emulated programs that run an OM have in common: the OM on the emulated device, from bytes to bytes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import acl
import numpy as np

DTYPES = {0: np.float32, 1: np.float16, 4: np.uint8}


class ProgramError(Exception):
    """What the program prints before it ends with 1."""


def checked(result):
    value, code = result if isinstance(result, tuple) else (None, result)
    if code:
        raise ProgramError(f"[ERROR] EMULATED: ACL error {code}")
    return value


def ended(main, parse) -> int:
    """Run a program as its `__main__` does: a ProgramError is its last line, and 1 its exit code."""
    try:
        main(parse(sys.argv[1:]))
    except ProgramError as err:
        print(err)
        return 1
    return 0


class Device:
    """One OM with one input and one output on one device."""

    def __init__(self, model: str, device_id: int):
        if not Path(model).is_file():
            raise ProgramError(f"[ERROR] model {model} does not exist")
        self.device_id = device_id
        checked(acl.init())
        checked(acl.rt.set_device(device_id))
        self.model_id = checked(acl.mdl.load_from_file(model))
        self.desc = acl.mdl.create_desc()
        checked(acl.mdl.get_desc(self.desc, self.model_id))
        self.sizes = acl.mdl.get_input_size_by_index(self.desc, 0), acl.mdl.get_output_size_by_index(self.desc, 0)
        self.shape = checked(acl.mdl.get_output_dims(self.desc, 0))["dims"]
        self.dtype = DTYPES[acl.mdl.get_output_data_type(self.desc, 0)]
        self.batch_size = self.shape[0]
        self.pointers = [checked(acl.rt.malloc(size, 0)) for size in self.sizes]
        self.buffers = [acl.create_data_buffer(*pair) for pair in zip(self.pointers, self.sizes, strict=True)]
        self.sets = [acl.mdl.create_dataset() for _ in self.buffers]
        for each, buffer in zip(self.sets, self.buffers, strict=True):
            checked(acl.mdl.add_dataset_buffer(each, buffer))

    def __call__(self, content: bytes) -> tuple[np.ndarray, float]:
        """The output of one batch, and the ms of its execution."""
        size = self.sizes[0]
        checked(acl.rt.memcpy(self.pointers[0], size, acl.util.bytes_to_ptr(content), size, 1))
        start = time.perf_counter()
        checked(acl.mdl.execute(self.model_id, *self.sets))
        ms = 1000 * (time.perf_counter() - start)
        size = self.sizes[1]
        host = checked(acl.rt.malloc_host(size))
        checked(acl.rt.memcpy(host, size, self.pointers[1], size, 2))
        output = np.frombuffer(acl.util.ptr_to_bytes(host, size), self.dtype).reshape(self.shape)
        checked(acl.rt.free_host(host))
        return output, ms

    def close(self) -> None:
        for each, buffer, pointer in zip(self.sets, self.buffers, self.pointers, strict=True):
            checked(acl.destroy_data_buffer(buffer))
            checked(acl.mdl.destroy_dataset(each))
            checked(acl.rt.free(pointer))
        checked(acl.mdl.destroy_desc(self.desc))
        checked(acl.mdl.unload(self.model_id))
        checked(acl.rt.reset_device(self.device_id))
        checked(acl.finalize())
