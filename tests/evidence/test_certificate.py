"""Certificates: what they say of equal graphs, and that every way to spoil an edit is caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import RECIPE, edited, static

from deit_helpers.data import transforms
from deit_helpers.evidence import certificate
from deit_helpers.evidence.certificate import IDENTICAL, ROUNDING, UNEQUAL, Probe
from deit_helpers.graph import edits, token_edits
from deit_helpers.graph.graph import Graph, axis_of, rank
from deit_helpers.run.folder import Run


@pytest.fixture(scope="module")
def probes(finished: Run) -> list[Probe]:
    return certificate.probes(finished)


@pytest.fixture
def certify(probes: list[Probe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.setattr(certificate, "TIMED_S", 0.0)

    def rows(before: onnx.ModelProto, after: onnx.ModelProto) -> dict:
        seen = []
        for name, graph in (("before", before), ("after", after)):
            onnx.save(graph, tmp_path / f"{name}.onnx")
            seen.append(certificate.observe(tmp_path / f"{name}.onnx", probes, 2))
        return certificate.certify("edit", *seen)

    return rows


def test_probes_are_real_noisy_and_hostile(probes: list[Probe]) -> None:
    by_kind = {probe.kind: probe for probe in probes}
    assert by_kind["all 0"].crops.max() == 0
    assert by_kind["all 255"].crops.min() == 255
    assert all(len(np.unique(crop.reshape(-1, 3), axis=0)) == 1 for crop in by_kind["one colour"].crops)
    assert [int((crop > 0).any(axis=-1).sum()) for crop in by_kind["one hot pixel"].crops] == [1, 1]
    loud = by_kind["magnitude ×100"]
    assert loud.crops is None
    np.testing.assert_array_equal(loud.tensors[0], by_kind["real crops"].tensors[0] * 100)
    for probe in probes:
        if probe.crops is not None:
            np.testing.assert_array_equal(probe.tensors, transforms.tensors(probe.crops, RECIPE))


def test_a_graph_is_identical_to_itself(certify: Callable) -> None:
    row = certify(static(2), static(2))
    assert (row["verdict"], row["exact"], row["max_abs_diff"], row["top1_agreement"]) == (IDENTICAL, True, 0.0, 100.0)
    assert (row["operators_added"], row["operators_removed"], row["not_probed"]) == ({}, {}, [])
    assert row["images"] == sum(probe["images"] for probe in row["probes"]) == 20
    assert row["interface_before"]["input"] == {"name": "image", "shape": [2, 3, 224, 224], "dtype": "float32"}
    assert len(row["batch_ms_before"]) == 9  # of ten batches the first warms up


def test_rounding_is_told_from_identity(certify: Callable) -> None:
    row = certify(static(2, opset=13), edited(static(2, opset=13), "softmax_axis"))
    assert row["verdict"] == ROUNDING
    assert not row["exact"]
    assert 0 < row["max_abs_diff"] <= 1e-4


def test_the_difference_is_that_of_the_logits(certify: Callable) -> None:
    after = onnx.ModelProto()
    after.CopyFrom(static(2))
    bias = next(tensor for tensor in after.graph.initializer if tensor.name == "head.bias")
    moved = onnx.numpy_helper.to_array(bias) + np.eye(1, 10, 3, dtype=np.float32)[0] * 0.5
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
    row = certify(static(2), after)
    assert row["max_abs_diff"] == pytest.approx(0.5, abs=1e-5)
    assert row["verdict"] == UNEQUAL
    assert all(probe["max_abs_diff"] == pytest.approx(0.5, abs=1e-5) for probe in row["probes"])


def test_another_number_of_classes_is_not_equal(certify: Callable) -> None:
    row = certify(static(2), static(2, depth=2, embed_dim=48, num_heads=3, num_classes=7))
    assert row["verdict"] == UNEQUAL


def test_offsets_between_classes_do_not_hide_an_error(certify: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    before = onnx.ModelProto()
    before.CopyFrom(static(2))
    bias = next(tensor for tensor in before.graph.initializer if tensor.name == "head.bias")
    lowered = onnx.numpy_helper.to_array(bias).copy()
    lowered[:3] = -1e4  # as where unused classes are switched off
    bias.CopyFrom(onnx.numpy_helper.from_array(lowered, bias.name))
    assert certify(before, edited(before, "pad_tokens"))["verdict"] == IDENTICAL
    monkeypatch.setattr(token_edits, "add_mask", mask_one_short)
    assert certify(before, edited(before, "pad_tokens"))["verdict"] == UNEQUAL


def test_what_neither_graph_can_take_is_not_called_probed(certify: Callable) -> None:
    before = edited(static(2), "uint8_input")
    row = certify(before, edited(before, "pad_tokens"))
    assert row["not_probed"] == ["magnitude ×100"]
    assert row["images"] == 18


def mask_one_short(graph: Graph, attentions: list, tokens: int, padded: int, _real: Callable = token_edits.add_mask) -> None:
    _real(graph, attentions, tokens + 1, padded)


def mask_on_queries(graph: Graph, attentions: list, tokens: int, padded: int) -> None:
    for attention in attentions:
        axes = [1] * rank(attention.softmax.inputs[0])
        axes[axis_of(attention.softmax) - 1] = padded
        row = np.where(np.arange(padded) < tokens, 0, token_edits.MASKED).astype(np.float32).reshape(axes)
        scores = graph.add("Add", [attention.softmax.inputs[0], graph.constant("mask", row)], f"{attention.name}/mask")
        attention.softmax.replace_input_with(0, scores)


def scaled_twice(graph: Graph, linear: object, columns: slice, factor: float, _real: Callable = edits._scale_columns) -> None:
    _real(graph, linear, columns, np.float32(factor * factor))


def keys_and_values_swapped(graph: Graph, _real: Callable = edits.qkv_exits) -> list:
    return [
        [queries, keys._replace(value=values.value), values._replace(value=keys.value)]
        for queries, keys, values in _real(graph)
    ]


def from_the_second(graph: Graph, value: ir.Value, stop: int, axis: int, name: str, _real: Callable = Graph.slice) -> ir.Value:
    cut = _real(graph, value, stop + 1, axis, name)
    cut.producer().replace_input_with(1, graph.constant("one", np.array([1])))
    return cut


@pytest.mark.parametrize(
    ("name", "module", "function", "mutant"),
    [
        ("pad_tokens", token_edits, "add_mask", mask_one_short),
        ("pad_tokens", token_edits, "add_mask", mask_on_queries),
        ("pad_tokens", token_edits, "add_mask", lambda *_: None),
        ("class_token_only", Graph, "slice", from_the_second),
        ("fold_scale", edits, "_scale_columns", scaled_twice),
        ("fold_scale", edits, "_scale_columns", lambda *_: None),
        ("split_qkv", edits, "qkv_exits", keys_and_values_swapped),
    ],
)
def test_a_spoilt_edit_is_caught(
    certify: Callable, monkeypatch: pytest.MonkeyPatch, name: str, module: object, function: str, mutant: Callable
) -> None:
    assert certify(static(2), edited(static(2), name))["verdict"] != UNEQUAL
    monkeypatch.setattr(module, function, mutant)
    assert certify(static(2), edited(static(2), name))["verdict"] == UNEQUAL


def test_mean_and_std_swapped_in_uint8_input_are_caught(certify: Callable) -> None:
    swapped = RECIPE.model_copy(update={"mean": RECIPE.std, "std": RECIPE.mean})
    assert certify(static(2), edited(static(2), "uint8_input"))["verdict"] == IDENTICAL
    assert certify(static(2), edited(static(2), "uint8_input", recipe=swapped))["verdict"] == UNEQUAL
