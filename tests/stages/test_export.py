"""01: the exported graph against the torch module, run by ONNX Runtime directly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from runs import new_run

from deit_helpers.errors import ArtifactError, GraphError
from deit_helpers.model import checkpoint, trace
from deit_helpers.run.folder import Run
from deit_helpers.stages import export, optimize


@pytest.fixture(scope="module", params=[11, 13])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = new_run(tmp_path_factory.mktemp("exported"), opset=request.param)
    export.export(run)
    return run


def test_the_exported_graph_has_the_opset_of_the_spec_and_a_symbolic_batch(exported: Run) -> None:
    graph = onnx.load(exported.file("onnx"))
    onnx.checker.check_model(graph, full_check=True)
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", exported.spec.opset)]
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*graph.graph.input, *graph.graph.output]
    }
    assert shapes == {"image": ["batch", 3, 224, 224], "class": ["batch", 3]}


@pytest.mark.parametrize("count", [1, 5])
def test_graph_and_module_agree_at_any_batch_size(exported: Run, count: int) -> None:
    x = np.random.default_rng(count).standard_normal((count, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        expected = checkpoint.load(exported)[0](torch.from_numpy(x)).numpy()
    session = onnxruntime.InferenceSession(exported.file("onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["class"], {"image": x})[0], expected, atol=1e-5)
    assert np.ptp(expected) > 0.1  # logits that differ: agreement means something


def test_the_record_says_what_was_compared(exported: Run) -> None:
    facts = exported.read("export")
    assert (facts["opset"], facts["classes"]) == (exported.spec.opset, 3)
    assert facts["parameters"] == sum(p.numel() for p in checkpoint.load(exported)[0].parameters())
    assert facts["parity"]["top1_agreement_percent"] == 100.0
    assert facts["parity"]["max_abs_diff"] == max(row["max_abs_diff"] for row in facts["parity_images"])
    assert facts["weights"]["entry"] == "model"
    assert facts["timm_config"]["mean"] == [0.5, 0.5, 0.5]
    assert len(facts["parity_images"]) == facts["parity"]["images"] == export.PARITY_IMAGES


def test_a_graph_that_differs_from_the_module_is_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(tmp_path)
    traced = trace.trace

    def with_another_head(run: Run, tensors: np.ndarray, path: Path) -> object:
        result = traced(run, tensors, path)
        graph = onnx.load(path)
        weight = next(tensor for tensor in graph.graph.initializer if tensor.name == "head.weight")
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.001), weight.name))
        onnx.save(graph, path)
        return result

    monkeypatch.setattr(trace, "trace", with_another_head)
    with pytest.raises(GraphError, match="differs from the torch module"):
        export.export(run)
    assert not list(run.file("onnx").parent.iterdir())
    with pytest.raises(ArtifactError, match=r"01_export\.ipynb"):
        optimize.optimize(run)


def test_an_error_of_the_torch_process_is_raised_here_as_what_it_was(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(ArtifactError, match=r"tiny\.pth: cannot be read as a checkpoint"):
        export.export(run)
    assert not list(run.file("onnx").parent.iterdir())


def test_exporting_twice_gives_the_same_bytes(finished: Run, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    export.export(run)
    assert run.file("onnx").read_bytes() == finished.file("onnx").read_bytes()
