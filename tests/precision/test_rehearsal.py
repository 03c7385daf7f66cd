"""The rehearsal finds a planted overflow and numbers too small for fp16, and writes lists that parse."""

from __future__ import annotations

import json
import shlex
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import edited, infer, static
from onnxruntime.transformers.float16 import convert_float_to_float16

from deit_helpers.graph.graph import Graph, array, is_constant
from deit_helpers.precision.rehearsal import configurations, rehearse
from deit_helpers.precision.rounding import rounded

BATCHES = [np.random.default_rng(seed).standard_normal((2, 3, 224, 224)).astype(np.float32) for seed in (0, 1)]
LABELS = np.array([1, 2, 3, 4])
FACTOR = np.float32(2**16)  # a power of two: nothing but the size changes


def planted(proto: onnx.ModelProto, block: int) -> onnx.ModelProto:
    """The graph with the hidden activations of one MLP times FACTOR, and everything behind them as it was."""
    graph = Graph(proto)
    nodes = {node.name: node for node in graph.nodes()}
    for name, factor in (("fc1/MatMul", FACTOR), ("fc1/Add", FACTOR), ("act/Div", FACTOR), ("fc2/MatMul", 1 / FACTOR)):
        node: ir.Node = nodes[f"/blocks/blocks.{block}/mlp/{name}"]
        index = next(i for i, value in enumerate(node.inputs) if is_constant(value))
        node.replace_input_with(index, graph.constant("planted", array(node.inputs[index]) * factor))
    return graph.proto()


def of_mlp(proto: onnx.ModelProto, block: int) -> list[str]:
    """The MLP's nodes but the last, which adds the bias to what has its size again."""
    prefix = f"/blocks/blocks.{block}/mlp/"
    return [node.name for node in proto.graph.node if node.name.startswith(prefix) and node.name != f"{prefix}fc2/Add"]


@pytest.fixture(scope="module")
def sound() -> dict[str, Any]:
    return rehearse(static(2), BATCHES, LABELS)


@pytest.fixture(scope="module")
def overflowing() -> dict[str, Any]:
    return rehearse(planted(static(2), 1), BATCHES, LABELS)


def test_a_planted_overflow_is_found_in_its_block_and_keeps_exactly_its_nodes(overflowing: dict[str, Any]) -> None:
    graph = planted(static(2), 1)
    np.testing.assert_allclose(infer(graph, BATCHES[0]), infer(static(2), BATCHES[0]), atol=1e-5)
    assert {(row["block"], row["part"]) for row in overflowing["nodes"] if row["overflow"]} == {("1", "MLP")}
    assert overflowing["keep"] == of_mlp(graph, 1)
    results = overflowing["comparison"]
    assert results["fp16"]["not_finite"] == 4
    assert results["fp16"]["top1_agreement_percent"] == 0
    assert results["fp16, keep list"]["not_finite"] == results["fp16, saturating"]["not_finite"] == 0
    assert results["fp16, keep list"]["rms_diff"] < results["fp16, saturating"]["rms_diff"] / 10
    assert results["bf16"]["changed"] == 0


def test_overflow_and_saturation_are_counted_element_by_element(overflowing: dict[str, Any]) -> None:
    graph = planted(static(2), 1)
    name = "/blocks/blocks.1/mlp/fc1/MatMul"
    row = next(row for row in overflowing["nodes"] if row["node"] == name)
    hidden = np.concatenate([activation(graph, name, batch) for batch in BATCHES])
    clamped = np.concatenate([activation(rounded(graph, "fp16", saturate=True), name, batch) for batch in BATCHES])
    assert row["overflow"] == np.isinf(half(hidden)).sum() > 0
    assert row["max_abs"] == pytest.approx(np.abs(hidden).max(), rel=1e-5)
    assert row["saturated"] == pytest.approx(np.isinf(half(clamped)).sum(), abs=5)


def activation(proto: onnx.ModelProto, name: str, batch: np.ndarray) -> np.ndarray:
    """What a node of a graph makes of a batch."""
    graph = Graph(proto)
    value = next(node for node in graph.nodes() if node.name == name).outputs[0]
    graph.graph.outputs[:] = [value]
    return infer(ir.to_proto(graph.model), batch)


