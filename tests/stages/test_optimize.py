"""02: one static graph per batch size, simplified, edited, certified; a graph that is not equivalent stops the run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from runs import SIZES, copy_of, new_run, run_through_05

from deit_helpers.errors import ArtifactError, GraphError
from deit_helpers.graph import edits, simplify
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.stages import export, optimize

SIMPLIFY = simplify.simplify


@pytest.fixture
def unoptimized(finished: Run, tmp_path: Path) -> Run:
    """A copy in which stage 02 will run again."""
    copy = copy_of(finished, tmp_path)
    records.forget(copy, "optimize")
    return copy


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with edits, at batch size 4: stages 01, 02, 04 and 05 done."""
    return run_through_05(new_run(tmp_path_factory.mktemp("chained"), edits=["uint8_input", "fold_scale", "pad_tokens"]))


def head_scaled(path: Path, factor: float) -> None:
    """Multiply the weight of the head of a graph file."""
    graph = onnx.load(path)
    head = next(tensor for tensor in graph.graph.initializer if tensor.name == "head.weight")
    head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) * np.float32(factor), head.name))
    onnx.save(graph, path)


@pytest.mark.parametrize("size", SIZES)
def test_the_static_graph_has_the_batch_size_of_its_name(finished: Run, size: int) -> None:
    path = finished.at(size).file("static_onnx")
    assert path.name == f"deit_bs{size}.onnx"
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*graph.graph.input, *graph.graph.output]]
    assert shapes == [[size, 3, 224, 224], [size, 3]]
    assert [graph.graph.input[0].name, graph.graph.output[0].name] == ["image", "class"]


@pytest.mark.parametrize("size", SIZES)
def test_nothing_of_the_symbolic_batch_is_left(finished: Run, size: int) -> None:
    exported = {node.op_type for node in onnx.load(finished.file("onnx")).graph.node}
    left = {node.op_type for node in onnx.load(finished.at(size).file("static_onnx")).graph.node}
    assert exported >= {"Where", "Equal", "Expand"}  # there was something to remove
    assert not left & {"Where", "Equal", "Expand", "Shape", "ConstantOfShape"}


def test_node_names_stay_those_of_the_torch_modules(finished: Run) -> None:
    names = {node.name for node in onnx.load(finished.file("static_onnx")).graph.node}
    assert {"/blocks/blocks.0/attn/Softmax", "/blocks/blocks.1/mlp/fc1/MatMul", "/norm/Add_1"} <= names


@pytest.mark.parametrize("size", SIZES)
def test_static_and_exported_graph_agree(finished: Run, size: int) -> None:
    x = np.random.default_rng(size).standard_normal((size, 3, 224, 224)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": x})[0]
        for path in (finished.file("onnx"), finished.at(size).file("static_onnx"))
    )
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_the_file_holds_what_others_read(finished: Run) -> None:
    facts = finished.read("optimize")
    (edit,) = facts["edits"]
    promised = {"name", "applied", "exact", "max_abs_diff", "top1_agreement", "nodes_before", "nodes_after"}
    assert edit.keys() >= promised
    for graph, operators, nodes in (
        ("onnx", "operators_before", "nodes_before"),
        ("static_onnx", "operators_after", "nodes_after"),
    ):
        counts = Counter(node.op_type for node in onnx.load(finished.file(graph)).graph.node if node.op_type != "Constant")
        assert facts[operators] == counts
        assert edit[nodes] == counts.total()
    assert (facts["batch_size"], facts["input_shape"], facts["output_shape"]) == (4, [4, 3, 224, 224], [4, 3])


def test_two_runs_from_scratch_are_bit_identical(finished: Run, tmp_path: Path) -> None:
    again = run_through_05(new_run(tmp_path))
    for name in ("static_onnx", "images", "logits", "reference"):
        assert again.file(name).read_bytes() == finished.file(name).read_bytes(), name


def test_a_chain_has_a_row_per_edit_and_one_for_the_whole(chained: Run) -> None:
    facts = chained.read("optimize")
    assert [row["name"] for row in facts["edits"]] == ["simplify", "uint8_input", "fold_scale", "pad_tokens"]
    assert all(row["applied"] and row["verdict"] != "not equal" and row["declared_exact"] for row in facts["edits"])
    assert facts["chain"]["operators_added"]["Cast"] == 1
    assert facts["chain"]["nodes_after"] == facts["edits"][-1]["nodes_after"] == sum(facts["operators_after"].values())
    assert facts["edits"][-1]["softmax_tokens_before"] == [197]
    assert facts["edits"][-1]["softmax_tokens_after"] == [208]
    assert (facts["input_shape"], facts["input_dtype"]) == ([4, 224, 224, 3], "uint8")


