"""What an opened run answers in a notebook: tables that a loop over the files confirms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from runs import CLASSES, IMAGES, copy_of, new_run

from deit_helpers import open_run
from deit_helpers.data import sources
from deit_helpers.errors import ArtifactError, SpecError
from deit_helpers.explore import OpenedRun
from deit_helpers.report import accuracy as page
from deit_helpers.run import records
from deit_helpers.run.folder import Run


@pytest.fixture(scope="module")
def run(finished: Run) -> OpenedRun:
    return open_run(finished.folder / "spec.yaml", 4)


def test_predictions_have_label_answer_top_5_margin_and_the_references_answer(run: OpenedRun) -> None:
    table = run.predictions()
    names, labels = sources.read_index(run)
    logits, reference = np.load(run.file("logits")), np.load(run.file("reference"))
    assert list(table["image"]) == names
    assert len(table) == IMAGES
    for row, label, values, other in zip(table.itertuples(), labels, logits, reference, strict=True):
        order = sorted(range(len(values)), key=lambda c: (-values[c], c))
        assert (row.label, row.answer, row.top5) == (label, order[0], order[:5])
        assert row.margin == pytest.approx(values[order[0]] - values[order[1]])
        assert row.probability == pytest.approx(np.exp(values[order[0]]) / np.exp(values.astype(float)).sum(), rel=1e-5)
        assert row.correct == (order[0] == label)
        assert (row.reference, row.agrees) == (other.argmax(), other.argmax() == order[0])
        assert row.label_name == CLASSES[label]


def test_files_say_which_notebook_makes_them_and_why_one_is_not_current(run: OpenedRun, tmp_path: Path) -> None:
    copy = open_run(copy_of(run, tmp_path).folder / "spec.yaml", 4)
    copy.file("logits").write_bytes(b"edited")
    table = copy.files().set_index("file")
    assert table.loc["bs4/logits.npy", "made_by"] == "05_infer"
    assert "was changed after it was made" in table.loc["bs4/logits.npy", "state"]
    assert table.loc["bs8/logits.npy", "state"] == "current"
    assert table.loc["export/deit.onnx", "bytes"] == copy.file("onnx").stat().st_size


def test_operators_and_latencies_are_the_files_of_07_and_05(run: OpenedRun) -> None:
    assert run.operators()["share_percent"].sum() == pytest.approx(100, abs=0.01)
    assert list(run.latencies()["images"]) == [4, 4, 4, 1]
    pd.testing.assert_frame_equal(run.latencies(), pd.read_csv(run.file("latency")))


def test_an_image_is_found_by_the_end_of_its_name_and_shows_its_answers(run: OpenedRun) -> None:
    row = run.predictions().iloc[3]
    gallery = run.image(Path(row.image).name)
    assert gallery.caption.startswith(f"Label {row.label_name}; answers: {row.answer_name} {100 * row.probability:.1f} %")
    np.testing.assert_array_equal(gallery.crops[0], np.load(run.file("images"))[3])
    assert "data:image/jpeg" in gallery._repr_html_()


@pytest.mark.parametrize(("name", "reason"), [("zz.jpg", "no image of that name"), ("03.jp", "did you mean '03.jpg'?")])
def test_an_image_that_is_not_there_is_one_line(run: OpenedRun, name: str, reason: str) -> None:
    with pytest.raises(ArtifactError, match=r"`run\.predictions\(\)` lists them") as caught:
        run.image(name)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_changed_and_wrong_are_the_cards_of_the_page(run: OpenedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = open_run(copy_of(run, tmp_path).folder / "spec.yaml", 4)
    np.save(copy.file("logits"), -np.load(copy.file("logits")))
    with pytest.raises(ArtifactError, match="No answers yet to compare with the reference: run notebooks/05_infer"):
        copy.changed()  # what was planted is not what the record says
    monkeypatch.setattr(records, "problem", lambda *_, **__: None)
    assert copy.changed(5)._repr_html_() == copy.flips(5)._repr_html_() == page.changed(copy, 5)._repr_html_()
    assert copy.wrong(5)._repr_html_() == page.wrong(copy, 5)._repr_html_()
    assert "5 of 13 changed answers" in copy.changed(5).caption
    table = copy.predictions()
    assert set(copy.wrong(1).df["image"]) == set(table[~table["correct"]]["image"])


def test_operators_of_a_family_are_its_rows_and_an_unknown_one_is_a_line(run: OpenedRun) -> None:
    table = run.operators()
    assert list(run.operators(family="SoftmaxV2")["name"]) == list(table[table["family"] == "SoftmaxV2"]["name"])
    assert 0 < len(run.operators(family="SoftmaxV2")) < len(table)
    with pytest.raises(SpecError, match="family: no 'Softmax'; did you mean 'SoftmaxV2'"):
        run.operators(family="Softmax")


def test_what_was_not_run_names_its_notebook(tmp_path: Path) -> None:
    run = open_run(new_run(tmp_path).folder / "spec.yaml", 4)
    of_05 = [(ask, "05_infer") for ask in (run.predictions, run.latencies)]
    for ask, notebook in (*of_05, (run.operators, "07_perf")):
        with pytest.raises(ArtifactError, match=f"does not exist yet; run notebooks/{notebook}.ipynb with batch_size=4"):
            ask()


def test_a_run_shows_itself_in_a_line_and_as_a_table(run: OpenedRun) -> None:
    assert repr(run).startswith("<run test, batch size 4: vit_tiny_patch16_224 on onnxruntime fp32, ")
    assert "<table>" in run._repr_html_()
    assert isinstance(run.at(8), OpenedRun)
