"""Graphs that compute as fp16 and bf16: against numpy, element by element, and against a forward pass written here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import exported, infer, static
from onnx import helper, numpy_helper
from runs import TINY
from scipy.special import erf

from deit_helpers.precision.rounding import Precision, rounded, rounded_throughout, switchable

NUMPY = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
IMAGES = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
CAST = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}


def low(values: np.ndarray, precision: Precision) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, np.float32).astype(NUMPY[precision]).astype(np.float32)


def graph(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int], opset: int = 11) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("image", "y")]
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "small", ends[:1], ends[1:], initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)


def two_layers(width: int = 8) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """y = relu(image · a + b) · c, of integers but for `a`, so that no order of summing matters."""
    rng = np.random.default_rng(1)
    weights = {name: rng.integers(-8, 9, size).astype(np.float32) for name, size in (("a", (width, width)), ("b", width))}
    weights |= {"c": rng.integers(-8, 9, (width, width)).astype(np.float32) + np.float32(2**-12)}
    operators = [("MatMul", "image", "a"), ("Add", "m", "b"), ("Relu", "s"), ("MatMul", "r", "c")]
    nodes = [
        helper.make_node(op_type, list(operands), [result], name=f"node {result}")
        for (op_type, *operands), result in zip(operators, "msry", strict=True)
    ]
    return graph(nodes, weights, [4, width]), weights


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_and_every_result_are_rounded_and_sums_are_not(precision: Precision) -> None:
    proto, weights = two_layers()
    x = np.random.default_rng(2).integers(-500, 501, (4, 8)).astype(np.float32) + np.float32(0.125)
    a, b, c = (low(weights[name], precision) for name in "abc")
    hidden = low(np.maximum(low(low(low(x, precision) @ a, precision) + b, precision), 0), precision)
    exact = np.maximum(x @ weights["a"] + weights["b"], 0) @ weights["c"]
    answer = infer(rounded(proto, precision), x)
    np.testing.assert_array_equal(answer, low(hidden @ c, precision))
    assert abs(answer - exact).max() > 1  # the roundings show in this test


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_every_float_is_rounded_to_nearest_even(precision: Precision) -> None:
    bits = np.random.default_rng(3).integers(0, 2**32, 2**14, dtype=np.uint32)
    values = bits.view(np.float32)
    ties = (np.arange(2**14, dtype=np.uint32) << 16 | 0x8000).view(np.float32)  # half way between two of bf16
    halves = np.arange(2**14, dtype=np.float32) * np.float32(2**-25)  # half way between two subnormal ones of fp16
    x = np.concatenate([values[np.isfinite(values)], ties, halves, [65504, 65519.996, 65520, -65520]]).astype(np.float32)[None]
    proto = graph([helper.make_node("Abs", ["image"], ["y"], name="abs")], {}, list(x.shape))
    np.testing.assert_array_equal(infer(rounded(proto, precision), x), np.abs(low(x, precision)))


def test_beyond_the_largest_number_lies_infinity_or_the_largest_number() -> None:
    proto = graph([helper.make_node("Mul", ["image", "w"], ["y"], name="twice")], {"w": np.array(2.0)}, [1, 3])
    x = np.array([[40000, -40000, 20000]], np.float32)
    assert infer(rounded(proto, "fp16"), x).tolist() == [[np.inf, -np.inf, 40000]]
    assert infer(rounded(proto, "fp16", saturate=True), x).tolist() == [[65504, -65504, 40000]]
    assert infer(rounded(proto, "bf16"), x)[0, 0] == pytest.approx(80000, rel=2**-8)


def test_between_kept_nodes_nothing_is_rounded() -> None:
    proto, weights = two_layers()
    x = np.random.default_rng(4).uniform(-500, 500, (4, 8)).astype(np.float32)
    every = {node.name for node in proto.graph.node}
    np.testing.assert_array_equal(infer(rounded(proto, "fp16", keep=every), x), infer(proto, x))
    hidden = low(np.maximum(low(x @ weights["a"] + weights["b"], "fp16"), 0), "fp16")
    answer = infer(rounded(proto, "fp16", keep={"node m", "node s"}), x)
    np.testing.assert_allclose(answer, low(hidden @ low(weights["c"], "fp16"), "fp16"), rtol=1e-3)
    assert not np.array_equal(infer(rounded(proto, "fp16", keep={"node m"}), x), answer)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("opset", [11, 17])
def test_onnx_runtime_removes_no_cast_at_its_default_level(precision: Precision, opset: int, tmp_path: Path) -> None:
    proto = rounded(static(2, opset=opset), precision)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    counts = [casts(proto), casts(onnx.load(tmp_path / "optimized.onnx"))]
    assert counts[0] == counts[1]
    assert counts[0][CAST[precision]] == counts[0][onnx.TensorProto.FLOAT] > 30


def casts(proto: onnx.ModelProto) -> Counter[int]:
    return Counter(node.attribute[0].i for node in proto.graph.node if node.op_type == "Cast")


@pytest.mark.parametrize("opset", [9, 11, 17])
def test_input_and_output_keep_their_names_and_types(opset: int) -> None:
    before, after = (list(proto.graph.output) for proto in (static(2, opset=opset), rounded(static(2, opset=opset), "bf16")))
    assert [(v.name, v.type.tensor_type.elem_type) for v in before] == [(v.name, v.type.tensor_type.elem_type) for v in after]
    assert rounded(static(2, opset=opset), "bf16").graph.input[0].name == "image"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("opset", [11, 17])
def test_a_vision_transformer_computes_as_a_forward_pass_with_these_roundings(precision: Precision, opset: int) -> None:
    # Of one block: a sum in another order rounds to the neighbour now and then, and from block to block this spreads.
    proto = static(2, opset=opset, **{**TINY["model_args"], "depth": 1})
    answer, exact = infer(rounded(proto, precision), IMAGES), infer(proto, IMAGES)
    expected = forward(proto, IMAGES, lambda values: low(values, precision))
    assert abs(answer - expected).max() < abs(exact - answer).max() / 4
    np.testing.assert_allclose(forward(proto, IMAGES, np.asarray), exact, atol=1e-4)


def test_a_graph_with_a_symbolic_batch_is_rounded_alike() -> None:
    static_answer, answer = (infer(rounded(proto, "fp16"), IMAGES) for proto in (static(2), exported()))
    np.testing.assert_allclose(answer, static_answer, atol=2e-3)


def forward(proto: onnx.ModelProto, x: np.ndarray, low: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The tiny ViT in numpy, `low` after every operator and on every weight."""
    weights = {tensor.name: low(numpy_helper.to_array(tensor)) for tensor in proto.graph.initializer}
    matrices = iter([weights[name] for name in sorted(weights) if name.startswith("onnx::MatMul")])
    batch, width, heads = len(x), 48, 3

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return low(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return low(low(x @ next(matrices)) + weights[f"{name}.bias"])

    patches = low(x).reshape(batch, 3, 14, 16, 14, 16).transpose(0, 2, 4, 1, 3, 5).reshape(batch, 196, -1)
    kernel = weights["patch_embed.proj.weight"].reshape(width, -1)
    patches = low(patches @ kernel.T + weights["patch_embed.proj.bias"])
    token = next(array for name, array in weights.items() if array.shape == (batch, 1, width))
    x = low(np.concatenate([token, patches], 1) + weights["pos_embed"])
    for block in range(sum(name.endswith("qkv.bias") for name in weights)):
        name = f"blocks.{block}"
        qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").reshape(batch, 197, 3, heads, 16).transpose(2, 0, 3, 1, 4)
        scores = low(low(qkv[0] * np.float32(0.25)) @ qkv[1].swapaxes(-1, -2))
        e = np.exp(scores - scores.max(-1, keepdims=True))
        context = low(low(e / e.sum(-1, keepdims=True)) @ qkv[2]).transpose(0, 2, 1, 3).reshape(batch, 197, width)
        x = low(x + linear(context, f"{name}.attn.proj"))
        hidden = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        x = low(x + linear(low(hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))), f"{name}.mlp.fc2"))
    return low(norm(x, "norm")[:, 0] @ weights["head.weight"].T + weights["head.bias"])


