"""What a rung of the waterfall may be called, and where it may stand."""

from __future__ import annotations

from .edits import EXACT_EDITS, INEXACT_EDITS
from .recipes import BGR, CHANGES, RECIPES

IMAGES = (*RECIPES, *CHANGES, BGR)
MODELS = ("torch", "onnx", "simplified")  # the module, the exported graph, that of a fixed batch size
EDITS = (*EXACT_EDITS, *INEXACT_EDITS)  # an inexact one needs no leave here: nothing of it goes to a device
PRECISIONS = ("fp16", "bf16")
DEVICE = "device"
NAMES = (*IMAGES, *MODELS, *EDITS, *PRECISIONS, DEVICE)
_ORDER = {**{name: i for i, name in enumerate(MODELS)}, **dict.fromkeys(EDITS, 3), "class_token_only": 4}


def checked(names: tuple[str, ...]) -> tuple[str, ...]:
    """The rungs of a waterfall as they are given. Raises ValueError: what is allowed, for the error of a spec."""
    if len(set(names)) != len(names):
        raise ValueError("every rung at most once; `bicubic` leads back from `bilinear`")
    places = [_ORDER[name] for name in names if name in _ORDER]
    if places != sorted(places) or "torch" in names[1:] or DEVICE in names[:-1]:
        raise ValueError("torch first, then onnx, simplified, edits with class_token_only behind the others; device last")
    return names
