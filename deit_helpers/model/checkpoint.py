"""A timm model with the weights the spec names: a file of any training script, Hugging Face's, hub or demo."""

from __future__ import annotations

import contextlib
import difflib
from typing import Any

from ..errors import ArtifactError, SpecError, one_line
from ..run.folder import Run
from . import checkpoint_files, names

# What timm raises where a model's arguments or a checkpoint's tensors are not what it takes for granted.
_TIMM_ERRORS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, NotImplementedError)
_WIDTHS = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}  # as timm's names say them


def load(run: Run, fused_attention: bool = False) -> tuple[Any, dict[str, Any]]:
    """The spec's model in evaluation mode with its weights, and what was done to them on the way.

    Args:
        fused_attention: faster in torch, but the fused operator needs opset 14 when exported.

    Returns:
        The model; and facts: those of `checkpoint_files.read` and `names.timm_names`, `renamed` (how many names the model's
        own filter changed), `reshaped` (name, from, to), `dtype`. No facts of weights from the hub.

    Raises:
        SpecError: timm does not know the model.
        ArtifactError: the checkpoint is missing, damaged, refused or belongs to another model.
    """
    if run.spec.checkpoint == "hub":
        return create(run, fused_attention, pretrained=True), {}
    state, facts = checkpoint_files.read(run.checkpoint, bool(run.spec.ema))
    state, naming = names.timm_names(state)
    options = _classes(run.spec.model, state) | run.spec.model_args
    try:
        model = _with_weights(run.spec.model, state, options, fused_attention)
    except (*_TIMM_ERRORS, OSError) as err:
        raise _mismatch(run, state, options, err) from err
    return model, facts | naming | _changes(run, state, model.state_dict(), options)


