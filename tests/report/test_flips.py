"""The flip gallery: which images it shows, in which order, and what it says of them; small, and made of files alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import CLASSES, copy_of
from sklearn.datasets import load_sample_image

from deit_helpers import files
from deit_helpers.data import batches, sources, transforms
from deit_helpers.report.elements import Banner, Gallery, Table
from deit_helpers.report.flips import flips
from deit_helpers.run import records
from deit_helpers.run.folder import Run

ORDER = ("only the reference is right", "neither is right", "only this run is right")


@pytest.fixture
def flipped(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the finished run whose answers at batch size 4 and reference are noise and mostly differ."""
    run = copy_of(finished, tmp_path)
    generator = np.random.default_rng(3)
    for name in ("logits", "reference"):
        np.save(run.file(name), generator.normal(0, 2, (13, 3)).astype(np.float32))
    monkeypatch.setattr(records, "problem", lambda *_, **__: None)  # the files planted here have no records
    return run


def expected_order(run: Run) -> list[tuple[int, float, str]]:
    """Place in ORDER, margin of the reference negated, and name of every image whose answer changed, by a plain loop."""
    rows = []
    logits, reference = np.load(run.file("logits")), np.load(run.file("reference"))
    for name, label, here, there in zip(*sources.read_index(run), logits.tolist(), reference.tolist(), strict=True):
        answer, before = here.index(max(here)), there.index(max(there))
        if answer != before:
            place = 0 if before == label else 2 if answer == label else 1
            rows.append((place, sorted(there)[-2] - max(there), name))
    return sorted(rows)


def test_changed_answers_are_shown_the_worst_first_with_both_top_5_and_margins(flipped: Run) -> None:
    gallery, rows = flips(flipped), expected_order(flipped)
    assert isinstance(gallery, Gallery)
    names, labels = sources.read_index(flipped)
    assert {place for place, _, _ in rows} == {0, 1, 2}
    assert len(gallery.labels) == len(rows)
    for text, (place, _, name) in zip(gallery.labels, rows, strict=True):
        assert text == f"{Path(name).name}: label {CLASSES[labels[names.index(name)]]}; {ORDER[place]}"
    values = np.load(flipped.file("reference"))[names.index(rows[0][2])].astype(float)
    shares = {CLASSES[c]: 100 * np.exp(values[c]) / np.exp(values).sum() for c in np.argsort(-values)}
    assert list(gallery.lists[0]) == ["fp32 reference", "onnxruntime fp32"]
    best = [f"{word}: {share:.1f}\u00a0%" for word, share in shares.items()]
    assert gallery.lists[0]["fp32 reference"] == [*best, f"margin {-rows[0][1]:.3g}"]


def test_the_caption_says_how_many_there_are_in_all(flipped: Run) -> None:
    total = len(expected_order(flipped))
    gallery = flips(flipped, count=3)
    assert isinstance(gallery, Gallery)
    assert gallery.caption == f"3 of {total} changed answers of 13 images, bs4, the worst first"
    assert gallery.caption in gallery._repr_html_()
    assert (len(gallery.crops), len(gallery.lists)) == (3, 3)


def test_no_changed_answer_is_a_note_in_words(finished: Run) -> None:
    note = flips(finished)
    assert isinstance(note, Banner)
    assert f"{note.title} {note.text}" == "No answer changed on 13 images, bs4."


def test_across_batch_sizes_it_is_the_size_that_agrees_least(flipped: Run) -> None:
    for size, percent in {1: 100.0, 4: 30.0, 8: 92.0}.items():
        files.write_json(flipped.at(size).file("agreement"), {"top1_agreement_percent": percent})
    shown = flips(Run(flipped.spec, flipped.folder, flipped.root))
    assert isinstance(shown, Gallery)
    assert "bs4," in shown.caption


@pytest.mark.parametrize("batch_size", [None, 4])
def test_where_05_was_not_run_or_gave_no_answers_it_is_a_note(finished: Run, tmp_path: Path, batch_size: int | None) -> None:
    run = copy_of(finished, tmp_path, batch_sizes=[4])
    run.file("logits").unlink()
    note = flips(Run(run.spec, run.folder, run.root, batch_size))
    assert isinstance(note, Banner)
    assert "run notebooks/05_infer.ipynb" in note.text


def test_crops_are_those_of_the_files_where_there_is_no_store(flipped: Run) -> None:
    run = flipped.replace(stream=True)
    shown = flips(run)
    assert isinstance(shown, Gallery)
    first = transforms.crop(transforms.decode(run.image_folder / expected_order(run)[0][2]), run.spec.recipe)
    np.testing.assert_array_equal(shown.crops[0], first)


@pytest.mark.parametrize("stream", [True, False])
def test_without_the_images_it_is_a_table(flipped: Run, stream: bool) -> None:
    run = flipped.replace(stream=stream, images="elsewhere")
    run.file("images").unlink()
    table, rows = flips(run), expected_order(run)
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == [Path(name).name for _, _, name in rows]
    assert [row[2] for row in table.rows] == [ORDER[place] for place, _, _ in rows]
    assert list(table.formats) == ["image", "label", "right", "fp32 reference", "onnxruntime fp32"]
    assert str(table.rows[0][3]).endswith(f"margin {-rows[0][1]:.3g}")


def test_two_dozen_photographs_stay_below_350_kb(flipped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    photograph = load_sample_image("china.jpg")
    corners = np.random.default_rng(0).integers(0, 200, (13, 2))
    windows = np.stack([photograph[y : y + 224, x : x + 224] for y, x in corners])
    monkeypatch.setattr(batches, "crops_at", lambda _, indices: windows[indices])
    shown = flips(flipped)
    assert isinstance(shown, Gallery)
    assert len(shown._repr_html_()) / len(shown.labels) < 350_000 / 24


def test_with_valid_classes_it_is_about_the_answers_that_06_scores(flipped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deit_helpers.report.flips.valid_classes", lambda _: [0, 2])
    logits, reference = np.load(flipped.file("logits")), np.load(flipped.file("reference"))
    shown = flips(flipped)
    assert isinstance(shown, Gallery)
    changed = np.sum((logits[:, 0] > logits[:, 2]) != (reference[:, 0] > reference[:, 2]))
    assert f" of {changed} changed answers" in shown.caption
    assert all(lines[2] == "berry: 0.0\u00a0%" for both in shown.lists for lines in both.values())
