"""OpenVINO and PyTorch: the logits of ONNX Runtime, in order when batches overlap, refusals that name what there is."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openvino
import pytest
import torch
from runs import SIZES, copy_of

from deit_helpers.backends import Loaded, Options, Pool, Profiler, bench, open_backend
from deit_helpers.backends.torch_ import Torch
from deit_helpers.data import batches
from deit_helpers.data.batches import Batch
from deit_helpers.errors import BackendError
from deit_helpers.metrics import operators
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.stages import accuracy, infer, perf

CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "keys",
    [
        {"backend": "openvino", "runtime": {"streams": 1}},
        {"backend": "openvino", "runtime": {"streams": 2}},
        {"backend": "openvino", "runtime": {}},
        {"backend": "onnxruntime", "runtime": {"streams": 2}},
        {"backend": "torch", "runtime": {"device": "cpu"}},
    ],
    ids=["openvino-1-stream", "openvino-2-streams", "openvino-measured", "onnxruntime-2-streams", "torch"],
)
def test_the_logits_are_those_of_onnx_runtime(finished: Run, tmp_path: Path, keys: dict[str, object], size: int) -> None:
    copy = copy_of(finished, tmp_path, **keys).at(size)
    facts = infer.infer(copy)
    logits, expected = np.load(copy.file("logits")), np.load(finished.at(size).file("logits"))
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert np.array_equal(logits.argmax(axis=1), expected.argmax(axis=1))
    assert facts["runtime"]["backend"] == keys["backend"]
    assert facts["images_per_s_without_waiting"] >= facts["e2e_images_per_s"]
    assert facts["e2e_efficiency"] > 0


@pytest.mark.skipif("BF16" not in CAPABILITIES, reason="this CPU does not compute in bf16")
@pytest.mark.parametrize("keys", [{"backend": "openvino", "runtime": {"streams": 1}}, {"backend": "torch", "runtime": {}}])
def test_bf16_differs_a_little_and_says_what_it_is(finished: Run, tmp_path: Path, keys: dict[str, object]) -> None:
    copy = copy_of(finished, tmp_path, precision="bf16", **keys)
    facts = infer.infer(copy)
    logits, expected = np.load(copy.file("logits")), np.load(finished.file("logits"))
    assert 0 < np.abs(logits - expected).max() < 0.1
    assert facts["runtime"]["precision"] == "bf16"
    scored = accuracy.score(copy)
    assert scored["reference"]["agreement_percent"] > 80


def test_a_precision_the_processor_lacks_names_those_it_has(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_fp32(self: object, device: str, name: str) -> list[str]:
        return ["FP32", "INT8"]

    monkeypatch.setattr(openvino.Core, "get_property", only_fp32)
    with pytest.raises(BackendError, match="does not compute in bf16 with OpenVINO; it has fp32"):
        open_backend("openvino", finished.file("static_onnx"), Options("bf16"))


def test_a_model_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(BackendError, match=r"m\.onnx: OpenVINO cannot read it"):
        open_backend("openvino", path)


@pytest.mark.parametrize(
    ("backend", "runtime", "message"),
    [
        ("onnxruntime", {"speed": 2}, r"OnnxRuntime does not take speed: 2; it takes threads: int, streams: int"),
        ("openvino", {"threads": "2"}, r"OpenVino does not take threads: '2'; it takes threads: int, streams: int"),
        ("torch", {"device": "npu"}, r"device: 'npu', expected cpu or cuda"),
        ("torch", {"threads": 0}, r"threads: 0, expected 1 to 1024"),
        ("openvino", {"streams": -1}, r"streams: -1, expected 1 to 1024"),
        ("onnxruntime", {"threads": 100_000}, r"threads: 100000, expected 1 to 1024"),
    ],
)
def test_what_runtime_may_say_is_checked(
    finished: Run, tmp_path: Path, backend: str, runtime: dict[str, object], message: str
) -> None:
    with pytest.raises(BackendError, match=message):
        bench.open_model(copy_of(finished, tmp_path, backend=backend, runtime=runtime))


def test_a_compiled_graph_is_cached_in_the_run_folder(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path, backend="openvino", runtime={"streams": 1})
    with bench.open_model(copy):
        pass
    assert list((copy.folder / "cache").iterdir())


def test_waiting_for_images_is_not_time_of_the_model(finished: Run, tmp_path: Path) -> None:
    """A prediction is taken when the next batch comes: when it was done counts, not when it was taken."""
    with bench.open_model(copy_of(finished, tmp_path, backend="openvino", runtime={"streams": 2})) as model:
        batch = model.noise(finished.size)
        quick = [prediction.latency_ms for prediction in model.predictions([batch] * 9)]

        def slowly() -> Iterator[Batch]:
            for _ in range(6):
                time.sleep(0.25)
                yield batch

        predictions = list(model.predictions(slowly()))
    assert max(prediction.interface_ms for prediction in predictions) < max(100, 2 * max(quick))
    assert max(prediction.latency_ms for prediction in predictions) < max(100, 2 * max(quick))


def test_a_model_that_is_dropped_frees_its_memory(finished: Run, tmp_path: Path) -> None:
    model = bench.open_model(copy_of(finished, tmp_path, backend="openvino", runtime={"streams": 1}))
    model.infer(model.noise(finished.size).tensor)
    kept = weakref.ref(model.backend._compiled)
    del model
    gc.collect()
    assert kept() is None


def test_a_signal_after_models_were_dropped_in_any_order_does_no_harm(finished: Run) -> None:
    code = (
        "import gc, os, signal, sys; from pathlib import Path; from deit_helpers.backends import open_backend\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled'))\n"
        "first, second = (open_backend('openvino', Path(sys.argv[1])) for _ in range(2))\n"
        "del first; gc.collect()\n"
        "del second; gc.collect()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)"
    )
    command = [sys.executable, "-c", code, finished.file("static_onnx")]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == "handled\n"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_runtime_that_fails_is_one_line_with_the_batch(finished: Run, tmp_path: Path, backend: str) -> None:
    with bench.open_model(copy_of(finished, tmp_path, backend=backend)) as model:
        batch = model.noise(finished.size)
        model.dtype = np.dtype(np.float64)  # what no graph here takes
        wrong = batch._replace(start=40, tensor=batch.tensor.astype(np.float64)[..., :7])
        model.check_batch = lambda tensor: None
        with pytest.raises(BackendError, match=r"failed on the batch from image 40 \("):
            list(model.predictions([wrong]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, as it imports its compiler
def test_torch_that_fails_is_one_line_with_a_hint_where_it_compiles(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("Failed to find\nC compiler")

    with bench.open_model(copy_of(finished, tmp_path, backend="torch", runtime={"compile": True, "device": "cpu"})) as model:
        monkeypatch.setattr(model.backend, "forward", no_compiler)
        with pytest.raises(BackendError, match=r"failed on a batch \(Failed to find C compiler\).*runtime: \{compile: false"):
            model.infer(model.noise(finished.size).tensor)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
@pytest.mark.parametrize(
    ("keys", "atol"), [({"precision": "fp32", "runtime": {"compile": False}}, 1e-2), ({"precision": "bf16"}, 0.2)]
)
def test_a_gpu_gives_the_same_logits_and_is_profiled(
    finished: Run, tmp_path: Path, keys: dict[str, object], atol: float
) -> None:
    copy = copy_of(finished, tmp_path, backend="torch", **{"runtime": {}, **keys})
    facts = infer.infer(copy)
    assert facts["runtime"]["device"] == torch.cuda.get_device_name(0)
    assert facts["in_flight"] == 2
    np.testing.assert_allclose(np.load(copy.file("logits")), np.load(finished.file("logits")), atol=atol)
    measured = perf.measure(copy)
    assert measured["families"]
    assert 0 < measured["utilisation_percent"] < 100


def test_batches_in_flight_on_a_gpu_come_back_in_order(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU would be asked, in which order, with CUDA's streams and events replaced: no GPU is used."""
    asked: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            pass

        def record(self) -> None:
            asked.append("record")

        def synchronize(self) -> None:
            asked.append("synchronize")

        def elapsed_time(self, other: Event) -> float:
            return 7.0

    compute = SimpleNamespace(wait_stream=lambda stream: asked.append("wait for the copy"))
    for name, fake in {
        "Event": Event,
        "current_stream": lambda: compute,
        "stream": lambda stream: contextlib.nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)

    class Queueing(Torch):
        _copies = None

        def load(self) -> Loaded:
            return super().load()._replace(sessions=[None, None])

    with bench.open_model(copy_of(finished, tmp_path, backend="torch", runtime={"device": "cpu"})) as model:
        crops = list(batches.batches(finished, finished.size, model.dtype))
        expected = [model.infer(batch.tensor) for batch in crops]
        queueing = Queueing(model.path, model.backend.options)
        forward = model.backend.forward
        monkeypatch.setattr(queueing, "upload", lambda batch: asked.append("upload") or torch.from_numpy(batch))
        pool = Pool(queueing)
        monkeypatch.setattr(queueing, "forward", lambda x: asked.append("run") or forward(x))
        predictions = list(pool.predictions(crops))
    assert (pool.in_flight, pool.workers) == (2, 1)
    assert [prediction.batch.start for prediction in predictions] == [batch.start for batch in crops]
    for prediction, logits in zip(predictions, expected, strict=True):
        np.testing.assert_array_equal(prediction.logits, logits)
    assert {prediction.interface_ms for prediction in predictions} == {7.0}
    queued = ["record", "upload", "wait for the copy", "record", "run", "record", "record"]
    assert asked[:15] == [*queued, *queued, "synchronize"]


