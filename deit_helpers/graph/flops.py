"""Floating point operations of a static graph."""

from __future__ import annotations

from math import prod

import onnx


def flops_per_batch(graph: onnx.ModelProto) -> int | None:
    """Floating point operations of a static graph's matrix products and convolutions, two per multiply-add.

    None where their shapes cannot be inferred, as in a graph that was not simplified.
    """
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True).graph
    shapes = {t.name: tuple(t.dims) for t in inferred.initializer}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    total = 0
    for node in inferred.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        left, right, out = (shapes.get(name, ()) for name in (*node.input[:2], node.output[0]))
        if not all(shape and all(shape) for shape in (left, right, out)):
            return None
        if node.op_type == "Conv":
            total += 2 * prod(out) * prod(right[1:])
        else:  # what is summed over is the left factor's last axis, but for a transposed one
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += 2 * prod(out) * left[0 if transposed else -1]
    return total
