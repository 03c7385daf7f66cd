"""The first bad layer: planted errors are found by block and tap, rounding and edits that are exact are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import edited, static
from runs import with_keys

from deit_helpers.errors import ArtifactError, BackendError, SpecError
from deit_helpers.evidence import taps
from deit_helpers.evidence.taps import Sums, first_bad, localize
from deit_helpers.model.taps import tap_names
from deit_helpers.run import hashing
from deit_helpers.run.folder import Run

Saved = Callable[..., str]
FP32 = taps.TOLERANCES["fp32"], taps.UNITS["fp32"]


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Saved:
    """Save a graph and return its path; four images are enough here."""
    monkeypatch.setattr(taps, "IMAGES", 4)

    def save(graph: onnx.ModelProto, name: str = "other") -> str:
        onnx.save(graph, tmp_path / f"{name}.onnx")
        return str(tmp_path / f"{name}.onnx")

    return save


def changed(graph: onnx.ModelProto, change: Callable[[np.ndarray], np.ndarray], *nodes: str) -> onnx.ModelProto:
    """A copy in which the constants that these nodes read are changed; nodes are named by parts of their names."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    read = {name for node in copy.graph.node if any(part in node.name for part in nodes) for name in node.input}
    constants = [tensor for tensor in copy.graph.initializer if tensor.name in read]
    assert constants
    for tensor in constants:
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(change(array).astype(array.dtype), tensor.name))
    return copy


def int8_by_channel(weight: np.ndarray) -> np.ndarray:
    """Rounded to 8 bits, with a scale for each output channel; weights are (in, out)."""
    scale = np.abs(weight).max(axis=0, keepdims=True) / 127
    return np.round(weight / scale) * scale


def errors(facts: dict[str, Any]) -> list[float]:
    return [row["relative_rms"] for row in facts["taps"]]


def test_torch_and_its_export_differ_by_rounding_at_every_tap(finished: Run) -> None:
    facts = localize(finished, "torch", "onnx")
    assert [row["tap"] for row in facts["taps"]] == tap_names(2)
    assert [row["left_node"] for row in facts["taps"]] == tap_names(2)
    assert 0 < max(errors(facts)) < 1e-5
    assert all(row["cosine"] == pytest.approx(1) and row["not_finite"] == 0 for row in facts["taps"])
    assert facts["verdict"] == {"kind": "none"}
    assert (facts["right"]["file"], facts["right"]["sha256"]) == ("export/deit.onnx", hashing.sha256(finished.file("onnx")))
    assert (facts["method"], facts["right"]["disturbance"], facts["tolerance"]) == ("all at once", 0.0, 1e-4)
    assert [row["images"] for row in facts["taps"]] == [len(facts["images"])] * 14 == [13] * 14


