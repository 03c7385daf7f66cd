"""A graph under edit: what the edits need on top of onnx-ir's values and nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from ..errors import GraphError


class Graph:
    """An ONNX graph whose shapes were inferred (`with_shapes`), to be edited in place."""

    def __init__(self, proto: onnx.ModelProto):
        self.model = ir.from_proto(proto)
        self.graph = self.model.graph
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(self.model)
        if "" not in self.graph.opset_imports:
            raise GraphError("the file holds no ONNX graph: it names no opset")
        self.opset = self.graph.opset_imports[""]

    def proto(self) -> onnx.ModelProto:
        """The graph as ONNX: sorted, without what nobody uses, with inferred shapes, checked.

        Raises GraphError: an edit left shapes that contradict each other.
        """
        for pass_ in (
            passes.TopologicalSortPass(),
            passes.RemoveUnusedNodesPass(),
            passes.DeduplicateInitializersPass(size_limit=1 << 20),
            passes.NameFixPass(),
        ):
            pass_(self.model)
        for node in self.graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = None
        proto = with_shapes(ir.to_proto(self.model))
        try:
            onnx.checker.check_model(proto)
        except onnx.checker.ValidationError as err:
            raise GraphError(f"the graph is not valid ONNX: {str(err).strip().splitlines()[0]}") from err
        return proto

    def nodes(self, *op_types: str) -> Iterator[ir.Node]:
        """The nodes of these types, or all, in topological order; a copy, so that the graph may be changed meanwhile."""
        return iter([node for node in self.graph if node.op_type in op_types or not op_types])

    def below(self, *values: ir.Value, cuts: Collection[ir.Value] = ()) -> Iterator[ir.Node]:
        """The nodes that depend on these values, in topological order; a node that makes one of `cuts` is passed over."""
        dependent = set(values)
        for node in self.nodes():
            if dependent.intersection(node.inputs) and node.outputs[0] not in cuts:
                dependent.update(node.outputs)
                yield node

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A new initializer; a number is added to a name that is taken."""
        unique, number = name, 1
        while unique in self.graph.initializers:
            number += 1
            unique = f"{name}_{number}"
        value = ir.Value(name=unique, const_value=ir.tensor(array, name=unique))
        value.shape, value.dtype = ir.Shape(array.shape), value.const_value.dtype
        self.graph.register_initializer(value)
        return value

    def add(self, op_type: str, inputs: list[ir.Value], name: str, outputs: int = 1, **attributes: Any) -> ir.Value:
        """Add a node and return its first output; `name` becomes the name of the node and of its outputs."""
        node = ir.node(op_type, inputs, attributes or None, num_outputs=outputs, name=name)
        for number, value in enumerate(node.outputs):
            value.name = f"{name}_output_{number}"
        self.graph.append(node)
        return node.outputs[0]

    def squeeze(self, value: ir.Value, axis: int, name: str) -> ir.Value:
        """Remove a dimension of size 1; from opset 13 on the axes are an input."""
        if self.opset < 13:
            return self.add("Squeeze", [value], name, axes=[axis])
        return self.add("Squeeze", [value, self.constant(f"{name}_axes", np.array([axis]))], name)

    def slice(self, value: ir.Value, stop: int, axis: int, name: str) -> ir.Value:
        """The first `stop` entries along an axis."""
        bounds = [self.constant(f"slice_{key}_{at}", np.array([at])) for key, at in (("from", 0), ("to", stop), ("axis", axis))]
        return self.add("Slice", [value, *bounds], name)

    def transpose(self, value: ir.Value, perm: list[int], name: str) -> ir.Value:
        return self.add("Transpose", [value], name, perm=perm)


def is_static(value: ir.Value) -> bool:
    return value.shape is not None and all(isinstance(side, int) for side in value.shape)


def shape(value: ir.Value) -> tuple[int, ...]:
    """The static shape of a value. Raises GraphError: the shape is unknown or symbolic."""
    if not is_static(value):
        raise GraphError(f"{value.name} has no static shape ({value.shape}): fix the batch size and simplify the graph first")
    return tuple(int(d) for d in value.shape)


def rank(value: ir.Value) -> int:
    return len(shape(value))


def axis_of(node: ir.Node, default: int = -1) -> int:
    """The `axis` attribute, counted from the front."""
    return node.attributes.get_int("axis", default) % rank(node.inputs[0])


def perm_of(node: ir.Node) -> list[int]:
    """The permutation of a Transpose; without the attribute it reverses the axes."""
    return list(node.attributes.get_ints("perm") or range(rank(node.inputs[0]))[::-1])


def is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def array(value: ir.Value) -> np.ndarray:
    """The array behind a constant. Raises GraphError: the value is computed."""
    if not is_constant(value):
        raise GraphError(f"{value.name} is computed, an edit expected a constant there: leave the edit out")
    return value.const_value.numpy()


def activations(node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that are computed."""
    return [value for value in node.inputs if value is not None and not is_constant(value)]


def scale_factor(node: ir.Node | None) -> tuple[float, ir.Value] | None:
    """Factor and other operand of a multiplication with (or division by) a constant scalar, else None."""
    if node is None or node.op_type not in ("Mul", "Div"):
        return None
    orders = [node.inputs[::-1], node.inputs] if node.op_type == "Mul" else [node.inputs[::-1]]  # 2 / x is no scale of x
    for factor, operand in orders:
        if is_constant(factor) and array(factor).size == 1:
            by = float(array(factor).item())
            return (by, operand) if node.op_type == "Mul" else (1 / by, operand)
    return None


def fix_batch(graph: onnx.ModelProto, batch_size: int) -> onnx.ModelProto:
    """Set the first dimension of every graph input and output, in place."""
    for value in [*graph.graph.input, *graph.graph.output]:
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = batch_size
    return graph


def with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the shape of every value, by strict inference. Raises GraphError: the shapes contradict each other."""
    try:
        return onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as err:
        raise GraphError(f"the graph's shapes contradict each other: {str(err).strip().splitlines()[-1]}") from err
