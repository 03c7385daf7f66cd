"""The emulated pyACL itself: for each rule of the contract a small program that breaks it is caught."""

from __future__ import annotations

import gc
from pathlib import Path
from types import ModuleType

import ascend_host
import numpy as np
import onnx
import pytest
from ascend_host import make_om
from onnx import TensorProto, helper

SIZE = 4 * 2 * 3 * 8 * 8  # bytes of the tiny model's input


@pytest.fixture
def acl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    ascend_host.make_host(tmp_path / "host", monkeypatch, "atc")
    return ascend_host.acl(monkeypatch)


@pytest.fixture
def device(acl: ModuleType) -> ModuleType:
    """Initialised, device 0 set, an explicit context current."""
    assert acl.init() == 0
    assert acl.rt.set_device(0) == 0
    acl.context, code = acl.rt.create_context(0)
    assert code == 0
    return acl


@pytest.fixture
def om(acl: ModuleType, tmp_path: Path) -> str:
    """(2, 3, 8, 8) -> (2, 3): the mean over each channel."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [2, 3, 8, 8])
    logits = helper.make_tensor_value_info("class", TensorProto.FLOAT, [2, 3])
    node = helper.make_node("ReduceMean", ["image"], ["class"], axes=[2, 3], keepdims=0)
    graph = helper.make_graph([node], "g", [image], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    onnx.checker.check_model(model)
    return str(make_om(tmp_path, model))


def dataset(acl: ModuleType, size: int, given: int | None = None) -> tuple[int, int]:
    """A dataset over device memory of `size` bytes that claims `given`; returns it and the address."""
    address, code = acl.rt.malloc(size, 0)
    assert code == 0
    held = acl.mdl.create_dataset()
    acl.mdl.add_dataset_buffer(held, acl.create_data_buffer(address, size if given is None else given))
    return held, address


def test_init_and_finalize_alternate(acl: ModuleType) -> None:
    assert acl.init() == 0
    assert acl.init() == 100002
    assert acl.finalize() == 0
    assert acl.finalize() == 100037
    assert acl.violations == ["init twice", "finalize twice"]
    assert acl.init() == 0  # legal again
    assert acl.init("/nowhere/acl.json") == 100003


def test_calls_need_init_and_a_context(acl: ModuleType) -> None:
    assert acl.rt.set_device(0) == 100001
    acl.init()
    assert acl.rt.malloc(64, 0) == (0, 107002)
    assert acl.rt.set_device(1) == 107001
    assert acl.rt.set_device(0) == 0
    assert acl.rt.malloc(64, 0)[1] == 0


def test_a_copy_stays_within_its_memory_and_each_block_is_freed_once(device: ModuleType) -> None:
    rt = device.rt
    assert rt.malloc(0, 0)[1] == rt.malloc_host(0)[1] == rt.malloc(64, 99)[1] == 100000
    block, _ = rt.malloc(64, 0)
    host, _ = rt.malloc_host(128)
    assert host % 64 == 0
    assert rt.memcpy(block, 64, host, 0, 1) == 0
    assert rt.memcpy(block, 64, host, 65, 1) == 107000
    assert rt.memcpy(block, 64, host, 64, 99) == 100000
    assert device.violations == []
    assert rt.memcpy(block, 128, host, 128, 1) == 107000  # the caller lied about the size of its block
    assert rt.memcpy(block, 64, host, 64, 2) == 0
    assert rt.free(host) == rt.free_host(block) == 107000
    assert rt.free(block) == 0
    assert rt.free(block) == 107000
    assert rt.memcpy(block, 64, host, 64, 1) == 107000
    assert device.violations == [
        "copy beyond the end of device memory",
        "memcpy kind 2 where the addresses say 1",
        "free of what acl.rt.malloc did not give",
        "free_host of what malloc_host did not give",
        "double free of device memory",
        "copy from or to freed memory",
    ]


def test_what_is_not_given_back_is_listed(device: ModuleType, om: str) -> None:
    dataset(device, 64)
    device.rt.malloc_host(64)
    device.rt.create_stream()
    device.mdl.load_from_file(om)
    device.mdl.create_desc()
    assert device.leaks() == [
        "1 × device memory", "1 × host memory", "1 × data buffer", "1 × dataset", "1 × model description", "1 × model",
        "1 × stream", "1 × context", "1 × device", "not finalised",
    ]  # fmt: skip


def test_fresh_device_memory_is_not_zero(device: ModuleType) -> None:
    block, _ = device.rt.malloc(64, 0)
    host, _ = device.rt.malloc_host(64)
    device.rt.memcpy(host, 64, block, 64, 2)
    assert set(device.util.ptr_to_bytes(host, 64)) == {0xCD}


def test_a_device_is_reset_after_its_contexts_and_streams(device: ModuleType) -> None:
    device.rt.create_stream()
    assert device.rt.reset_device(0) == 0
    assert device.violations == [
        "reset_device before its contexts were destroyed",
        "reset_device before its streams were destroyed",
    ]
    assert device.rt.reset_device(0) == 107001


def test_set_and_reset_are_counted(acl: ModuleType) -> None:
    acl.init()
    acl.rt.set_device(0)
    acl.rt.set_device(0)
    default, _ = acl.rt.get_context()
    assert acl.rt.reset_device(0) == 0
    assert acl.rt.malloc(64, 0)[1] == 0  # still set once
    assert acl.rt.destroy_context(default) == 107000
    assert acl.violations == ["destroy_context of a default context"]
    assert acl.rt.reset_device(0) == 0
    assert acl.rt.set_context(default) == 107017
    assert acl.rt.malloc(64, 0)[1] == 107002


def test_streams_belong_to_their_context(device: ModuleType) -> None:
    stream, _ = device.rt.create_stream()
    other, _ = device.rt.create_context(0)
    assert device.rt.synchronize_stream(stream) == device.rt.destroy_stream(stream) == 107003
    device.rt.set_context(device.context)
    assert device.rt.synchronize_stream(stream) == 0
    assert device.rt.destroy_context(device.context) == 0
    assert device.violations == ["destroy_context before its streams were destroyed"]
    assert other


def test_a_file_that_is_no_model_and_an_unload_elsewhere_are_refused(
    device: ModuleType, om: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.om").touch()
    (tmp_path / "bad.om").write_bytes(b"no zip")
    codes = [device.mdl.load_from_file(str(tmp_path / name))[1] for name in ("absent.om", "empty.om", "bad.om")]
    assert codes == [145002, 145002, 145006]
    model, _ = device.mdl.load_from_file(om)
    assert device.mdl.get_desc(device.mdl.create_desc(), model + 1) == device.mdl.unload(model + 1) == 145003
    device.rt.create_context(0)
    assert device.mdl.unload(model) == 107004
    assert device.violations == ["unload in another context than load"]
    monkeypatch.setenv("EMULATED_SOC", "Ascend910B3")
    assert device.mdl.load_from_file(om)[1] == 507008


@pytest.mark.parametrize(("short", "code"), [(0, 0), (64, 0), (65, 145000)])
def test_an_input_buffer_may_be_64_bytes_short(device: ModuleType, om: str, short: int, code: int) -> None:
    model, _ = device.mdl.load_from_file(om)
    source, _ = dataset(device, SIZE, SIZE - short)
    target, _ = dataset(device, 24)
    assert device.mdl.execute(model, source, target) == code


def test_execute_checks_datasets_and_memory(device: ModuleType, om: str) -> None:
    model, _ = device.mdl.load_from_file(om)
    source, _ = dataset(device, SIZE)
    target, address = dataset(device, 24)
    empty = device.mdl.create_dataset()
    assert device.mdl.execute(model, 0, target) == 100000
    assert device.mdl.execute(model, empty, target) == 145000  # one buffer too few
    assert device.mdl.execute(model + 1, source, target) == 145003
    small, _ = dataset(device, 20)
    assert device.mdl.execute(model, source, small) == 145000
    assert device.violations == []
    device.rt.free(address)
    assert device.mdl.execute(model, source, target) == 100000
    host, _ = device.rt.malloc_host(SIZE)
    pageable = device.mdl.create_dataset()
    device.mdl.add_dataset_buffer(pageable, device.create_data_buffer(host, SIZE))
    assert device.mdl.execute(model, pageable, small) == 100000
    assert device.violations == ["execute on memory that is not the device's, or freed"] * 2


def test_a_model_runs_only_in_the_context_that_loaded_it(device: ModuleType, om: str) -> None:
    model, _ = device.mdl.load_from_file(om)
    source, _ = dataset(device, SIZE)
    target, _ = dataset(device, 24)
    device.rt.create_context(0)
    assert device.mdl.execute(model, source, target) == 107004
    assert device.violations == ["execute in another context than load"]


def test_what_queued_work_uses_is_left_alone_until_synchronize_stream(device: ModuleType, om: str) -> None:
    model, _ = device.mdl.load_from_file(om)
    source, address = dataset(device, SIZE)
    target, result = dataset(device, 24)
    streams = [device.rt.create_stream()[0] for _ in range(2)]
    host, _ = device.rt.malloc_host(SIZE)
    assert device.rt.memcpy_async(address, SIZE, host, SIZE, 0, streams[0]) == 207000
    assert device.rt.memcpy_async(address + 1, SIZE - 1, host, 64, 1, streams[0]) == 107008
    assert device.rt.memcpy_async(address, SIZE, host, SIZE, 1, streams[0] + 1) == 107017
    assert device.mdl.execute_async(model, source, target, streams[0]) == 0
    assert device.violations == []
    device.mdl.execute_async(model, source, target, streams[1])
    device.rt.memcpy(host, 24, result, 24, 2)
    device.rt.memcpy(address, SIZE, host, SIZE, 1)
    device.rt.destroy_stream(streams[1])
    device.rt.free(result)
    device.mdl.unload(model)
    assert device.violations == [
        "execute_async of one model on two streams at once",
        "read or overwrite of the result of queued work before synchronize_stream",
        "overwrite of what queued work still reads, before synchronize_stream",
        "destroy_stream before synchronize_stream",
        "free of device memory that queued work still uses",
        "unload of a model that queued work still uses",
    ]


def test_execute_and_execute_async_do_not_mix(device: ModuleType, om: str) -> None:
    model, _ = device.mdl.load_from_file(om)
    source, _ = dataset(device, SIZE)
    target, _ = dataset(device, 24)
    stream, _ = device.rt.create_stream()
    device.mdl.execute(model, source, target)
    device.mdl.execute_async(model, source, target, stream)
    assert device.violations == ["execute and execute_async of one model in one process"]


def test_a_copy_that_is_not_synchronised_reads_poison(device: ModuleType) -> None:
    block, _ = device.rt.malloc(64, 0)
    host, _ = device.rt.malloc_host(64)
    stream, _ = device.rt.create_stream()
    device.rt.memcpy_async(host, 64, block, 64, 2, stream)
    assert np.isnan(np.frombuffer(device.util.ptr_to_bytes(host, 64), np.float32)).all()
    device.rt.synchronize_stream(stream)
    assert set(device.util.ptr_to_bytes(host, 64)) == {0xCD}


def test_a_pointer_to_bytes_that_are_gone_is_noticed(device: ModuleType) -> None:
    block, _ = device.rt.malloc(64, 0)
    kept = bytes(range(64))
    assert device.rt.memcpy(block, 64, device.util.bytes_to_ptr(kept), 64, 1) == 0
    assert device.violations == []
    pointer = device.util.bytes_to_ptr(np.arange(64, dtype=np.uint8).tobytes())
    gc.collect()
    device.rt.memcpy(block, 64, pointer, 64, 1)
    assert device.violations == ["dangling bytes_to_ptr: the bytes object is gone"]


def test_destroying_twice_is_noticed(device: ModuleType) -> None:
    buffer, held, desc = device.create_data_buffer(0, 0), device.mdl.create_dataset(), device.mdl.create_desc()
    for destroy, handle in (
        (device.destroy_data_buffer, buffer), (device.mdl.destroy_dataset, held), (device.mdl.destroy_desc, desc),
    ):  # fmt: skip
        assert destroy(handle) == 0
        assert destroy(handle) == 100000
    assert len(device.violations) == 3


def test_a_second_init_with_another_configuration_is_another_error(acl: ModuleType, tmp_path: Path) -> None:
    config = tmp_path / "acl.json"
    config.write_text("{}")
    assert acl.init(str(config)) == 0
    assert acl.init(str(config)) == 100002
    config.write_text('{"profiler": {"switch": "on"}}')
    assert acl.init(str(config)) == 100000


def test_a_context_of_a_device_that_was_reset_may_not_be_set(device: ModuleType) -> None:
    assert device.rt.reset_device(0) == 0
    assert device.rt.set_context(device.context) == 107017
    assert "set_context with a context that is gone, or of a device that was reset" in device.violations


def test_one_model_in_two_threads_at_once_is_noticed(device: ModuleType, om: str) -> None:
    model, _ = device.mdl.load_from_file(om)
    inputs, outputs = dataset(device, SIZE)[0], dataset(device, 24)[0]
    held = device._state.models[model]
    with held["busy"]:  # as another thread holds it while it executes
        assert device.mdl.execute(model, inputs, outputs) == 0
    assert device.violations == ["execute of one model in two threads at once"]
    assert device.mdl.execute(model, inputs, outputs) == 0
    assert len(device.violations) == 1


def test_buffers_that_the_engine_would_allocate_are_not_emulated_but_refused(device: ModuleType, om: str) -> None:
    model, _ = device.mdl.load_from_file(om)
    empty = device.mdl.create_dataset()
    device.mdl.add_dataset_buffer(empty, device.create_data_buffer(0, 0))
    assert device.mdl.execute(model, dataset(device, SIZE)[0], empty) == 100000
    assert device.violations
