"""Taps in torch: the hooks give what the blocks compute step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from runs import make_checkpoint, opened

from deit_helpers.errors import SpecError
from deit_helpers.model import checkpoint, taps


def test_hooks_give_what_the_blocks_compute_step_by_step(class_folders: Path, project: Path) -> None:
    make_checkpoint(project / "tiny.pth")
    run = opened(project)
    tensors = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    module = taps.Module(run, "fp32", tensors, project)
    with module.observing(list(module.nodes)) as observe:
        values = observe(0, tensors)
    model, expected = checkpoint.load(run)[0], {}
    with torch.inference_mode():
        x = model._pos_embed(model.patch_embed(torch.from_numpy(tensors)))
        expected["blocks.0.norm1.input"] = x
        for i, block in enumerate(model.blocks):
            steps = {"norm1": (norm1 := block.norm1(x)), "attn": (attn := block.attn(norm1)), "norm2.input": x + attn}
            steps |= {"norm2": (norm2 := block.norm2(x + attn)), "mlp.act": block.mlp.act(block.mlp.fc1(norm2))}
            expected |= {f"blocks.{i}.{name}": value for name, value in steps.items()}
            x = x + attn + block.mlp(norm2)
            expected[f"blocks.{i}"] = x
        expected["logits"] = model.head(model.norm(x)[:, 0])
    assert list(values) == list(expected) == taps.tap_names(2)
    for tap, value in expected.items():
        assert values[tap] == pytest.approx(value.numpy(), rel=1e-3, abs=1e-4), tap


def test_every_tap_says_what_computes_it() -> None:
    assert taps.computed_by("blocks.11") == "mlp.fc2, residual addition"
    assert taps.computed_by("blocks.11.norm2.input") == "residual addition"
    assert all(taps.computed_by(tap) for tap in taps.tap_names(12))
    assert len(taps.tap_names(12)) == 12 * 6 + 2


def test_a_network_built_otherwise_is_one_line(class_folders: Path, project: Path) -> None:
    torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), project / "resnet.pth")
    run = opened(project, model="resnet10t", model_args={}, checkpoint="resnet.pth")
    with pytest.raises(SpecError, match=r"a ResNet has no blocks of norm1, attn, norm2 and mlp\.act: compare onnx"):
        taps.Module(run, "fp32", np.zeros((1, 3, 224, 224), np.float32), project)
