"""The Ascend backend on an emulated device: same logits, no rule of the contract broken, nothing left behind, ever."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import ascend_host
import numpy as np
import onnx
import pytest
from ascend_host import assert_clean, faults, make_om
from graphs import RECIPE, crops, edited, infer, static

from deit_helpers.ascend import aipp
from deit_helpers.ascend.cann import is_emulated
from deit_helpers.ascend.codes import acl_text
from deit_helpers.backends import Options, open_backend
from deit_helpers.data import batches, transforms
from deit_helpers.errors import BackendError

BATCH = 2
MODES = ["sync", "async"]


@pytest.fixture
def acl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    ascend_host.make_host(tmp_path / "host", monkeypatch)
    return ascend_host.acl(monkeypatch)


@pytest.fixture
def om(acl: ModuleType, tmp_path: Path) -> Path:
    return make_om(tmp_path, static(BATCH))


def batch(seed: int = 0) -> np.ndarray:
    return transforms.tensors(crops(static(BATCH), seed), RECIPE)


@pytest.mark.parametrize("mode", MODES)
def test_the_logits_are_those_of_the_graph(acl: ModuleType, om: Path, mode: str) -> None:
    with open_backend("pyacl", om, Options("fp16", execution=mode)) as model:
        assert (model.batch_size, model.classes, model.image_px, model.dtype) == (BATCH, 10, 224, np.float32)
        first, second = model.infer(batch(1)), model.infer(batch(2))
        np.testing.assert_array_equal(first, infer(static(BATCH), batch(1)))
        np.testing.assert_array_equal(second, infer(static(BATCH), batch(2)))
    assert_clean(acl)


def test_predictions_come_in_order_while_the_device_works_on_the_next_batch(acl: ModuleType, om: Path) -> None:
    with open_backend("pyacl", om, Options("fp16", execution="async")) as model:
        given = [batches.Batch(BATCH * seed, batch(seed), np.ones(BATCH, bool)) for seed in range(5)]
        stream = model.predictions(given)
        predictions = [next(stream)]
        with pytest.raises(BackendError, match="infer while a batch is under way"):
            model.infer(batch())
        predictions += stream
        for seed, prediction in enumerate(predictions):
            assert prediction.batch is given[seed]
            np.testing.assert_array_equal(prediction.logits, infer(static(BATCH), batch(seed)))
            assert 0 < prediction.interface_ms <= prediction.latency_ms
        assert len(predictions) == 5
    assert acl._state.calls["mdl.execute_async"] == 5
    assert_clean(acl)


@pytest.mark.parametrize("mode", MODES)
def test_buffers_are_allocated_once(acl: ModuleType, om: Path, mode: str) -> None:
    with open_backend("pyacl", om, Options("fp16", execution=mode)) as model:
        for seed in range(4):
            model.infer(batch(seed))
    sets = {"sync": 1, "async": 2}[mode]
    assert (acl._state.calls["rt.malloc"], acl._state.calls["rt.malloc_host"]) == (2 * sets, 2 * sets)
    assert_clean(acl)


@pytest.mark.parametrize("mode", MODES)
def test_static_aipp_takes_crops_and_normalises_on_the_device(acl: ModuleType, tmp_path: Path, mode: str) -> None:
    (tmp_path / "aipp.cfg").write_text(aipp.config(RECIPE.crop_px, RECIPE.mean, RECIPE.std))
    om = make_om(tmp_path, static(BATCH), insert_op_conf="aipp.cfg")
    pixels = crops(static(BATCH))
    with open_backend("pyacl", om, Options("fp16", execution=mode)) as model:
        assert model.dtype == np.uint8
        logits = model.infer(pixels)
        with pytest.raises(BackendError, match=r"takes uint8: convert it with transforms\.prepare"):
            model.infer(batch())
    expected = infer(static(BATCH), transforms.tensors(pixels, RECIPE))
    np.testing.assert_allclose(logits, expected, atol=0.02)  # the chip's constants are fp16
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert_clean(acl)


def test_a_graph_that_normalises_itself_takes_crops_too(acl: ModuleType, tmp_path: Path) -> None:
    om = make_om(tmp_path, edited(static(BATCH), "uint8_input"))
    pixels = crops(static(BATCH))
    with open_backend("pyacl", om) as model:
        logits = model.infer(pixels)
    np.testing.assert_array_equal(logits, infer(static(BATCH), transforms.tensors(pixels, RECIPE)))
    assert_clean(acl)


def test_fp16_logits_become_float32(acl: ModuleType, tmp_path: Path) -> None:
    om = make_om(tmp_path, static(BATCH), output_type="FP16")
    with open_backend("pyacl", om) as model:
        logits = model.infer(batch())
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, infer(static(BATCH), batch()).astype(np.float16).astype(np.float32))
    assert_clean(acl)


def test_the_caller_owns_the_logits(acl: ModuleType, om: Path) -> None:
    with open_backend("pyacl", om) as model:
        first = model.infer(batch(1))
        kept = first.copy()
        model.infer(batch(2))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("mode", MODES)
def test_another_thread_is_refused_in_one_line(acl: ModuleType, om: Path, mode: str) -> None:
    """A context belongs to a thread, and the contract wants one lock around buffers and execution."""
    failed: list[BaseException] = []

    def use() -> None:
        try:
            model.infer(batch())
        except BackendError as err:
            failed.append(err)

    with open_backend("pyacl", om, Options("fp16", execution=mode)) as model:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        model.infer(batch())
    assert "m.om was opened in another thread: use it in one" in str(failed[0])
    assert_clean(acl)


def test_an_emulated_device_says_so(acl: ModuleType, om: Path) -> None:
    with open_backend("pyacl", om) as model:
        described = model.describe()
    assert described["emulated"] is True
    assert described["device"] == "Ascend310P3 EMULATED, no hardware"
    assert described["version"] == "CANN 8.1.RC1"
    assert is_emulated("pyacl")
    assert not is_emulated("onnxruntime")


def test_wrong_batches_are_refused_before_anything_runs(acl: ModuleType, om: Path) -> None:
    with open_backend("pyacl", om) as model:
        with pytest.raises(BackendError, match=r"batch of 1 images, m\.om was made for 2"):
            model.infer(batch()[:1])
        with pytest.raises(BackendError, match="takes float32"):
            model.infer(batch().astype(np.float64))
    assert "mdl.execute" not in acl._state.calls
    assert_clean(acl)


FAULTS = [
    ("sync", "init", 1, 500000),
    ("sync", "rt.set_device", 1, 507033),
    ("sync", "rt.set_device", 1, 107001),
    ("sync", "rt.create_context", 1, 507899),
    ("sync", "rt.create_stream", 1, 207008),
    ("sync", "mdl.load_from_file", 1, 145006),
    ("sync", "mdl.load_from_file", 1, 245000),
    ("sync", "mdl.get_desc", 1, 145003),
    ("sync", "rt.malloc", 1, 207001),
    ("sync", "rt.malloc", 2, 207018),
    ("sync", "rt.malloc_host", 1, 200000),
    ("sync", "rt.malloc_host", 2, 200000),
    ("sync", "create_data_buffer", 1, 0),
    ("sync", "mdl.create_dataset", 2, 0),
    ("sync", "mdl.create_desc", 1, 0),
    ("sync", "mdl.add_dataset_buffer", 1, 100000),
    ("sync", "rt.memcpy", 1, 107000),
    ("sync", "rt.memcpy", 2, 507899),
    ("sync", "mdl.execute", 1, 507011),
    ("sync", "mdl.execute", 2, 507015),
    ("async", "rt.malloc", 3, 207001),
    ("async", "rt.malloc_host", 4, 200000),
    ("async", "mdl.execute_async", 1, 145000),
    ("async", "mdl.execute_async", 2, 507014),
    ("async", "rt.synchronize_stream", 1, 507046),
    ("async", "rt.memcpy", 3, 107002),
]


@pytest.mark.parametrize(("mode", "name", "number", "code"), FAULTS)
def test_a_fault_is_one_line_and_everything_is_given_back(
    acl: ModuleType, om: Path, monkeypatch: pytest.MonkeyPatch, mode: str, name: str, number: int, code: int
) -> None:
    def use() -> None:
        with open_backend("pyacl", om, Options("fp16", execution=mode)) as model:
            for seed in range(3):
                model.infer(batch(seed))

    faults(monkeypatch, **{name: (number, code)})
    with pytest.raises(BackendError) as caught:
        use()
    said = str(caught.value)
    assert said.startswith(f"acl.{name} on device 0 for m.om: " + (f"error {code}, " if code else "gave no handle"))
    assert not code or acl_text(code) in said
    assert "\n" not in said
    assert_clean(acl)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["rt.malloc", "mdl.load_from_file", "rt.memcpy", "mdl.execute", "rt.synchronize_stream"])
def test_ctrl_c_gives_everything_back(acl: ModuleType, om: Path, monkeypatch: pytest.MonkeyPatch, mode: str, name: str) -> None:
    if name == "rt.synchronize_stream" and mode == "sync":
        pytest.skip("sync does not synchronise")
    faults(monkeypatch, **{f"{name}_async" if name == "mdl.execute" and mode == "async" else name: (1, -2)})
    with pytest.raises(KeyboardInterrupt), open_backend("pyacl", om, Options("fp16", execution=mode)) as model:
        model.infer(batch())
    assert_clean(acl)


@pytest.mark.parametrize(
    "name", ["rt.malloc", "rt.malloc_host", "mdl.load_from_file", "rt.create_context", "create_data_buffer"]
)
def test_ctrl_c_just_after_a_call_loses_no_handle(
    acl: ModuleType, om: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    faults(monkeypatch, **{name: (1, -3)})
    with pytest.raises(KeyboardInterrupt), open_backend("pyacl", om):
        pass
    assert_clean(acl)


def test_a_second_ctrl_c_while_releasing_gives_the_rest_back(
    acl: ModuleType, om: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(monkeypatch, **{"rt.memcpy": (1, -2), "mdl.unload": (1, -3)})
    with pytest.raises(KeyboardInterrupt), open_backend("pyacl", om) as model:
        model.infer(batch())
    assert_clean(acl)


def test_the_interface_is_the_execution_without_the_copies(acl: ModuleType, om: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = acl.rt.memcpy

    def slow(*arguments: object) -> int:
        time.sleep(0.05)
        return original(*arguments)

    monkeypatch.setattr(acl.rt, "memcpy", slow)
    given = [batches.Batch(0, batch(), np.ones(BATCH, bool))] * 3
    for mode in MODES:
        with open_backend("pyacl", om, Options("fp16", execution=mode)) as model:
            model.infer(batch())
            for prediction in model.predictions(given):
                assert prediction.interface_ms < prediction.latency_ms - 40, mode


def test_a_failing_release_does_not_keep_the_rest(acl: ModuleType, om: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults(monkeypatch, **{"mdl.unload": (1, 145003)})
    with pytest.raises(BackendError, match=r"acl\.mdl\.unload on device 0 for m\.om: error 145003"), open_backend("pyacl", om):
        pass
    assert acl.leaks() == ["1 × model"]  # what could not be released, and nothing else


def test_an_om_for_another_chip_or_a_missing_one_says_what_to_do(
    acl: ModuleType, om: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMULATED_SOC", "Ascend910B3")
    with pytest.raises(BackendError, match="error 507008, the OM was probably built for another chip: run 03 again"):
        open_backend("pyacl", om)
    assert_clean(acl)
    acl.reset()
    with pytest.raises(BackendError, match="error 145002, the OM file is missing, empty or unreadable: run 03"):
        open_backend("pyacl", om.with_name("absent.om"))
    assert_clean(acl)


def test_a_device_that_is_not_there_is_named(acl: ModuleType, om: Path) -> None:
    with pytest.raises(BackendError, match=r"acl\.rt\.set_device on device 3 .* set `device` to an index that npu-smi lists"):
        open_backend("pyacl", om, Options("fp16", 3))
    assert_clean(acl)


def test_without_cann_the_hint_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "acl", None)
    monkeypatch.delitem(sys.modules, "deit_helpers.backends.pyacl", raising=False)
    with pytest.raises(BackendError, match=r"backend 'pyacl' cannot be loaded .* source set_env\.sh of the CANN toolkit"):
        open_backend("pyacl", tmp_path / "m.om")


def test_nan_from_the_device_is_refused(acl: ModuleType, tmp_path: Path) -> None:
    graph = onnx.ModelProto()
    graph.CopyFrom(static(BATCH))
    bias = next(tensor for tensor in graph.graph.initializer if tensor.name == "head.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(10, np.nan, np.float32), bias.name))
    om = make_om(tmp_path, graph)
    with pytest.raises(BackendError, match="NaN or infinite logits for image 0"), open_backend("pyacl", om) as model:
        model.infer(batch())
    assert_clean(acl)