def _changes(run: Run, state: dict[str, Any], weights: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What loading made of the weights. Raises ArtifactError for what timm does without a word, and nobody meant."""
    reshaped, kinds = [], set()
    for name, tensor in state.items():
        kinds |= {str(tensor.dtype).removeprefix("torch.")} if tensor.is_floating_point() else set()
        if name not in weights:
            continue
        if weights[name].is_floating_point() and not tensor.is_floating_point():
            what = f"weight {name} is {tensor.dtype}, quantised"
            raise ArtifactError(f"{run.checkpoint}: {what}: give the floating-point weights")
        if weights[name].shape != tensor.shape:
            reshaped.append({"name": name, "from": list(tensor.shape), "to": list(weights[name].shape)})
            if "pos" not in name and weights[name].numel() != tensor.numel():  # timm resamples patches' kernels, too
                raise _mismatch(run, state, options, ValueError(name))
    return {"renamed": len(state.keys() - weights.keys()), "reshaped": reshaped, "dtype": ", ".join(sorted(kinds))}


def create(run: Run, fused_attention: bool, **options: Any) -> Any:
    """The spec's model in evaluation mode as timm makes it; `options` are timm's, and `model_args` of the spec go before them.

    Raises:
        SpecError: timm does not know the model or an argument.
        ArtifactError: the download of the weights failed.
    """
    try:
        return _create(run.spec.model, fused_attention, **{**options, **run.spec.model_args})
    except OSError as err:
        key = "checkpoint: hub" if run.spec.checkpoint == "hub" else "model"
        what = f"the download of {one_line(run.spec.model, 60)} failed ({one_line(err)})"
        raise ArtifactError(f"{key}: {what}; give a file instead") from err
    except _TIMM_ERRORS as err:
        what = f"{one_line(run.spec.model, 60)!r} ({one_line(err)})"
        raise SpecError(f"model: timm cannot create {what}; names are those of timm.list_models()") from err


def _create(name: str, fused_attention: bool, **options: Any) -> Any:
    import timm
    from timm.layers import set_fused_attn

    set_fused_attn(fused_attention)
    return timm.create_model(name, **options).eval()


def _classes(model: str, state: dict[str, Any]) -> dict[str, int]:
    """How many classes the head has, by the name that timm gives the model's classifier; empty where there is no head."""
    import timm

    known = None
    with contextlib.suppress(RuntimeError):  # an unknown model or tag: making it says so
        known = timm.get_pretrained_cfg(model)
    classifier = getattr(known, "classifier", None) or "head"
    weight = state.get(f"{classifier if isinstance(classifier, str) else classifier[0]}.weight")
    return {"num_classes": weight.shape[0]} if weight is not None and weight.ndim and len(weight) else {}


def _with_weights(name: str, state: dict[str, Any], options: dict[str, Any], fused_attention: bool = False) -> Any:
    """The model with these weights, all of them, after timm's own filter of this model: it renames, and resamples positions."""
    import torch

    class Uncopied(torch.Tensor):  # type: ignore[misc]  # timm copies a configuration with all in it: 88 MB for DeiT-small
        __torch_function__ = torch._C._disabled_torch_function_impl  # results are plain tensors, as those of a Parameter

        def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
            return self

    # The classes of the weights are the model's: timm would otherwise leave the head as it was initialised.
    classes = {"num_classes": options["num_classes"]} if "num_classes" in options else {}
    weights = {key: tensor.as_subclass(Uncopied) for key, tensor in state.items()}
    overlay = {"state_dict": weights, "custom_load": False, "label_offset": 0, **classes}
    model = _create(name, fused_attention, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    model.pretrained_cfg.pop("state_dict", None)  # a second copy of the weights
    return model


def _mismatch(run: Run, state: dict[str, Any], options: dict[str, Any], err: Exception) -> Exception:
    """Why the weights are not those of the spec's model, and of which they are.

    Raises:
        SpecError: it is the model that cannot be made.
    """
    import torch

    with torch.device("meta"):
        model = create(run, False, **options)
    weights = model.state_dict()
    differences = {
        "missing": weights.keys() - state.keys(),
        "unexpected": state.keys() - weights.keys(),
        "of another shape": {key for key in weights.keys() & state.keys() if weights[key].shape != state[key].shape},
    }
    texts = {kind: f"{kind} {', '.join(one_line(key, 40) for key in sorted(keys)[:2])}{' …' if len(keys) > 2 else ''}"
             for kind, keys in differences.items()}  # fmt: skip
    wrong = "; ".join(f"{texts[kind]} ({len(keys)})" for kind, keys in differences.items() if keys)
    head = {f"{name}.{part}" for name, part in (("head", "weight"), ("head", "bias"), ("head_dist", "weight"))}
    if differences["missing"] and differences["missing"] <= head and not differences["unexpected"]:
        advice = "it has no classifier: give a checkpoint with its head"
    elif fitting := _fitting(run.spec.model, state):
        advice = f"it fits model: {' or '.join(fitting)}"
    else:
        advice = "correct model or model_args, or give its checkpoint"
    wrong = f"keys {wrong}" if wrong else one_line(err)
    return ArtifactError(f"{run.checkpoint}: not a checkpoint of {one_line(run.spec.model, 60)}: {wrong}; {advice}")


def _fitting(model: str, state: dict[str, Any]) -> list[str]:
    """Up to two models, the nearest names first, that take these weights as they are; of DeiT's and ViT's common sizes."""
    import timm
    import torch

    patch = state.get("patch_embed.proj.weight")
    if patch is None or patch.ndim != 4 or len(patch) not in _WIDTHS:
        return []
    known = [*timm.list_models(module="deit"), *timm.list_models(module="vision_transformer")]
    sized = [name for name in known if _WIDTHS[len(patch)] in name and f"patch{patch.shape[-1]}_" in name]
    shapes = {name: tensor.to("meta") for name, tensor in state.items()}
    fitting: list[str] = []
    for name in sorted(sized, key=lambda name: -difflib.SequenceMatcher(None, name, model).ratio()):
        try:
            with torch.device("meta"):
                weights = _with_weights(name, shapes, _classes(name, state)).state_dict()
        except _TIMM_ERRORS:
            continue
        if all(weights[key].numel() == tensor.numel() for key, tensor in state.items() if key in weights):
            fitting.append(name)
        if len(fitting) == 2:
            break
    return fitting
