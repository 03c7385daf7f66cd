"""Specs: what is accepted, and what a user reads when something is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from runs import REPOSITORY, write_spec

from deit_helpers.errors import SpecError
from deit_helpers.run import spec
from deit_helpers.run.spec import RunSpec


def message(path: Path, **overrides: Any) -> str:
    """The one line of the SpecError that loading `path` raises."""
    with pytest.raises(SpecError) as caught:
        RunSpec.load(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["demo", "imagenet"])
def test_shipped_specs_are_valid(name: str) -> None:
    assert RunSpec.load(REPOSITORY / "params" / f"{name}.yaml").run == name


def test_defaults_are_those_of_the_documented_table(project: Path) -> None:
    path = project / "least.yaml"
    path.write_text("{run: least, model: vit_tiny_patch16_224, checkpoint: hub, images: pictures}")
    defaults = RunSpec.load(path)
    assert (defaults.preprocess, defaults.opset, defaults.edits, defaults.batch_sizes) == ("deit", 11, (), (1, 8, 32))
    assert (defaults.backend, defaults.precision, defaults.device) == ("onnxruntime", "fp32", 0)
    assert (defaults.labels, defaults.limit, defaults.soc_version, defaults.expected) == (None, None, None, None)


def test_overrides_replace_the_keys_of_the_file(project: Path) -> None:
    assert RunSpec.load(write_spec(project), {"limit": 3, "preprocess": "timm"}).limit == 3


def test_a_spec_written_out_and_read_again_is_the_same(project: Path) -> None:
    path = write_spec(project, edits=["fold_scale"], labels="größe.txt", limit=5)
    once = RunSpec.load(path)
    path.write_text(once.to_yaml(), encoding="utf-8")
    assert RunSpec.load(path) == once


def test_a_spec_cannot_be_changed_after_it_was_read(project: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunSpec.load(write_spec(project)).limit = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("batchsizes", [1], ["unknown key 'batchsizes'", "did you mean 'batch_sizes'?"]),
        ("on_bad_images", "skip", ["did you mean 'on_bad_image'?"]),
        ("zzz", 1, ["unknown key 'zzz'", "known keys: aipp, allow_inexact, atc"]),
        ("limit", "ten", ["'limit'", "integer", "'ten'"]),
        ("limit", 0, ["'limit'", "greater than or equal to 1", "got 0"]),
        ("run", 2024, ["'run'", "string", "2024"]),
        ("run", "../outside", ["'run'", "text that matches", "'../outside'"]),
        ("labels", 3, ["'labels'", "string", "got 3"]),
        ("bins", "yes", ["'bins'", "boolean", "'yes'"]),
        ("opset", 99, ["'opset'", "18", "99"]),
        ("device", -1, ["'device'", "0", "-1"]),
        ("preprocess", "dei", ["'preprocess'", "one of deit, timm, modelzoo", "did you mean 'deit'?", "'dei'"]),
        ("preprocess", 5, ["'preprocess'", "the name of a recipe, or a mapping", "got 5"]),
        ("backend", "onnx", ["'backend'", "onnxruntime", "'onnx'"]),
        ("on_bad_image", "ignore", ["'on_bad_image'", "'stop' or 'skip'"]),
        ("edits", "fold", ["'edits'", "list", "'fold'"]),
        ("edits", ["pad_token"], ["'edits.0'", "fold_scale, split_qkv", "did you mean 'pad_tokens'", "got 'pad_token'"]),
        ("edits", ["fold_scale", "fold_scale"], ["'edits'", "every edit at most once"]),
        ("edits", ["class_token_only", "split_qkv"], ["'edits'", "'class_token_only' last"]),
        ("edits", ["pad_tokens_unmasked"], ["'pad_tokens_unmasked'", "changes what the model computes", "allow_inexact: true"]),
        ("edits", ["softmax_axis"], ["'softmax_axis' at opset 11", "opset: 13 or newer"]),
        ("waterfall", ["biliner"], ["'waterfall.0'", "one of deit, timm", "did you mean 'bilinear'?", "got 'biliner'"]),
        ("waterfall", ["fp61"], ["did you mean 'fp16'?"]),
        ("waterfall", "timm", ["'waterfall'", "list", "got 'timm'"]),
        ("waterfall", ["bgr", "onnx", "bgr"], ["every rung at most once"]),
        ("waterfall", ["simplified", "onnx"], ["torch first, then onnx, simplified"]),
        ("waterfall", ["fold_scale", "simplified"], ["then onnx, simplified, edits"]),
        ("waterfall", ["class_token_only", "fold_scale"], ["class_token_only behind the others"]),
        ("waterfall", ["bgr", "torch"], ["torch first"]),
        ("waterfall", ["device", "bgr"], ["device last"]),
        ("waterfall", ["softmax_axis"], ["without 'softmax_axis' at opset 11", "opset: 13 or newer"]),
        ("batch_sizes", 8, ["'batch_sizes'", "list", "got 8"]),
        ("batch_sizes", "8", ["'batch_sizes'", "list", "got '8'"]),
        ("batch_sizes", [1, "8"], ["'batch_sizes.1'", "integer", "'8'"]),
        ("batch_sizes", [True], ["'batch_sizes.0'", "integer", "True"]),
        ("batch_sizes", [1.5], ["'batch_sizes.0'", "integer", "1.5"]),
        ("batch_sizes", [], ["expected one or more different positive integers", "got []"]),
        ("batch_sizes", [8, 0], ["expected one or more different positive integers", "got [8, 0]"]),
        ("batch_sizes", [-1], ["expected one or more different positive integers", "got [-1]"]),
        ("batch_sizes", [8, 8], ["expected one or more different positive integers", "got [8, 8]"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_allowed(project: Path, key: str, value: Any, parts: list[str]) -> None:
    line = message(write_spec(project), **{key: value})
    for part in ("params/test.yaml", *parts):
        assert part in line


OWN = {"resize_px": 256, "interpolation": "bilinear", "mean": [0, 0, 0], "std": [1, 1, 1.0]}


def test_a_recipe_may_be_a_mapping(project: Path) -> None:
    once = RunSpec.load(write_spec(project, preprocess=OWN))
    assert (once.recipe.describe(), once.recipe.std) == ("own: resize 256 bilinear, crop 224", (1, 1, 1))
    (project / "again.yaml").write_text(once.to_yaml())
    assert RunSpec.load(project / "again.yaml") == once


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"resize": 256}, "unknown key 'resize'; did you mean 'resize_px'?"),
        ({"resize_px": 0}, "'resize_px': expected greater than or equal to 1, got 0"),
        ({"crop_px": 288}, "crop_px of at most resize_px"),
        ({"std": [0.5, 0, 0.5]}, "std above 0"),
        ({"std": [58.4, 57.1, 57.4]}, "at most 1: pixels are from 0 to 1"),
        ({"mean": [float("nan"), 0.5, 0.5]}, "a mean of pixels, which are from 0 to 1"),
        ({"name": "deit", "resize_px": 300}, "another name, deit is a recipe of its own"),
        ({"mean": [0.5]}, "'mean.1'"),
        ({"interpolation": "lanczos"}, "expected 'bicubic' or 'bilinear', got 'lanczos'"),
    ],
)
def test_a_wrong_value_of_a_recipe_is_named(project: Path, change: dict[str, Any], part: str) -> None:
    line = message(write_spec(project), preprocess={**OWN, **change})
    assert "test.yaml: " in line
    assert "preprocess" in line
    assert part in line


def test_a_waterfall_may_hold_an_inexact_edit_without_leave(project: Path) -> None:
    names = ("timm", "deit", "bilinear", "onnx", "simplified", "fold_scale", "pad_tokens_unmasked", "fp16", "device")
    once = RunSpec.load(write_spec(project, waterfall=list(names)))
    assert (once.waterfall, once.allow_inexact) == (names, False)


def test_every_missing_key_is_named(project: Path) -> None:
    path = project / "short.yaml"
    path.write_text("run: short\nmodel: m\n")
    line = message(path)
    assert "'checkpoint' is missing" in line
    assert "'images' is missing" in line


@pytest.mark.parametrize("value", [0, -8, "8", 8.0, True, None, [8]])
def test_a_wrong_batch_size_is_refused_with_an_example(value: Any) -> None:
    with pytest.raises(SpecError, match="batch_size: expected a positive integer such as 8, got"):
        spec.check_batch_size(value)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"stream": True, "bins": True}, "stream: false with bins"),
        ({"stream": True, "on_bad_image": "skip"}, "stream: false with bins, on_bad_image: skip"),
        ({"shards": [2, 1]}, "shards of the first and the last"),
        ({"backend": "torch", "edits": ["fold_scale"]}, r"edits: \[\] for backend torch"),
    ],
)
def test_keys_that_do_not_go_together_are_named(project: Path, keys: dict[str, Any], reason: str) -> None:
    assert re.search(reason, message(write_spec(project), **keys))
