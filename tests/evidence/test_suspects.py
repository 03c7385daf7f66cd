"""Known mistakes: planted in the device's answers, each is found by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import edited, infer
from PIL import Image
from runs import copy_of

from deit_helpers.data import sources
from deit_helpers.evidence import suspects
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.stages import accuracy

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
Plant = Callable[[np.ndarray], Run]


def tensors(run: Run, resize_px: int = 256, kernel: str = "BICUBIC", bgr: bool = False, **by: Any) -> np.ndarray:
    """The run's images prepared by hand, with Pillow and this file's own arithmetic."""
    names, _ = sources.read_index(run)
    images = []
    for name in names:
        image = Image.open(run.image_folder / name).convert("RGB")
        wide, high = (int(resize_px * side / min(image.size) + 1e-9) for side in image.size)
        image = image.resize((wide, high), getattr(Image.Resampling, kernel))
        left, top = (round((side - 224) / 2) for side in image.size)
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)))[..., :: -1 if bgr else 1] / 255
        images.append((pixels - by.get("mean", MEAN)) / by.get("std", STD))
    return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)


def answers(run: Run, images: np.ndarray, graph: onnx.ModelProto | None = None) -> np.ndarray:
    """What a device that runs the static graph of batch size 4, or this one, makes of the images."""
    graph = graph or onnx.load(run.file("static_onnx"))
    padded = np.concatenate([images, images[-3:]])  # 13 of them
    return np.concatenate([infer(graph, padded[i : i + 4]) for i in range(0, 16, 4)])[: len(images)]


@pytest.fixture
def plant(finished: Run, tmp_path: Path) -> Plant:
    """A copy of the finished run at batch size 4 whose device answered so."""

    def planted(logits: np.ndarray) -> Run:
        run = copy_of(finished, tmp_path, batch_sizes=[4])
        np.save(run.file("logits"), logits.astype(np.float32))
        records.adopt(run, "infer", ["this test"], "a device", images=True)
        return run

    return planted


MISTAKES: dict[str, dict[str, Any]] = {
    "none": {},
    "bgr": {"bgr": True},
    "bilinear": {"kernel": "BILINEAR"},
    "no_std": {"std": 1.0},
    "no_mean": {"mean": 0.0},
    "half_mean_std": {"mean": 0.5, "std": 0.5},
    "timm": {"resize_px": 248},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_images_prepared_with_a_mistake_are_found_out(mistake: str, finished: Run, plant: Plant) -> None:
    facts = suspects.find(plant(answers(finished, tensors(finished, **MISTAKES[mistake]))))
    cause = facts["causes"]["4"]
    assert cause["mistake"] == mistake
    if mistake != "none":
        assert cause["distance_of_nearest"] < 1e-4 < 1e-2 < cause["distance"]
    assert {row["mistake"] for row in facts["mistakes"]} == {*MISTAKES, "one_late", "one_early", suspects.UNMASKED}
    assert all(row["reason"] is None for row in facts["mistakes"])


def test_unmasked_padding_is_found_out(finished: Run, plant: Plant) -> None:
    padded = edited(onnx.load(finished.file("static_onnx")), "pad_tokens_unmasked")
    run = plant(answers(finished, tensors(finished), padded))
    assert suspects.find(run)["causes"]["4"]["mistake"] == "pad_tokens_unmasked"


@pytest.mark.parametrize(("by", "mistake"), [(1, "one_late"), (-1, "one_early")])
def test_answers_moved_by_one_image_are_found_out(by: int, mistake: str, finished: Run, plant: Plant) -> None:
    run = plant(np.roll(np.load(finished.file("logits")), by, axis=0))
    assert suspects.find(run)["causes"]["4"]["mistake"] == mistake


def test_two_mistakes_at_once_are_no_single_one_and_the_nearest_is_named(finished: Run, plant: Plant) -> None:
    cause = suspects.find(plant(answers(finished, tensors(finished, bgr=True, kernel="BILINEAR"))))["causes"]["4"]
    assert (cause["mistake"], cause["nearest"]) == (None, "bgr")
    assert 1e-4 < cause["distance_of_nearest"] < cause["distance"]


def test_something_else_is_no_known_mistake(finished: Run, plant: Plant) -> None:
    assert suspects.find(plant(-np.load(finished.file("logits"))))["causes"]["4"]["mistake"] is None


def test_on_a_host_without_the_images_what_needs_their_files_says_so(
    finished: Run, plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plant(answers(finished, tensors(finished, bgr=True)))
    monkeypatch.setattr(type(run), "image_folder", tmp_path / "gone")
    facts = suspects.find(run)
    reasons = {row["mistake"]: row["reason"] for row in facts["mistakes"]}
    assert facts["causes"]["4"]["mistake"] == "bgr"
    assert [name for name, why in reasons.items() if why] == ["bilinear", "timm"]
    assert str(tmp_path / "gone") in reasons["bilinear"]


def test_before_05_there_is_a_reason_and_no_search(finished: Run, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path, batch_sizes=[4])
    records.forget(run, "infer")
    assert suspects.find(run) == {"reason": "05 has to run first: bs4/logits.npy there is no record of this run making it"}


@pytest.mark.parametrize(("by", "off_by"), [(0, None), (1, -1), (-1, 1)])
def test_labels_off_by_one_are_a_label_problem(by: int, off_by: int | None) -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(1, 999, 500)
    said = np.where(rng.random(500) < 0.8, right, rng.integers(0, 1000, 500))
    assert suspects.moved_labels(said, right + by, 1000)["off_by"] == off_by


def test_a_checkpoint_that_guesses_says_nothing_of_labels() -> None:
    rng = np.random.default_rng(0)
    said, labels = rng.integers(0, 10, (2, 500))
    assert suspects.moved_labels(said, labels, 10)["off_by"] is None


def test_with_labels_off_by_one_a_good_checkpoint_is_a_label_problem_in_06_too(plant: Plant, finished: Run) -> None:
    logits = np.load(finished.file("logits"))
    run = plant(logits)
    names, _ = sources.read_index(run)
    wrong = (np.load(run.file("reference")).argmax(axis=1) + 1) % 3  # to which the reference was all right
    sources.write_index(run.file("index"), dict(zip(names, map(int, wrong), strict=True)))
    records.adopt(run, "preprocess", ["this test"], "here", images=False)
    records.adopt(run, "infer", ["this test"], "a device", images=True)
    records.adopt(run, "reference", ["this test"], "here", images=True)
    assert accuracy.score(run)["cause"].startswith("the labels, not the port: ")