@pytest.mark.parametrize("block", [0, 1])
def test_a_block_rounded_to_int8_is_named(finished: Run, saved: Saved, block: int) -> None:
    graph = onnx.load(finished.at(1).file("static_onnx"))
    parts = [f"blocks.{block}/{part}/MatMul" for part in ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2")]
    facts = localize(finished, "edited", saved(changed(graph, int8_by_channel, *parts)))
    verdict = facts["verdict"]
    assert (verdict["kind"], verdict["tap"]) == ("jump", f"blocks.{block}.attn")
    assert verdict["tap_before"] == f"blocks.{block}.norm1"
    assert verdict["error_before"] == 0 < 1e-3 < verdict["error"] < 0.1


@pytest.mark.parametrize(
    ("node", "tap"),
    [
        ("patch_embed/proj/Conv", "blocks.0.norm1.input"),
        ("blocks.1/norm1/Mul", "blocks.1.norm1"),
        ("blocks.1/norm2/Mul", "blocks.1.norm2"),
        ("blocks.0/mlp/fc1/MatMul", "blocks.0.mlp.act"),
        ("blocks.0/mlp/fc2/MatMul", "blocks.0"),
        ("/head/Gemm", "logits"),
    ],
)
def test_every_tap_names_what_is_computed_right_before_it(node: str, tap: str, saved: Saved, finished: Run) -> None:
    other = changed(static(), lambda array: array * 1.01 if array.ndim else array, node)
    facts = localize(finished, saved(static(), "left"), saved(other))
    assert (facts["verdict"]["kind"], facts["verdict"]["tap"]) == ("jump", tap)


@pytest.mark.parametrize(
    "edits",
    [
        ("pad_tokens",),
        ("pad_outside_attention",),
        ("class_token_only",),
        ("pad_tokens", "class_token_only"),
        ("fold_scale", "split_qkv", "merge_transpose", "uint8_input"),
    ],
)
def test_exact_edits_are_over_tolerance_nowhere(edits: tuple[str, ...], saved: Saved, finished: Run) -> None:
    facts = localize(finished, saved(static(), "left"), saved(edited(static(), *edits)))
    assert len(errors(facts)) == 14
    assert max(errors(facts)) < 1e-5
    assert facts["verdict"] == {"kind": "none"}


def test_unmasked_padding_is_found_where_attention_reads_it(saved: Saved, finished: Run) -> None:
    padded = [saved(edited(static(), name), name) for name in ("pad_tokens", "pad_tokens_unmasked")]
    for left in (saved(static(), "left"), padded[0]):
        assert localize(finished, left, padded[1])["verdict"]["tap"] == "blocks.0.attn"


def test_what_stands_in_padded_tokens_is_not_compared(saved: Saved, finished: Run) -> None:
    padded = edited(static(), "pad_tokens")
    ones = changed(padded, lambda array: array + 1 if array.ndim == 3 and array.shape[1] == 11 else array, "_padded")
    logits = localize(finished, saved(padded, "left"), saved(ones))
    assert logits["verdict"] == {"kind": "none"}


def test_a_tap_that_one_side_does_not_have_says_so(saved: Saved, finished: Run) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(static())
    product = next(node for node in copy.graph.node if node.name == "/blocks/blocks.1/mlp/fc2/MatMul")
    at = list(copy.graph.node).index(product)
    copy.graph.node.insert(at, onnx.helper.make_node("Identity", [product.input[1]], ["computed"]))
    product.input[1] = "computed"
    facts = localize(finished, saved(static(), "left"), saved(copy))
    (row,) = [row for row in facts["taps"] if "relative_rms" not in row]
    assert (row["tap"], row["right_node"]) == ("blocks.1.mlp.act", None)
    assert row["left_node"]


def test_infinite_values_are_counted_and_named(saved: Saved, finished: Run) -> None:
    overflow = changed(static(), lambda array: np.full_like(array, np.inf), "blocks.1/mlp/fc1/Add")
    verdict = localize(finished, saved(static(), "left"), saved(overflow))["verdict"]
    assert (verdict["kind"], verdict["tap"], verdict["tap_before"]) == ("jump", "blocks.1.mlp.act", "blocks.1.norm2")
    assert verdict["not_finite"] == 4 * 197 * 192


def test_taps_in_turns_give_the_same_statistics(saved: Saved, finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = saved(static(), "left"), saved(changed(static(), int8_by_channel, "blocks.1/attn/proj/MatMul"))
    at_once = localize(finished, *paths)
    monkeypatch.setattr(taps, "VALUES_AT_ONCE", 10)  # five taps of two images
    assert localize(finished, *paths) == at_once


class Fusing:
    """A runtime whose logits move with every value that is marked, as where marking breaks a fusion."""

    def __init__(self, moved: float):
        self.moved, self.marked = moved, list[int]()

    def __call__(self, session: Any, batch: np.ndarray, outputs: Callable = taps.outputs) -> list[np.ndarray]:
        logits, *marked = outputs(session, batch)
        self.marked.append(len(marked))
        return [logits * (1 + self.moved * len(marked)), *marked]


@pytest.mark.parametrize("block", [0, 1])
def test_where_marking_moves_the_logits_one_tap_is_marked_at_a_time(
    saved: Saved, finished: Run, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    paths = saved(static(), "left"), saved(changed(static(), int8_by_channel, f"blocks.{block}/attn/proj/MatMul"))
    runtime = Fusing(moved=1e-2)
    monkeypatch.setattr(taps, "outputs", runtime)
    facts = localize(finished, *paths)
    assert facts["method"] == "one at a time, by bisection"
    assert facts["left"]["disturbance"] == pytest.approx(0.13)
    assert (facts["verdict"]["kind"], facts["verdict"]["tap"]) == ("jump", f"blocks.{block}.attn")
    assert facts["verdict"]["tap_before"] == f"blocks.{block}.norm1"
    searched = sum("relative_rms" in row for row in facts["taps"])
    assert searched <= 1 + math.ceil(math.log2(14))
    assert set(runtime.marked) == {0, 1, 13}  # none for the logits, one at a time, all at first


def test_a_small_move_does_not_start_a_search(saved: Saved, finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taps, "outputs", Fusing(moved=1e-8))
    facts = localize(finished, saved(static(), "left"), saved(static()))
    assert (facts["method"], facts["verdict"]) == ("all at once", {"kind": "none"})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_backend_is_compared_in_its_precision(finished: Run, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    ov = pytest.importorskip("openvino")
    if precision.upper() not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip(f"this CPU does not compute in {precision}")
    monkeypatch.setattr(taps, "IMAGES", 4)
    run = with_keys(finished, backend="openvino", precision=precision)
    monkeypatch.setattr(taps.records, "require", lambda *_: None)  # the copy's spec is another one
    facts = localize(run, "onnx", "backend")
    assert (facts["precision"], facts["tolerance"]) == (precision, taps.TOLERANCES[precision])
    assert facts["verdict"]["kind"] == "none"


def test_torch_in_another_precision_has_a_wider_tolerance(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taps, "IMAGES", 4)
    facts = localize(with_keys(finished, backend="torch", precision="bf16", runtime={}), "onnx", "backend")
    assert (facts["tolerance"], facts["verdict"]) == (0.05, {"kind": "none"})
    assert 1e-3 < max(errors(facts)) < 0.05


@pytest.mark.parametrize(
    ("value", "keys", "kind", "message"),
    [
        ("onx", {}, SpecError, "right: 'onx', expected torch, onnx, edited, backend or .* did you mean 'onnx'"),
        ("gone.onnx", {}, ArtifactError, r"right: gone\.onnx: no such file"),
        ("backend", {"backend": "pyacl"}, BackendError, "an OM in pyacl returns its logits and nothing else: .*--out_nodes"),
        ("backend", {"backend": "benchmark"}, BackendError, "compare edited"),
    ],
)
def test_what_cannot_be_compared_is_one_line(finished: Run, value: str, keys: dict, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        localize(with_keys(finished, **keys, runtime={}), "onnx", value)


def row(tap: str, error: float) -> dict[str, Any]:
    return {"tap": tap, "relative_rms": error, "not_finite": 0}


def rows(*values: float) -> list[dict[str, Any]]:
    return [row(f"t{i}", value) for i, value in enumerate(values)]


def test_rounding_that_grows_over_the_tolerance_is_no_bad_layer() -> None:
    found = first_bad(rows(*(1e-7 * 2.0**i for i in range(14))), *FP32)
    assert (found["kind"], found["tap"], found["error_before"]) == ("growth", "t10", 1e-7 * 2.0**9)


def test_a_step_is_the_bad_layer_also_where_what_follows_is_first_over_tolerance() -> None:
    found = first_bad(rows(1e-7, 3e-7, 7e-5, 2e-4, 1e-3), *FP32)
    assert (found["kind"], found["tap"], found["tap_before"], found["over"]) == ("jump", "t2", "t1", "t3")


def test_the_largest_error_so_far_counts_not_the_last_one() -> None:
    assert first_bad(rows(1e-7, 9e-5, 1e-6, 1.1e-4), *FP32)["tap"] == "t1"


def test_an_exact_beginning_is_no_division_by_zero() -> None:
    assert first_bad(rows(0, 0, 0.5), *FP32)["tap"] == "t2"
    assert first_bad(rows(0.5, 0.5), *FP32)["tap_before"] is None
    assert first_bad(rows(0, 1e-6, 9e-5), *FP32) == {"kind": "none"}


def test_sums_over_batches_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    left = rng.standard_normal((6, 5, 4)).astype(np.float32)
    right = left + rng.standard_normal(left.shape).astype(np.float32) / 100
    sums = Sums()
    for start in range(0, 6, 2):
        sums.add(left[start : start + 2], right[start : start + 2])
    a, b = left.ravel().astype(float), right.ravel().astype(float)
    assert sums.row() == {
        "images": 6,
        "max_abs_diff": pytest.approx(np.abs(b - a).max()),
        "relative_rms": pytest.approx(np.sqrt(np.mean((b - a) ** 2) / np.mean(a**2))),
        "cosine": pytest.approx(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)),
        "not_finite": 0,
    }