def test_an_8_bit_input_is_not_probed_with_what_8_bits_cannot_hold(chained: Run) -> None:
    row = next(row for row in chained.read("optimize")["edits"] if row["name"] == "uint8_input")
    assert row["not_probed"] == ["magnitude ×100"]
    assert {probe["kind"] for probe in row["probes"]} == {
        "real crops",
        "noise",
        "all 0",
        "all 255",
        "one colour",
        "one hot pixel",
    }


def test_edits_leave_the_logits_of_the_run_as_they_were(finished: Run, chained: Run) -> None:
    np.testing.assert_allclose(np.load(chained.file("logits")), np.load(finished.file("logits")), atol=1e-5)


@pytest.mark.parametrize(
    ("why", "reason"),
    [("onnxsim was killed by signal 11", "onnxsim was killed by signal 11"), (None, "the simplified graph is not equivalent")],
)
def test_without_a_usable_simplified_graph_the_shape_fixed_one_is_used(
    unoptimized: Run, monkeypatch: pytest.MonkeyPatch, why: str | None, reason: str
) -> None:
    def spoilt(graph: Path, simplified: Path) -> str | None:
        if why is None:
            SIMPLIFY(graph, simplified)
            head_scaled(simplified, 1.01)
        return why

    monkeypatch.setattr(simplify, "simplify", spoilt)
    (row,) = optimize.optimize(unoptimized)["edits"]
    assert (row["applied"], row["reason"]) == (False, reason)
    graph = onnx.load(unoptimized.file("static_onnx"))
    assert "Where" in {node.op_type for node in graph.graph.node}
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


@pytest.mark.parametrize("content", [b"\x0a\xff\xff\xff", b""])
def test_a_damaged_simplified_graph_is_a_reason_too(unoptimized: Run, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(simplify, "simplify", lambda _, simplified: (simplified.write_bytes(content), None)[1])
    (row,) = optimize.optimize(unoptimized)["edits"]
    assert not row["applied"]
    assert row["reason"].startswith("the simplified graph is damaged: ")


def test_an_edit_after_a_failed_simplifier_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(tmp_path, edits=["pad_tokens"])
    export.export(run)
    monkeypatch.setattr(simplify, "simplify", lambda *_: "onnxsim was killed by signal 11")
    with pytest.raises(GraphError, match=r"simplify was not applied \(onnxsim was killed by signal 11\), so pad_tokens: "):
        optimize.optimize(run)


def test_an_exact_edit_that_is_not_equal_stops_the_run_and_the_old_graph_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path, edits=["fold_scale"])
    export.export(run)
    monkeypatch.setattr(edits, "scale_factor", lambda node: (0.5, node.inputs[0]) if node.op_type == "Mul" else None)
    with pytest.raises(
        GraphError, match=r"fold_scale: the graph is not equivalent, max abs diff .* \(on .*\), top-1 agreement"
    ):
        optimize.optimize(run)
    assert not run.file("static_onnx").exists()
    assert records.problem(run, "optimize") is not None


def test_an_inexact_edit_allowed_by_name_is_applied_and_reported(tmp_path: Path) -> None:
    run = new_run(tmp_path, edits=["pad_tokens_unmasked"], allow_inexact=True)
    export.export(run)
    facts = optimize.optimize(run)
    row = facts["edits"][-1]
    assert (row["applied"], row["declared_exact"], row["verdict"]) == (True, False, "not equal")
    assert (facts["inexact_edits"], facts["chain"]["verdict"]) == (["pad_tokens_unmasked"], "not equal")


def test_a_graph_that_stayed_symbolic_is_refused(unoptimized: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize, "fix_batch", lambda graph, batch_size: graph)
    with pytest.raises(GraphError, match=r"batch sizes \[0\], expected 4"):
        optimize.optimize(unoptimized)


def test_optimizing_before_exporting_names_the_notebook(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"deit\.onnx: does not exist yet; run notebooks/01_export\.ipynb \("):
        optimize.optimize(new_run(tmp_path))
