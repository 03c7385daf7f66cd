"""A timm model with the weights the spec names: official `.pth`, bare state dict, safetensors, hub or demo."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from . import accuracy, artifacts, demo, freshness, hashing, images, labels
from .artifacts import Run
from .errors import ArtifactError, SpecError

_BATCH = 8  # images per forward pass when features are computed


def build(run: Run, fused_attention: bool = False) -> Any:
    """The spec's model in evaluation mode with its weights.

    Args:
        fused_attention: faster in torch, but the fused operator needs opset 14 when exported.

    Raises:
        SpecError: timm does not know the model.
        ArtifactError: the checkpoint is missing, damaged, refused or belongs to another model.
    """
    if run.spec.checkpoint == "hub":
        return _create(run, fused_attention, pretrained=True)
    state = load_state(run.checkpoint)
    heads = [tensor for name, tensor in state.items() if re.fullmatch(r"head(\.fc)?\.weight", name) and tensor.ndim]
    model = _create(run, fused_attention, **({"num_classes": heads[0].shape[0]} if heads else {}))
    _check_keys(run, model.state_dict(), state)
    model.load_state_dict(state)
    return model


def load_state(path: Path) -> dict[str, Any]:
    """Read a state dict: `.safetensors`, or a `.pth` holding it bare or under `model`, as the official files do.

    Eight hex digits at the end of the name are the first digits of the file's sha256 and are checked. Pickles are read
    with `weights_only=True`: one that would run code is refused.

    Raises:
        ArtifactError: missing, damaged, wrong hash, refused, or no state dict.
    """
    import torch
    from safetensors import SafetensorError

    if not path.is_file():
        raise ArtifactError(f"checkpoint: no such file {path}; give a .pth or .safetensors file, `hub` or `demo`")
    prefix = re.search(r"-([0-9a-f]{8})\.(pth|pt|safetensors)$", path.name)
    if prefix and not hashing.sha256(path).startswith(prefix[1]):
        found = hashing.sha256(path)[:8]
        raise ArtifactError(f"{path}: its sha256 starts with {found}, its name says {prefix[1]}: get it again, or rename it")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's advice on raw pickles
                state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        advice = "use the official file, or safetensors"
        raise ArtifactError(f"{path}: refused, reading it would run code or build more than tensors; {advice}") from err
    except (SafetensorError, RuntimeError, EOFError, OSError, KeyError, ValueError, AttributeError, TypeError) as err:
        reason = f"{type(err).__name__}: {' '.join(str(err).split())[:120]}"
        raise ArtifactError(f"{path}: cannot be read as a checkpoint ({reason}); download it again") from err
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    named = isinstance(state, dict) and state and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ArtifactError(f"{path}: holds no state dict (names to tensors), bare or under `model`; use the official file")
    sick = next((name for name, tensor in state.items() if not torch.isfinite(tensor).all()), None)
    if sick:
        raise ArtifactError(f"{path}: weight {sick} holds NaN or infinity; use a sound checkpoint")
    return state


def ensure_demo(run: Run) -> None:
    """Make the demo's checkpoint, in the format of the official files, and its PyTorch fp32 figures.

    Raises:
        SpecError: the demo's weights with other images than the demo's.
    """
    if run.spec.images != "demo":
        raise SpecError(f"checkpoint: the demo's head knows its own digits only, not {run.spec.images!r}: set images: demo")
    labels.source_folder(run)
    freshness.ensure(run, "demo", lambda: _fit_demo(run))


def _fit_demo(run: Run) -> None:
    import torch

    recipe = run.spec.recipe
    model = _create(run, fused_attention=True, num_classes=demo.CLASSES)
    seed_backbone(model)
    pictures, targets = demo.training_images()
    held_out = labels.list_images(run)
    crops = np.stack(
        [images.crop(picture, recipe) for picture in pictures]
        + [images.crop(images.decode(item.path), recipe) for item in held_out]
    )
    features = []
    with torch.inference_mode(), images.progress(len(crops)) as bar:
        for start in range(0, len(crops), _BATCH):
            x = torch.from_numpy(images.tensors(crops[start : start + _BATCH], recipe))
            features.append(model.forward_head(model.forward_features(x), pre_logits=True).numpy())
            bar.update(len(x))
    trained, unseen = np.split(np.concatenate(features), [len(pictures)])
    weight, bias = demo.fit_head(trained, targets)
    with torch.inference_mode():
        head = model.get_classifier()
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
        logits = head(torch.from_numpy(unseen)).numpy()
    # An open file, not a path: torch writes a path's name into the archive, and two runs would differ by it.
    with artifacts.atomic(run.file("demo_checkpoint")) as temporary, temporary.open("wb") as file:
        torch.save({"model": model.state_dict()}, file)
    ranks = accuracy.label_ranks(logits, np.array([item.label for item in held_out]))
    top1, top5 = (accuracy.percent_within(ranks, k) for k in (1, 5))
    figures = {"images": len(held_out), "top1_percent": top1, "top5_percent": top5, "training_images": len(pictures)}
    artifacts.write_json(run.file("demo"), figures)


def seed_backbone(model: Any) -> None:
    """Give a timm vision transformer seeded weights whose random features tell digits apart.

    timm's initialisation (std 0.02) leaves the residual stream nearly constant; scaling attention by 3, MLP and patch
    embedding by 2 and drawing position embeddings with std 1 makes the class token depend on what is where.
    """
    import torch

    generator = torch.Generator().manual_seed(demo.SEED)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("head"):
                continue
            scale = 3.0 if ".attn." in name else 2.0
            std = 1.0 if name == "pos_embed" else 0.02 * scale
            # Biases and norms too: left at 0 and 1 they would vanish from the graph, and trained ones do not.
            mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            weight.copy_(mean + torch.randn(weight.shape, generator=generator) * std)


def _create(run: Run, fused_attention: bool, **options: Any) -> Any:
    import timm
    from timm.layers import set_fused_attn

    set_fused_attn(fused_attention)
    try:
        model = timm.create_model(run.spec.model, **{**options, **run.spec.model_args})
    except (RuntimeError, TypeError, ValueError) as err:
        reason = " ".join(str(err).split())
        raise SpecError(
            f"model: timm cannot create {run.spec.model!r} ({reason}); names are those of timm.list_models()"
        ) from err
    except OSError as err:
        raise ArtifactError(f"checkpoint: hub: the download of {run.spec.model} failed ({err}); give a file instead") from err
    return model.eval()


def _check_keys(run: Run, wanted: dict[str, Any], given: dict[str, Any]) -> None:
    wrong = [
        f"{kind} {', '.join(names[:3])}{' …' if len(names) > 3 else ''} ({len(names)})"
        for kind, names in (
            ("missing", sorted(wanted.keys() - given.keys())),
            ("unexpected", sorted(given.keys() - wanted.keys())),
            ("of another shape", sorted(k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape)),
        )
        if names
    ]
    if wrong:
        raise ArtifactError(f"{run.checkpoint}: not a checkpoint of {run.spec.model}: keys {'; '.join(wrong)}; name its model")
