"""Static graphs of random vision transformers, as stage 02 has them after simplifying; made once, do not change them."""

from __future__ import annotations

import functools
import io
import warnings

import numpy as np
import onnx
import onnxruntime
import onnxsim
import timm
import torch
from runs import TINY
from timm.layers import set_fused_attn

from deit_helpers.graph.edits import EDITS
from deit_helpers.graph.graph import Graph, fix_batch, with_shapes
from deit_helpers.run.recipes import RECIPES, PreprocessSpec

RECIPE = RECIPES["deit"]


@functools.cache
def exported(model: str = TINY["model"], opset: int = 11, **arguments: int) -> onnx.ModelProto:
    """The graph of `model` with a symbolic batch, weights spread as those of a trained model."""
    set_fused_attn(False)
    torch.manual_seed(0)
    module = timm.create_model(model, **{"num_classes": 10, **(arguments or TINY["model_args"])}).eval()
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim == 1:  # biases and norms: zeros and ones would hide errors
                weight.add_(0.2 * torch.randn(weight.shape))
            weight.mul_(6.0 if weight.ndim > 1 else 1.0)
    side = module.pretrained_cfg["input_size"][-1]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["image"], "output_names": ["class"]}
        axes = {"image": {0: "batch"}, "class": {0: "batch"}}
        image = torch.zeros(1, 3, side, side)
        torch.onnx.export(module, image, file, dynamo=False, opset_version=opset, dynamic_axes=axes, **names)
    return onnx.load_from_string(file.getvalue())


@functools.cache
def static(batch_size: int = 2, model: str = TINY["model"], opset: int = 11, **arguments: int) -> onnx.ModelProto:
    """`exported` with a fixed batch size, simplified."""
    graph = onnx.ModelProto()
    graph.CopyFrom(exported(model, opset, **arguments))
    simplified, _ = onnxsim.simplify(fix_batch(graph, batch_size), perform_optimization=False)
    return Graph(with_shapes(simplified)).proto()


def edited(graph: onnx.ModelProto, *names: str, recipe: PreprocessSpec = RECIPE) -> onnx.ModelProto:
    """The graph after these edits, in order."""
    for name in names:
        under_edit = Graph(graph)
        EDITS[name].apply(under_edit, recipe)
        graph = under_edit.proto()
    return graph


def infer(graph: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def crops(graph: onnx.ModelProto, seed: int = 0) -> np.ndarray:
    """Random crops (N, H, W, 3) uint8 that fit the float input of a graph."""
    batch, _, height, width = (side.dim_value for side in graph.graph.input[0].type.tensor_type.shape.dim)
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
