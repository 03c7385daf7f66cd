"""The ONNX Runtime backend and the contract every backend inherits, on graphs of a few nodes."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deit_helpers.backends import Backend, Execution, Loaded, Options, Profiler, Queued, open_backend
from deit_helpers.errors import BackendError
from deit_helpers.run.backends import BACKENDS

PX = 4


def pool_and_classify(path: Path, batch: int | str = 2, output_classes: int = 3) -> Path:
    """A graph from `image` (batch, 3, PX, PX) to `class` (batch, 3): mean of each channel, then a matrix product."""
    weight = numpy_helper.from_array(np.arange(9, dtype=np.float32).reshape(3, 3), "w")
    axes = {"axes": [2, 3], "keepdims": 0}
    nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], **axes), helper.make_node("MatMul", ["mean", "w"], ["class"])]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", [batch, 3, PX, PX]), ("class", [batch, output_classes]))
    ]
    graph = helper.make_graph(nodes, "tiny", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), path)
    return path


def images(count: int, px: int = PX) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, px, px)).astype(np.float32)


def test_logits_are_what_the_runtime_gives_directly(tmp_path: Path) -> None:
    path = pool_and_classify(tmp_path / "m.onnx")
    with open_backend("onnxruntime", path) as model:
        logits = model.infer(images(2))
    direct = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": images(2)})[0]
    assert np.array_equal(logits, direct)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, images(2).mean(axis=(2, 3)) @ np.arange(9).reshape(3, 3), atol=1e-5)


def test_the_graph_says_batch_size_classes_and_image_size(tmp_path: Path) -> None:
    with open_backend("onnxruntime", pool_and_classify(tmp_path / "static.onnx", 2)) as model:
        assert (model.batch_size, model.classes, model.image_px) == (2, 3, PX)
    with open_backend("onnxruntime", pool_and_classify(tmp_path / "any.onnx", "batch")) as model:
        assert model.batch_size is None
        assert model.infer(images(5)).shape == (5, 3)


def test_the_caller_owns_the_logits(tmp_path: Path) -> None:
    with open_backend("onnxruntime", pool_and_classify(tmp_path / "m.onnx")) as model:
        first = model.infer(images(2))
        kept = first.copy()
        model.infer(images(2) + 1)
        assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (images(1), r"batch of 1 images, m\.onnx was made for 2: pad it"),
        (images(3), r"batch of 3 images, m\.onnx was made for 2"),
        (images(2, PX + 1), r"images of shape \(3, 5, 5\), m\.onnx takes 3x4x4"),
        (images(2).transpose(0, 2, 3, 1), r"images of shape \(4, 4, 3\)"),
    ],
)
def test_a_batch_of_the_wrong_shape_is_refused(tmp_path: Path, batch: np.ndarray, message: str) -> None:
    with (
        open_backend("onnxruntime", pool_and_classify(tmp_path / "m.onnx")) as model,
        pytest.raises(BackendError, match=message),
    ):
        model.infer(batch)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    batch = images(2)
    batch[1, 0, 0, 0] = bad
    with (
        open_backend("onnxruntime", pool_and_classify(tmp_path / "m.onnx")) as model,
        pytest.raises(BackendError, match="NaN or infinite logits for image 1, in the batch from image 0"),
    ):
        model.infer(batch)


def test_logits_of_another_shape_than_promised_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_backend("onnxruntime", pool_and_classify(tmp_path / "m.onnx")) as model:
        monkeypatch.setattr(model, "classes", 4)
        with pytest.raises(BackendError, match=r"logits of shape \(2, 3\) for the batch from image 0, expected \(2, 4\)"):
            model.infer(images(2))


def test_an_unknown_backend_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"backend 'tpu': expected one of onnxruntime, openvino, pyacl, torch"):
        open_backend("tpu", tmp_path / "m.onnx")


def test_a_backend_that_is_not_installed_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = BACKENDS["torch"]._replace(target="deit_helpers.backends.absent:Absent", install="pip install absent")
    monkeypatch.setitem(BACKENDS, "absent", row)
    with pytest.raises(BackendError, match=r"'absent' cannot be loaded .*; get it with: pip install absent"):
        open_backend("absent", tmp_path / "m.onnx")


def test_another_precision_is_refused_and_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="fp32 only, the spec asks for fp16"):
        open_backend("onnxruntime", pool_and_classify(tmp_path / "m.onnx"), Options("fp16"))


@pytest.mark.parametrize("content", [None, b"", b"not a graph"])
def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BackendError, match=r"m\.onnx: ONNX Runtime cannot load it"):
        open_backend("onnxruntime", path)


def test_description_names_runtime_version_and_device(tmp_path: Path) -> None:
    with open_backend("onnxruntime", pool_and_classify(tmp_path / "m.onnx")) as model:
        description = model.describe()
    wanted = {"backend": "onnxruntime", "version": onnxruntime.__version__, "device": "CPU", "precision": "fp32"}
    assert description.items() >= wanted.items()
    assert description["providers"] == ["CPUExecutionProvider"]


@pytest.mark.parametrize("batches", [1, 3])
def test_the_profile_holds_the_counted_runs_and_not_the_warm_up(tmp_path: Path, batches: int) -> None:
    with open_backend("onnxruntime", pool_and_classify(tmp_path / "m.onnx")) as model:
        assert isinstance(model.backend, Profiler)
        profile = model.backend.profile(images(2), batches)
    assert profile.batches == batches
    assert len(profile.profiled_ms) == batches
    assert min(profile.profiled_ms) > 0
    calls = profile.table.set_index("op_type")["calls"].to_dict()
    assert calls == {"ReduceMean": batches, "MatMul": batches}


def test_a_provider_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = pool_and_classify(tmp_path / "m.onnx")
    with pytest.raises(BackendError, match=r"not CANNExecutionProvider: pip install onnxruntime-cann"):
        open_backend("onnxruntime", path, Options(providers={"CANNExecutionProvider": {"device_id": 0}}))


def test_providers_come_before_the_cpu_with_their_options(tmp_path: Path) -> None:
    path = pool_and_classify(tmp_path / "m.onnx")
    with open_backend("onnxruntime", path, Options(providers={"CPUExecutionProvider": {}})) as model:
        assert model.describe()["device"] == "CPU"


def test_the_peak_is_a_positive_rate(tmp_path: Path) -> None:
    with open_backend("onnxruntime", pool_and_classify(tmp_path / "m.onnx")) as model:
        assert isinstance(model.backend, Profiler)
        assert 0 < model.backend.peak_flops_per_s() < float("inf")


def test_a_backend_without_a_profiler_is_no_profiler() -> None:
    class Plain(Backend):
        def load(self) -> Loaded:
            return Loaded([None], 1, 3, PX, np.dtype(np.float32))

        def infer(self, session: None, batch: np.ndarray) -> Execution:
            return Execution(batch)

        def describe(self) -> dict[str, str]:
            return {}

    assert not isinstance(Plain(Path("m"), Options()), Profiler)
    assert not isinstance(Plain(Path("m"), Options()), Queued)


@pytest.mark.parametrize(
    ("runtime", "each"), [({"streams": 2, "threads": 8}, [4, 4]), ({"streams": 2, "threads": 1}, [1, 1]), ({"threads": 3}, [3])]
)
def test_every_session_has_its_share_of_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: dict[str, int], each: list[int]
) -> None:
    opened: list[int] = []
    session = onnxruntime.InferenceSession

    def noting(model: Path, options: onnxruntime.SessionOptions, **how: object) -> onnxruntime.InferenceSession:
        opened.append(options.intra_op_num_threads)
        return session(model, options, **how)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noting)
    with open_backend("onnxruntime", pool_and_classify(tmp_path / "m.onnx"), Options(runtime=runtime)):
        assert opened == each


def test_an_error_in_one_of_two_sessions_is_raised_after_the_predictions_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pool_and_classify(tmp_path / "m.onnx")
    with open_backend("onnxruntime", path, Options(runtime={"streams": 2})) as model:
        batch = model.noise(2)
        wrong = batch._replace(start=4, tensor=batch.tensor[:1])
        monkeypatch.setattr(model, "check_batch", lambda tensor: None)
        predictions = model.predictions([batch, batch._replace(start=2), wrong, batch._replace(start=6)])
        assert [next(predictions).batch.start for _ in range(2)] == [0, 2]
        with pytest.raises(BackendError, match=r"OnnxRuntime failed on the batch from image 4 \("):
            next(predictions)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("mapped")]
