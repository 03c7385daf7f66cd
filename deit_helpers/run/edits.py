"""The names of the graph edits, and which of them claim to be the identity. What each does: `graph/edits.py`."""

# known here, so that a wrong name is an error before anything runs
EXACT_EDITS = (
    "fold_scale", "split_qkv", "merge_transpose", "softmax_axis", "pad_tokens", "pad_outside_attention", "uint8_input",
    "class_token_only",
)  # fmt: skip
INEXACT_EDITS = ("pad_tokens_unmasked",)  # need allow_inexact