def test_throughout_a_sum_is_rounded_after_every_block_of_16() -> None:
    rng = np.random.default_rng(5)
    weight, x = rng.standard_normal((40, 6)).astype(np.float32), rng.standard_normal((4, 40)).astype(np.float32)
    proto = graph([helper.make_node("MatMul", ["image", "w"], ["y"], name="product")], {"w": weight}, [4, 6])
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 40
    total = np.zeros((4, 6), np.float32)
    for start in (0, 16, 32):
        block = low(x, "fp16")[:, start : start + 16] @ low(weight, "fp16")[start : start + 16]
        total = low(total + block, "fp16")
    answer = infer(rounded_throughout(proto), x)
    np.testing.assert_array_equal(answer, total)
    assert not np.array_equal(answer, infer(rounded(proto, "fp16"), x))


def test_throughout_the_squares_of_a_layer_norm_overflow() -> None:
    loud = edited_weights(static(2), {"pos_embed": 3000.0})
    exact, graphs = infer(loud, IMAGES), (rounded(loud, "fp16"), rounded_throughout(loud))
    errors = [abs(infer(graph, IMAGES) - exact).max() for graph in graphs]
    assert errors[0] < 0.05 < 0.2 < errors[1]  # a value over an infinite deviation is 0


@pytest.mark.parametrize("opset", [11, 17])
def test_throughout_a_vision_transformer_answers_alike(opset: int) -> None:
    proto = static(2, opset=opset)
    exact, answer = infer(proto, IMAGES), infer(rounded_throughout(proto), IMAGES)
    assert not np.array_equal(answer, infer(rounded(proto, "fp16"), IMAGES))
    assert 0 < abs(answer - exact).max() < 0.02


def edited_weights(proto: onnx.ModelProto, factors: dict[str, float]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name in factors:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factors[tensor.name]), tensor.name)
            )
    return copy


def test_a_part_is_rounded_where_its_switch_says_so() -> None:
    proto, _ = two_layers()
    x = np.random.default_rng(6).uniform(-500, 500, (4, 8)).astype(np.float32)
    parts = {"node m": "first", "node s": "first", "node r": "second", "node y": "second"}
    session = onnxruntime.InferenceSession(
        switchable(proto, "fp16", parts).SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def answer(*on: str) -> np.ndarray:
        return session.run(None, {"image": x, **{part: np.array(part in on) for part in ("first", "second")}})[0]

    np.testing.assert_array_equal(answer(), infer(proto, x))
    np.testing.assert_array_equal(answer("first", "second"), infer(rounded(proto, "fp16"), x))
    assert not any(
        np.array_equal(answer(part), answer(*other)) for part in parts.values() for other in ((), ("first", "second"))
    )
