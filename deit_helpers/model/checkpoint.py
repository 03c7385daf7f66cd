"""A timm model with the weights the spec names: official `.pth`, bare state dict, safetensors, hub or demo."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, SpecError
from ..run import hashing
from ..run.folder import Run


def build(run: Run, fused_attention: bool = False) -> Any:
    """The spec's model in evaluation mode with its weights.

    Args:
        fused_attention: faster in torch, but the fused operator needs opset 14 when exported.

    Raises:
        SpecError: timm does not know the model.
        ArtifactError: the checkpoint is missing, damaged, refused or belongs to another model.
    """
    if run.spec.checkpoint == "hub":
        return create(run, fused_attention, pretrained=True)
    state = load_state(run.checkpoint)
    heads = [tensor for name, tensor in state.items() if re.fullmatch(r"head(\.fc)?\.weight", name) and tensor.ndim]
    model = create(run, fused_attention, **({"num_classes": heads[0].shape[0]} if heads else {}))
    _check_keys(run, model.state_dict(), state)
    model.load_state_dict(state)
    return model


def create(run: Run, fused_attention: bool, **options: Any) -> Any:
    """The spec's model in evaluation mode as timm makes it; `options` are timm's, and `model_args` of the spec go before them.

    Raises:
        SpecError: timm does not know the model or an argument.
        ArtifactError: the download of the weights failed.
    """
    import timm
    from timm.layers import set_fused_attn

    set_fused_attn(fused_attention)
    try:
        return timm.create_model(run.spec.model, **{**options, **run.spec.model_args}).eval()
    except (RuntimeError, TypeError, ValueError) as err:
        what = f"{run.spec.model!r} ({' '.join(str(err).split())})"
        raise SpecError(f"model: timm cannot create {what}; names are those of timm.list_models()") from err
    except OSError as err:
        raise ArtifactError(f"checkpoint: hub: the download of {run.spec.model} failed ({err}); give a file instead") from err


def load_state(path: Path) -> dict[str, Any]:
    """Read a state dict: `.safetensors`, or a `.pth` holding it bare or under `model`, as the official files do.

    Eight hex digits at the end of the name are the first digits of the file's sha256 and are checked. Pickles are read
    with `weights_only=True`: one that would run code is refused.

    Raises:
        ArtifactError: missing, damaged, wrong hash, refused, or no state dict.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ArtifactError(f"checkpoint: no such file {path}; give a .pth or .safetensors file, `hub` or `demo`")
    prefix = re.search(r"-([0-9a-f]{8})\.(pth|pt|safetensors)$", path.name)
    if prefix and (start := hashing.sha256(path)[:8]) != prefix[1]:
        raise ArtifactError(f"{path}: its sha256 starts with {start}, its name says {prefix[1]}: get it again, or rename it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on raw pickles
            safe = path.suffix == ".safetensors"
            state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
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


def _check_keys(run: Run, weights: dict[str, Any], state: dict[str, Any]) -> None:
    differences = {
        "missing": weights.keys() - state.keys(),
        "unexpected": state.keys() - weights.keys(),
        "of another shape": {key for key in weights.keys() & state.keys() if weights[key].shape != state[key].shape},
    }
    texts = {kind: f"{kind} {', '.join(sorted(keys)[:3])}{' …' if len(keys) > 3 else ''}" for kind, keys in differences.items()}
    wrong = [f"{texts[kind]} ({len(keys)})" for kind, keys in differences.items() if keys]
    if wrong:
        raise ArtifactError(f"{run.checkpoint}: not a checkpoint of {run.spec.model}: keys {'; '.join(wrong)}; name its model")
