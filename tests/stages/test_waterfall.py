"""The waterfall names the change that lost the images, and counts what each change gained and lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import infer
from PIL import Image
from runs import copy_of, with_keys
from scipy.stats import binomtest
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from deit_helpers.data import sources
from deit_helpers.errors import ArtifactError, SpecError
from deit_helpers.evidence import rungs
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.run.recipes import RECIPES
from deit_helpers.stages import waterfall as stage


@pytest.fixture
def run(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy whose labels are the model's own answers: every image is right until something is changed."""
    names, _ = sources.read_index(finished)
    answers = np.load(finished.file("reference")).argmax(axis=1)
    monkeypatch.setattr(stage, "read_index", lambda run: (names, answers))
    return copy_of(finished, tmp_path)


def tensors_of(run: Run, recipe: str) -> np.ndarray:
    """All images as torchvision prepares them."""
    made = RECIPES[recipe]
    steps = [transforms.Resize(made.resize_px, InterpolationMode.BICUBIC), transforms.CenterCrop(made.crop_px),
             transforms.ToTensor(), transforms.Normalize(made.mean, made.std)]  # fmt: skip
    names, _ = sources.read_index(run)
    return np.stack([transforms.Compose(steps)(Image.open(run.image_folder / name)).numpy() for name in names])


def waterfall(run: Run, *names: str, **keys: Any) -> dict[str, Any]:
    return stage.waterfall(with_keys(run, waterfall=list(names), **keys))


@pytest.mark.parametrize("cause", ["bgr", "no_std", "pad_tokens_unmasked"])
def test_a_planted_cause_is_the_rung_where_images_are_lost(run: Run, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names, _ = sources.read_index(run)
    answers = infer(onnx.load(run.file("onnx")), tensors_of(run, "timm")).argmax(axis=1)
    monkeypatch.setattr(stage, "read_index", lambda run: (names, answers))
    facts = waterfall(run, "timm", "onnx", "simplified", "fold_scale", cause, "split_qkv")
    assert [(row["name"], row["gained"]) for row in facts["rungs"] if row["gained"]] == []
    assert [row["name"] for row in facts["rungs"] if row["lost"]] == [cause]
    assert facts["rungs"][0]["top1_percent"] == 100
    lost = next(row["lost"] for row in facts["rungs"] if row["name"] == cause)
    assert facts["all_changes"]["lost"] == lost
    assert facts["rungs"][-1]["top1_percent"] == pytest.approx(100 * (13 - lost) / 13)


def test_every_figure_follows_from_the_kept_logits(run: Run) -> None:
    facts = waterfall(run, "onnx", "bgr", "device")
    _, labels = stage.read_index(run)
    right = [np.load(run.folder / row["logits"]).argmax(axis=1) == labels for row in facts["rungs"]]
    for row, now in zip(facts["rungs"], right, strict=True):
        assert row["top1_percent"] == pytest.approx(100 * now.mean())
        assert row["images"] == 13
    p_values = []
    for row, before, now in zip(facts["rungs"][1:], right, right[1:], strict=False):
        gained, lost = int((now & ~before).sum()), int((before & ~now).sum())
        assert (row["gained"], row["lost"]) == (gained, lost)
        assert row["difference_points"] == pytest.approx(100 * (gained - lost) / 13)
        low, high = row["difference_ci95_points"]
        assert low <= row["difference_points"] <= high
        p_values.append(binomtest(gained, gained + lost).pvalue if gained + lost else 1.0)
        assert row["p_value"] == pytest.approx(p_values[-1])
        assert row["significant"] == (row["p_value_holm"] < 0.05)
    assert min(row["p_value_holm"] for row in facts["rungs"][1:]) == pytest.approx(min(1, min(p_values) * len(p_values)))
    assert facts["rungs"][0]["p_value"] is facts["rungs"][0]["significant"] is None
    assert facts["published"] is None


def test_a_rung_that_was_not_made_has_no_figures_and_the_next_is_paired_across_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(run: Run) -> None:
        raise ArtifactError("pictures: no such folder")

    monkeypatch.setattr(sources, "list_folder", gone)
    start, bilinear, bgr = waterfall(run, "bilinear", "bgr")["rungs"]
    assert (bilinear["reason"], bilinear["top1_percent"], bilinear["significant"]) == ("pictures: no such folder", None, None)
    assert bgr["lost"] - bgr["gained"] == round((start["top1_percent"] - bgr["top1_percent"]) * 0.13)


def test_the_published_row_is_quoted_from_the_expected_figures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = waterfall(run, "onnx", expected="deit_small")
    assert facts["published"]["top1_percent"] == 79.9
    assert facts["published"]["source"] == "facebookresearch/deit README"


def test_it_is_made_once_for_a_batch_size_and_again_when_the_list_or_the_devices_answers_change(run: Run) -> None:
    climbed: list[int | None] = []
    with pytest.MonkeyPatch.context() as patch:
        real = rungs.climb
        patch.setattr(rungs, "climb", lambda run: [climbed.append(run.batch_size), *real(run)][1:])
        for at in (run, run, run.at(1), run.at(1)):
            waterfall(at, "onnx", "device")
        assert climbed == [4, 1]
        waterfall(run, "onnx")
        assert climbed == [4, 1, 4]
    np.save(run.file("logits"), np.load(run.file("logits"))[::-1])
    with pytest.raises(ArtifactError, match=r"logits\.npy was changed after it was made .*notebooks/05_infer\.ipynb"):
        waterfall(run, "onnx", "device")


def test_without_rungs_in_the_spec_the_key_to_set_is_named(run: Run) -> None:
    with pytest.raises(SpecError, match=r"waterfall: the spec names no rungs: give a list such as \[timm, deit"):
        stage.waterfall(run)
    assert records.read_record(run, "waterfall") == {}
