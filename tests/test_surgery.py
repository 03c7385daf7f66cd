"""02: one static graph per batch size, equal to the exported one, certified."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from pipeline import SIZES, copy_of, finished, new_run, run_through_05

from deit_helpers import freshness, surgery
from deit_helpers.artifacts import Run
from deit_helpers.errors import ArtifactError, GraphError

SIMPLIFY = surgery.simplify


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(tmp_path_factory)


@pytest.fixture
def unoptimized(run: Run, tmp_path: Path) -> Run:
    """A copy in which stage 02 will run again."""
    copy = copy_of(run, tmp_path)
    freshness.forget(copy, "optimize")
    return copy


def scaled_head(graph: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The graph with its head's weight multiplied by `factor`."""
    head = next(tensor for tensor in graph.graph.initializer if tensor.name == "head.weight")
    head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) * np.float32(factor), head.name))
    return graph


@pytest.mark.parametrize("size", SIZES)
def test_the_static_graph_has_the_batch_size_of_its_name(run: Run, size: int) -> None:
    path = run.at(size).file("static_onnx")
    assert path.name == f"deit_bs{size}.onnx"
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*graph.graph.input, *graph.graph.output]]
    assert shapes == [[size, 3, 224, 224], [size, 3]]
    assert [graph.graph.input[0].name, graph.graph.output[0].name] == ["image", "class"]
    assert surgery.static_batch(graph) == size


@pytest.mark.parametrize("size", SIZES)
def test_nothing_of_the_symbolic_batch_is_left(run: Run, size: int) -> None:
    exported = {node.op_type for node in onnx.load(run.file("onnx")).graph.node}
    left = {node.op_type for node in onnx.load(run.at(size).file("static_onnx")).graph.node}
    assert exported >= {"Where", "Equal", "Expand"}  # there was something to remove
    assert not left & {"Where", "Equal", "Expand", "Shape", "ConstantOfShape"}


@pytest.mark.parametrize("size", SIZES)
def test_static_and_exported_graph_agree(run: Run, size: int) -> None:
    x = np.random.default_rng(size).standard_normal((size, 3, 224, 224)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": x})[0]
        for path in (run.file("onnx"), run.at(size).file("static_onnx"))
    )
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_the_file_holds_what_others_read(run: Run) -> None:
    found = run.read("optimize")
    (edit,) = found["edits"]
    promised = {"name", "applied", "exact", "max_abs_diff", "top1_agreement", "nodes_before", "nodes_after"}
    assert edit.keys() >= promised
    for graph, operators, nodes in (
        ("onnx", "operators_before", "nodes_before"),
        ("static_onnx", "operators_after", "nodes_after"),
    ):
        counts = Counter(node.op_type for node in onnx.load(run.file(graph)).graph.node)
        assert found[operators] == counts
        assert edit[nodes] == counts.total()
    assert (found["batch_size"], found["input_shape"], found["output_shape"]) == (4, [4, 3, 224, 224], [4, 3])


def test_two_runs_from_scratch_are_bit_identical(run: Run, tmp_path: Path) -> None:
    again = run_through_05(new_run(tmp_path))
    for name in ("static_onnx", "images", "logits", "reference"):
        assert again.file(name).read_bytes() == run.file(name).read_bytes(), name


def test_a_certificate_tells_how_far_logits_moved(run: Run, tmp_path: Path) -> None:
    before, after = run.file("onnx"), tmp_path / "scaled.onnx"
    onnx.save(scaled_head(onnx.load(run.file("static_onnx")), 1.5), after)
    x = np.random.default_rng(0).standard_normal((8, 3, 224, 224)).astype(np.float32)
    same, moved = surgery.certify("none", before, before, x), surgery.certify("head", before, after, x)
    assert (same["exact"], same["max_abs_diff"], same["top1_agreement"], same["images"]) == (True, 0.0, 100.0, 8)
    logits = onnxruntime.InferenceSession(before, providers=["CPUExecutionProvider"]).run(None, {"image": x})[0]
    bias = next(onnx.numpy_helper.to_array(t) for t in onnx.load(before).graph.initializer if t.name == "head.bias")
    assert moved["max_abs_diff"] == pytest.approx(np.abs(0.5 * (logits - bias)).max(), rel=1e-3)
    assert not moved["exact"]
    assert surgery.certify("padded", before, run.file("static_onnx"), x[:6])["images"] == 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda graph: scaled_head(SIMPLIFY(graph), 1.01), "not equivalent, max abs diff"),
        (lambda graph: graph, "simplify left Equal, Expand, Where of the symbolic batch"),
        (lambda graph: surgery.fix_batch(SIMPLIFY(graph), 7), "came out with batch size 7, expected 4"),
    ],
)
def test_a_wrong_graph_is_refused_and_the_old_one_stays_unrecorded(
    unoptimized: Run, monkeypatch: pytest.MonkeyPatch, wrong: object, message: str
) -> None:
    before = unoptimized.file("static_onnx").read_bytes()
    monkeypatch.setattr(surgery, "simplify", wrong)
    with pytest.raises(GraphError, match=message):
        surgery.optimize(unoptimized)
    assert unoptimized.file("static_onnx").read_bytes() == before
    assert freshness.problem(unoptimized, "optimize") is not None


def test_onnxsim_contradicting_itself_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxsim.simplify", lambda graph, **_: (graph, False))
    with pytest.raises(GraphError, match="onnxsim reports"):
        surgery.simplify(surgery.fix_batch(onnx.load(run.file("onnx")), 4))


def test_static_batch_refuses_symbolic_and_contradicting_shapes(run: Run) -> None:
    graph = onnx.load(run.file("onnx"))
    with pytest.raises(GraphError, match=r"batch sizes \[0\]"):
        surgery.static_batch(graph)
    surgery.fix_batch(graph, 4).graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(GraphError, match=r"batch sizes \[2, 4\]"):
        surgery.static_batch(graph)


def test_edits_this_version_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="knows no graph edits, the spec asks for fuse_gelu"):
        surgery.optimize(new_run(tmp_path, edits=["fuse_gelu"]))


def test_optimizing_before_exporting_names_the_notebook(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"deit\.onnx: does not exist yet; run notebooks/01_export\.ipynb \("):
        surgery.optimize(new_run(tmp_path))