@pytest.mark.parametrize("keys", [{"backend": "openvino", "runtime": {"streams": 1}}, {"backend": "torch", "runtime": {}}])
def test_operators_find_their_families(finished: Run, tmp_path: Path, keys: dict[str, object]) -> None:
    copy = copy_of(finished, tmp_path, **keys)
    infer.infer(copy)
    facts = perf.measure(copy)
    with bench.open_model(copy) as model:
        assert isinstance(model.backend, Profiler)
    shares = {name: row["share_percent"] for name, row in facts["families"].items()}
    assert shares["MatMulV2"] > 0
    assert shares["LayerNorm"] > 0
    assert shares["Conv2D"] > 0
    assert sum(shares.values()) == pytest.approx(100)
    assert facts["peak_flops_per_s"] > 1e9
    assert 0 <= facts["operators_ms"] <= 1.5 * facts["profiled_ms"]  # two threads may add up to more than the wall
    assert facts["profiled_batches"] >= perf.PROFILED_BATCHES
    low, high = facts["profiler_overhead_ci95_percent"]
    assert low <= facts["profiler_overhead_percent"] <= high
    assert records.problem(copy, "perf") is None


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("aten::addmm", "MatMulV2"), ("aten::bmm", "BatchMatMulV2"), ("aten::_softmax", "SoftmaxV2"),
        ("aten::copy_", "TransData"),
        ("aten::native_layer_norm", "LayerNorm"), ("aten::gelu", "Gelu"), ("aten::mkldnn_convolution", "Conv2D"),
        ("aten::add", "Elementwise"), ("aten::_scaled_dot_product_flash_attention_for_cpu", "Other"),
        ("aten::select", "Other"), ("vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl(at::Tensor)>", "Gelu"),
    ],
)  # fmt: skip
def test_operators_of_torch_find_their_families_by_name(name: str, family: str) -> None:
    assert operators.family_of_torch(name) == family


def test_uint8_crops_are_normalised_by_the_graph_in_openvino_too(finished: Run, tmp_path: Path) -> None:
    from deit_helpers.stages import optimize

    copy = copy_of(finished, tmp_path, backend="openvino", edits=["uint8_input"], runtime={"streams": 1})
    optimize.optimize(copy)
    with bench.open_model(copy) as model:
        assert model.dtype == np.uint8
        (batch,) = batches.batches(copy, copy.size, model.dtype, 0, copy.size)
        np.testing.assert_allclose(model.infer(batch.tensor), np.load(finished.file("logits"))[: copy.size], atol=1e-4)
