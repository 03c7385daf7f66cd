"""The names of a checkpoint's weights as timm has them: wrappers' prefixes off, Hugging Face's names translated."""

from __future__ import annotations

import itertools
import re
from typing import Any

# transformers: modeling_vit.py, modeling_deit.py, modeling_dinov2.py; what timm's own filters make of DINOv2 follows.
_HUGGING_FACE = (
    (r"^(vit|deit|dinov2|dinov2_with_registers)\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.", ""),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
    (r"^(cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
)


def timm_names(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same weights under timm's names.

    Returns:
        The weights; and the facts `prefix` (taken off every name, such as `module.`) and `names` (whose they were).
    """
    from timm.models import clean_state_dict

    # What the first and the last name in order begin with alike, all do.
    ends = zip(min(state).split(".")[:-1], max(state).split(".")[:-1], strict=False)
    prefix = "".join(f"{part}." for part, _ in itertools.takewhile(lambda parts: parts[0] == parts[1], ends))
    state = clean_state_dict({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    hugging_face = any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in state)
    facts = {"prefix": prefix or None, "names": "Hugging Face" if hugging_face else "timm"}
    return (_from_hugging_face(state) if hugging_face else state), facts


def _from_hugging_face(state: dict[str, Any]) -> dict[str, Any]:
    import torch

    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in _HUGGING_FACE:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    for query in [name for name in renamed if ".attn.query." in name]:  # timm has the three in one matrix, in this order
        names = [query.replace("query", part) for part in ("query", "key", "value")]
        parts = [renamed[name] for name in names if name in renamed]
        if len(parts) == 3 and len({part.shape[1:] for part in parts if part.ndim}) == 1:
            renamed[query.replace("query", "qkv")] = torch.cat(parts)
            renamed = {name: tensor for name, tensor in renamed.items() if name not in names}
    return renamed
