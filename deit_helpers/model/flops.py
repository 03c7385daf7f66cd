"""Floating point operations of a static graph."""

from __future__ import annotations

from math import prod

import onnx


def flops_per_batch(graph: onnx.ModelProto) -> int:
    """Floating point operations of a static graph's matrix products and convolutions, two per multiply-add."""
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True).graph
    shapes = {t.name: tuple(t.dims) for t in inferred.initializer}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    total = 0
    for node in inferred.node:
        if node.op_type == "MatMul":
            total += 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            flipped = any(a.name == "transA" and a.i for a in node.attribute)
            total += 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if flipped else 1]
        elif node.op_type == "Conv":
            total += 2 * prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    return total
