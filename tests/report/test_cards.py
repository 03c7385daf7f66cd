"""Cards of changed and wrong answers: which images, in which order, and what they say; small, and made of files alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from runs import CLASSES, copy_of
from sklearn.datasets import load_sample_image

from deit_helpers import files
from deit_helpers.data import batches, sources, transforms
from deit_helpers.report import cards
from deit_helpers.report.elements import Banner, Gallery
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


Draw = Callable[..., Gallery | Banner]
BOTH = pytest.mark.parametrize("draw", [cards.changed, cards.wrong], ids=["changed", "wrong"])


def expected_order(run: Run, draw: Draw = cards.changed) -> list[tuple[int, float, str]]:
    """Place in ORDER, margin of the reference negated, and name of every image that `draw` is about, by a plain loop."""
    rows = []
    logits, reference = np.load(run.file("logits")), np.load(run.file("reference"))
    for name, label, here, there in zip(*sources.read_index(run), logits.tolist(), reference.tolist(), strict=True):
        answer, before = here.index(max(here)), there.index(max(there))
        if answer != (before if draw is cards.changed else label):
            place = 0 if before == label else 2 if answer == label else 1
            rows.append((place, sorted(there)[-2] - max(there), name))
    return sorted(rows)


def drawn(shown: Gallery | Banner) -> Gallery:
    assert isinstance(shown, Gallery)
    return shown


@BOTH
def test_cards_come_the_worst_first_with_both_top_5_and_margins(flipped: Run, draw: Draw) -> None:
    gallery, rows = drawn(draw(flipped, 13)), expected_order(flipped, draw)
    names, labels = sources.read_index(flipped)
    assert {place for place, _, _ in rows} == ({0, 1, 2} if draw is cards.changed else {0, 1})
    assert len(gallery.labels) == len(rows)
    for text, (place, _, name) in zip(gallery.labels, rows, strict=True):
        assert text == f"{Path(name).name}: label {CLASSES[labels[names.index(name)]]}; {ORDER[place]}"
    values = np.load(flipped.file("reference"))[names.index(rows[0][2])].astype(float)
    shares = {CLASSES[c]: 100 * np.exp(values[c]) / np.exp(values).sum() for c in np.argsort(-values)}
    assert list(gallery.lists[0]) == ["fp32 reference", "onnxruntime fp32"]
    best = [f"{word}: {share:.1f}\u00a0%" for word, share in shares.items()]
    assert gallery.lists[0]["fp32 reference"] == [*best, f"margin {-rows[0][1]:.3g}"]


@BOTH
def test_the_caption_says_how_many_more_there_are_and_where(flipped: Run, draw: Draw) -> None:
    rows = expected_order(flipped, draw)
    gallery = drawn(draw(flipped, count=3))
    kind = draw.__name__
    more = f"; the other {len(rows) - 3} are in bs4/predictions.csv"
    assert gallery.caption == f"3 of {len(rows)} {kind} answers of 13 images, bs4, the worst first{more}"
    assert gallery.caption in gallery._repr_html_()
    assert gallery.crops is not None
    assert (len(gallery.crops), len(gallery.lists)) == (3, 3)
    flipped.file("predictions").unlink()  # before 06, and in older runs
    assert "predictions.csv" not in drawn(draw(flipped, count=3)).caption


@BOTH
def test_df_has_all_of_them_in_the_order_of_the_cards(flipped: Run, draw: Draw) -> None:
    gallery, rows = drawn(draw(flipped, count=2)), expected_order(flipped, draw)
    assert gallery.df is not None
    assert list(gallery.df["image"]) == [name for _, _, name in rows]
    assert list(gallery.df["right"]) == [ORDER[place] for place, _, _ in rows]
    assert list(-gallery.df["reference_margin"]) == pytest.approx([margin for _, margin, _ in rows])


def test_most_are_24_changed_and_12_wrong(flipped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, labels = np.random.default_rng(0), [0, 1] * 30
    for name in ("logits", "reference"):
        np.save(flipped.file(name), generator.normal(0, 2, (60, 3)).astype(np.float32))
    sources.write_index(flipped.file("index"), {f"{label}/{i}.png": label for i, label in enumerate(labels)})
    monkeypatch.setattr(batches, "crops_at", lambda _, indices: np.zeros((len(indices), 8, 8, 3), np.uint8))
    assert [len(drawn(draw(flipped)).labels) for draw in (cards.changed, cards.wrong)] == [24, 12]


def test_no_changed_answer_is_a_line_and_an_empty_table(finished: Run) -> None:
    gallery = drawn(cards.changed(finished))
    assert gallery.caption == "No changed answer on 13 images, bs4"
    assert gallery.df is not None
    assert gallery.df.empty
    assert "<figcaption>No changed answer on 13 images, bs4</figcaption></figure>" in gallery._repr_html_()


def test_across_batch_sizes_it_is_the_size_that_agrees_least(flipped: Run) -> None:
    for size, percent in {1: 100.0, 4: 30.0, 8: 92.0}.items():
        files.write_json(flipped.at(size).file("agreement"), {"top1_agreement_percent": percent})
    assert "bs4," in drawn(cards.changed(Run(flipped.spec, flipped.folder, flipped.root))).caption


@pytest.mark.parametrize("batch_size", [None, 4])
def test_where_05_was_not_run_or_gave_no_answers_it_is_a_note(finished: Run, tmp_path: Path, batch_size: int | None) -> None:
    run = copy_of(finished, tmp_path, batch_sizes=[4])
    run.file("logits").unlink()
    note = cards.changed(Run(run.spec, run.folder, run.root, batch_size))
    assert isinstance(note, Banner)
    assert "run notebooks/05_infer.ipynb" in note.text


def test_crops_are_those_of_the_files_where_there_is_no_store(flipped: Run) -> None:
    run = flipped.replace(stream=True)
    shown = drawn(cards.changed(run))
    first = transforms.crop(transforms.decode(run.image_folder / expected_order(run)[0][2]), run.spec.recipe)
    assert shown.crops is not None
    np.testing.assert_array_equal(shown.crops[0], first)


@BOTH
@pytest.mark.parametrize("stream", [True, False])
def test_without_the_images_cards_have_no_crop_and_say_so(flipped: Run, stream: bool, draw: Draw) -> None:
    run = flipped.replace(stream=stream, images="elsewhere")
    run.file("images").unlink()
    gallery, rows = drawn(draw(run, 13)), expected_order(run, draw)
    assert gallery.caption.endswith(", the worst first; the images are not here")
    page = BeautifulSoup(gallery._repr_html_(), "html.parser")
    assert [item.span.text.partition(":")[0] for item in page.find_all("li")] == [Path(name).name for _, _, name in rows]
    assert page.find_all("img") == []
    assert page.dl.find_all("dd")[-1].text == f"margin {-rows[0][1]:.3g}"


def test_two_dozen_photographs_stay_below_350_kb(flipped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    photograph = load_sample_image("china.jpg")
    corners = np.random.default_rng(0).integers(0, 200, (13, 2))
    windows = np.stack([photograph[y : y + 224, x : x + 224] for y, x in corners])
    monkeypatch.setattr(batches, "crops_at", lambda _, indices: windows[indices])
    shown = drawn(cards.changed(flipped))
    assert len(shown._repr_html_()) / len(shown.labels) < 350_000 / 24


def test_with_valid_classes_it_is_about_the_answers_that_06_scores(flipped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deit_helpers.report.cards.valid_classes", lambda _: [0, 2])
    logits, reference = np.load(flipped.file("logits")), np.load(flipped.file("reference"))
    shown = drawn(cards.changed(flipped))
    changed = np.sum((logits[:, 0] > logits[:, 2]) != (reference[:, 0] > reference[:, 2]))
    assert f" of {changed} changed answers" in shown.caption
    assert all(lines[2] == "berry: 0.0\u00a0%" for both in shown.lists for lines in both.values())