def half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def test_underflow_is_counted_element_by_element() -> None:
    quiet = Graph(static(2))
    node = next(node for node in quiet.nodes() if node.name == "/blocks/blocks.0/mlp/fc2/MatMul")
    node.replace_input_with(1, quiet.constant("small", array(node.inputs[1]) * np.float32(1e-6)))
    proto = quiet.proto()
    row = next(row for row in rehearse(proto, BATCHES, LABELS)["nodes"] if row["node"] == node.name)
    values = np.concatenate([activation(proto, node.name, batch) for batch in BATCHES])
    low = np.abs(half(values).astype(np.float32))
    assert row["to_zero"] == pytest.approx(((low == 0) & (values != 0)).sum(), abs=5)
    assert row["to_zero"] > 100
    assert row["subnormal"] == pytest.approx(((low > 0) & (low < 2**-14)).sum(), abs=5)


def test_of_a_sound_model_nothing_is_kept(sound: dict[str, Any]) -> None:
    assert (sound["keep"], sound["keep_op_types"], sound["overflowing"]) == ([], [], [])
    assert sound["comparison"]["fp16"]["changed"] == 0
    texts = configurations(sound)
    assert (texts["keep_dtype"], texts["tensorrt_precisions"]) == ("", "--fp16\n")
    assert json.loads(texts["onnxruntime_fp16"])["node_block_list"] == []
    assert json.loads(texts["modify_mixlist"]) == {"black-list": {"to-add": []}}


def test_every_block_has_its_parts_and_they_are_ranked(sound: dict[str, Any]) -> None:
    of_names = {row["node"]: (row["block"], row["part"]) for row in sound["nodes"]}
    assert of_names["/patch_embed/proj/Conv"] == ("embedding", "")
    assert of_names["/head/Gemm"] == of_names["/norm/Add_1"] == ("head", "")
    for block in "01":
        prefix = f"/blocks/blocks.{block}"
        assert of_names[f"{prefix}/attn/Softmax"] == of_names[f"{prefix}/attn/proj/Add"] == (block, "attention")
        assert of_names[f"{prefix}/norm1/Add_1"] == (block, "LayerNorm 1")
        assert of_names[f"{prefix}/norm2/Pow"] == (block, "LayerNorm 2")
        assert of_names[f"{prefix}/mlp/fc2/Add"] == (block, "MLP")
        assert of_names[f"{prefix}/Add"] == of_names[f"{prefix}/Add_1"] == (block, "residual")
    assert len(sound["ranking"]) == 12
    errors = np.array([row["rms_diff"] for row in sound["ranking"]])
    assert (np.diff(errors) <= 0).all()
    # Roundings are independent of each other: their squares add up to that of all together.
    assert np.sqrt((errors**2).sum()) == pytest.approx(sound["comparison"]["fp16"]["rms_diff"], rel=0.5)


def test_an_edited_graph_is_rehearsed_as_it_is() -> None:
    graph = edited(static(2), "pad_tokens", "uint8_input")
    crops = [np.random.default_rng(seed).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8) for seed in (0, 1)]
    facts = rehearse(graph, crops, LABELS)
    assert facts["keep"] == []
    assert {row["block"] for row in facts["nodes"]} == {"embedding", "0", "1", "head"}


def test_lists_parse_back(overflowing: dict[str, Any]) -> None:
    texts, keep = configurations(overflowing), overflowing["keep"]
    assert texts["keep_dtype"].splitlines() == keep
    assert json.loads(texts["modify_mixlist"]) == {"black-list": {"to-add": ["Add", "BatchMatMulV2", "Gelu"]}}
    flags = dict(flag.partition("=")[::2] for flag in shlex.split(texts["tensorrt_precisions"]))
    assert flags["--precisionConstraints"] == "obey"
    assert [layer.split(":") for layer in flags["--layerPrecisions"].split(",")] == [[name, "fp32"] for name in keep]


def test_onnx_runtimes_converter_takes_the_list_and_keeps_the_nodes(overflowing: dict[str, Any]) -> None:
    arguments = json.loads(configurations(overflowing)["onnxruntime_fp16"])
    converted = convert_float_to_float16(planted(static(2), 1), **arguments)
    up = {n.output[0] for n in converted.graph.node if n.op_type == "Cast" and n.attribute[0].i == onnx.TensorProto.FLOAT}
    readers = {node.name for node in converted.graph.node if up.intersection(node.input)}
    assert readers == {*arguments["node_block_list"]}
