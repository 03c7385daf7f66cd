"""What must be said on every page follows from the spec and the files of all batch sizes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from runs import new_run

from deit_helpers import files
from deit_helpers.report import index, words
from deit_helpers.report.words import notes, preprocessing
from deit_helpers.run.folder import Run
from deit_helpers.run.hashing import fingerprint


@pytest.fixture
def tiny_run(tmp_path: Path) -> Run:
    """A run with nothing made yet."""
    return new_run(tmp_path)


def test_nothing_is_said_of_a_run_without_files(tiny_run: Run) -> None:
    assert notes(tiny_run)._repr_html_() == ""


@pytest.mark.parametrize(
    ("name", "content", "title"),
    [
        ("convert", {"emulated": True}, "Emulated device, no hardware measured."),
        ("infer", {"runtime": {"emulated": True}}, "Emulated device, no hardware measured."),
        ("infer", {"imported_from": ["summary.json"]}, "Imported figures."),
    ],
)
def test_a_file_of_any_batch_size_is_said_on_every_page(tiny_run: Run, name: str, content: dict, title: str) -> None:
    before = fingerprint(notes(tiny_run))
    files.write_json(tiny_run.at(1).file(name), content)
    assert fingerprint(notes(tiny_run)) != before
    assert [banner.title for banner in notes(tiny_run.at(4)).items] == [title]


def test_a_recipe_that_is_not_the_models_is_said_with_both_values(tiny_run: Run) -> None:
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    config = {"size_px": [224, 224], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"}
    files.write_json(tiny_run.file("export"), {"timm_config": {**config, **imagenet}})
    assert notes(tiny_run).items == []  # 256 px against 248 is another evaluation of the same model
    files.write_json(tiny_run.file("export"), {"timm_config": {**config, "mean": [0.5] * 3, "std": [0.5] * 3}})
    half = "(the model: 0.5, 0.5, 0.5)"
    text = f"Recipe deit has mean 0.485, 0.456, 0.406 {half}; std 0.229, 0.224, 0.225 {half}"
    (banner,) = notes(tiny_run).items
    assert banner.text == f"{text}; `preprocess: model` takes what timm says of vit_tiny_patch16_224."
    other = {**config, **imagenet, "size_px": [384, 384], "interpolation": "bilinear"}
    files.write_json(tiny_run.file("export"), {"timm_config": other})
    assert "size 224, 224 (the model: 384, 384); interpolation bicubic (the model: bilinear)" in preprocessing(tiny_run)


def test_expected_figures_of_other_images_are_said_with_both_data_sets(tiny_run: Run) -> None:
    files.write_json(tiny_run.file("preprocess"), {"dataset": "imagenet-r"})
    (banner,) = notes(tiny_run.replace(expected="deit_small")).items
    assert banner.title == "The expected figures are of other images."
    assert banner.text == "`expected: deit_small` is of imagenet-1k, the images look like imagenet-r: `expected: deit_small_r`."
    assert notes(tiny_run.replace(expected="deit_small_r")).items == []


def test_the_demo_is_told_by_its_checkpoint(tiny_run: Run) -> None:
    assert [banner.title for banner in notes(tiny_run.replace(checkpoint="demo")).items] == ["This is the embedded demo."]


def test_accuracies_that_disagree_are_quoted_from_the_lowest(tiny_run: Run) -> None:
    rows = [["the table", 79.82, 95.0], ["the log", 79.7, 95.0], ["the table", 79.82, 95.0]]
    files.write_json(tiny_run.file("infer"), {"quoted_accuracy": rows[:1]})
    assert notes(tiny_run).items == []
    files.write_json(tiny_run.file("infer"), {"quoted_accuracy": rows})
    (banner,) = notes(tiny_run).items
    assert banner.text.startswith("Acc@1 is 79.70 % (the log) and 79.82 % (the table): 0.12 points apart")


def test_disturbed_rates_are_said_on_the_index_by_step_and_batch_size(tiny_run: Run) -> None:
    assert words.disturbed(tiny_run.at(4)) == ""
    files.write_json(tiny_run.at(4).file("infer"), {"disturbed": ""})
    files.write_json(tiny_run.at(8).file("infer"), {"batch_size": 8})  # an older run's
    assert index.state(dataclasses.replace(tiny_run, batch_size=None)).items == []
    files.write_json(tiny_run.at(4).file("infer"), {"disturbed": "A"})
    files.write_json(tiny_run.at(4).file("perf"), {"disturbed": "B"})
    files.write_json(tiny_run.at(8).file("perf"), {"disturbed": "C"})
    assert words.disturbed(tiny_run.at(4)) == "in 05, A; in 07, B"
    (banner,) = index.state(dataclasses.replace(tiny_run, batch_size=None)).items
    assert (banner.kind, banner.title) == ("inconclusive", "The throughput is not trustworthy.")
    assert banner.text == "bs4: in 05, A; in 07, B. bs8: in 07, C."
    (banner,) = words.trust(tiny_run.at(8)).items  # the page of 07 speaks of its own batch size
    assert banner.text == "bs8: in 07, C."
