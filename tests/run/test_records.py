"""When a stage's files are used as they stand, when they are made again, and when a later stage refuses them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pictures import draw
from runs import opened

from deit_helpers import files, open_run
from deit_helpers.errors import ArtifactError
from deit_helpers.run import hashing, host, records
from deit_helpers.run.folder import Run

UP_TO_INFER = ("export", "optimize", "preprocess", "infer")


@pytest.fixture(autouse=True)
def _code_is_hashed_anew() -> Iterator[None]:
    hashing.code_sha256.cache_clear()
    yield
    hashing.code_sha256.cache_clear()


@pytest.fixture
def run(class_folders: Path) -> Run:
    (class_folders.parent / "tiny.pth").write_bytes(b"weights")
    return opened(class_folders.parent)


def make(run: Run, *wanted: str, content: str = "made") -> list[str]:
    """Ensure stages with text files in place of the real ones; returns the stages that were made."""

    def write(stage: str) -> None:
        for name in records.outputs(run, stage):
            files.write_text(run.file(name), f"{name} {content}")

    return [stage for stage in wanted if records.ensure(run, stage, lambda stage=stage: write(stage))]


def refusal(run: Run, *names: str) -> str:
    """The one line of the ArtifactError that requiring these files raises."""
    with pytest.raises(ArtifactError) as caught:
        records.require(run, *names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_is_made_again_when_nothing_changed(run: Run) -> None:
    assert make(run, *UP_TO_INFER) == list(UP_TO_INFER)
    assert make(opened(run.root), *UP_TO_INFER) == []
    records.require(run, "onnx", "static_onnx", "images", "logits")


def test_the_record_says_how_the_files_were_made(run: Run) -> None:
    make(run, *UP_TO_INFER)
    record = records.read_record(run, "infer")
    assert records.record_path(run, "infer") == run.folder / "meta" / "infer_bs4.json"
    device = {"backend": "onnxruntime", "precision": "fp32", "device": 0, "execution": "sync", "providers": {}}
    recipe = {"preprocess": "deit", "ema": None}
    assert record["spec"] == {**device, **recipe, "runtime": {"streams": 1}, "stream": False, "bins": False}
    assert record["inputs"] == {name: hashing.sha256(run.file(name)) for name in ("static_onnx", "images")}
    assert record["machine"]["cpu"]
    assert record["outputs"]["bs4/logits.npy"]["sha256"] == hashing.sha256(run.file("logits"))


@pytest.mark.parametrize(
    ("keys", "stale"),
    [
        ({"preprocess": "timm"}, UP_TO_INFER),
        ({"opset": 13}, ("export",)),
        ({"limit": 5}, ("export", "optimize", "preprocess")),
        ({"limit_seed": 1}, ("export", "optimize", "preprocess")),
        ({"on_bad_image": "skip"}, ("export", "optimize", "preprocess")),
        ({"edits": ["fold_scale"]}, ("optimize",)),
        ({"precision": "fp16"}, ("infer",)),
        ({"model_args": {"depth": 3}}, ("export",)),
        ({"expected": "deit_small"}, ()),
        ({"batch_sizes": [4]}, ()),
    ],
)
def test_a_changed_spec_key_makes_its_stages_again(run: Run, keys: dict[str, Any], stale: tuple[str, ...]) -> None:
    make(run, *UP_TO_INFER)
    changed = opened(run.root, **keys)
    assert tuple(make(changed, *UP_TO_INFER)) == stale
    assert make(changed, *UP_TO_INFER) == []


def test_a_later_stage_refuses_files_made_with_another_spec_key(run: Run) -> None:
    make(run, "preprocess")
    line = refusal(opened(run.root, preprocess="timm"), "images")
    assert "images.npy: it is stale: made with preprocess='deit', the spec now says 'timm'" in line
    assert "run notebooks/04_preprocess.ipynb (or `deit-report run`)" in line


def _other_time(folder: Path) -> None:
    os.utime(folder / "apple" / "00.jpg", ns=(1, 1))


def _other_size(folder: Path) -> None:
    path, stat = folder / "apple" / "00.jpg", (folder / "apple" / "00.jpg").stat()
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


CHANGES = {
    "time": _other_time,
    "size": _other_size,
    "added": lambda folder: draw(folder / "cedar" / "99.jpg"),
    "removed": lambda folder: (folder / "apple" / "00.jpg").unlink(),
    "renamed": lambda folder: (folder / "apple" / "00.jpg").rename(folder / "apple" / "000.jpg"),
    "moved to another class": lambda folder: (folder / "apple" / "00.jpg").rename(folder / "berry" / "00.jpg"),
    "dangling link": lambda folder: (folder / "apple" / "link.jpg").symlink_to("nowhere.jpg"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_image_makes_the_store_again(run: Run, change: str) -> None:
    make(run, "preprocess")
    CHANGES[change](run.image_folder)
    records.require(run, "images")  # a later stage, perhaps on another machine, does not look at the image files
    assert records.problem(run, "preprocess") == "it is stale: source changed since"
    assert make(run, "preprocess") == ["preprocess"]


def test_images_in_linked_class_folders_are_watched_too(run: Run) -> None:
    (run.image_folder / "apple").rename(run.root / "elsewhere")
    (run.image_folder / "apple").symlink_to(run.root / "elsewhere")
    make(run, "preprocess")
    os.utime(run.root / "elsewhere" / "00.jpg", ns=(1, 1))
    assert make(run, "preprocess") == ["preprocess"]


def test_a_changed_label_file_makes_the_store_again(run: Run) -> None:
    (run.root / "labels.txt").write_text("x 1")
    labelled = opened(run.root, labels="labels.txt")
    make(labelled, "preprocess")
    (run.root / "labels.txt").write_text("x 2")
    assert make(labelled, "preprocess") == ["preprocess"]


def test_a_changed_checkpoint_makes_the_export_again(run: Run) -> None:
    make(run, *UP_TO_INFER)
    (run.root / "tiny.pth").write_bytes(b"others")
    assert "onnx: it is stale: checkpoint changed since" in refusal(run, "onnx")
    assert make(run, *UP_TO_INFER, content="anew") == ["export", "optimize", "infer"]


def test_images_that_are_elsewhere_do_not_stop_a_later_stage(run: Run) -> None:
    make(run, *UP_TO_INFER)
    shutil.move(run.image_folder, run.root / "elsewhere")
    records.require(run, "images", "logits")
    assert records.problem(run, "preprocess") is None  # it could not be made again: it is as it was made


@pytest.mark.parametrize(("name", "stage"), [("images", "preprocess"), ("index", "preprocess"), ("logits", "infer")])
def test_a_file_edited_by_hand_is_named_and_made_again(run: Run, name: str, stage: str) -> None:
    make(run, *UP_TO_INFER)
    run.file(name).write_text("edited")
    line = refusal(run, name)
    assert f"{run.file(name).name} was changed after it was made (sha256 " in line
    assert records.how_to_make(run, stage) in line
    assert make(run, stage) == [stage]


def test_a_file_that_is_only_touched_is_still_current(run: Run) -> None:
    make(run, *UP_TO_INFER)
    os.utime(run.file("images"), ns=(1, 1))
    assert make(run, *UP_TO_INFER) == []


def test_a_removed_file_is_named_and_made_again(run: Run) -> None:
    make(run, *UP_TO_INFER)
    run.file("index").unlink()
    assert "index.csv is missing; run notebooks/04_preprocess.ipynb" in refusal(run, "images")
    assert make(run, "preprocess") == ["preprocess"]


def test_a_file_copied_from_another_run_is_refused(run: Run) -> None:
    make(run, *UP_TO_INFER)
    other = opened(run.root, run="other")
    shutil.copytree(run.folder / "bs4", other.folder / "bs4")
    line = refusal(other, "logits")
    assert line.startswith(f"{other.file('logits')}: there is no record of this run making it; ")
    assert "run notebooks/05_infer.ipynb with batch_size=4 (or `deit-report run`)" in line


def test_a_run_folder_copied_as_a_whole_is_current(run: Run) -> None:
    make(run, *UP_TO_INFER)
    shutil.copytree(run.folder, run.root / "carried")
    carried = open_run("carried/spec.yaml", 4)
    assert carried.folder == run.root / "carried"
    assert make(carried, *UP_TO_INFER) == []


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_record_counts_as_none(run: Run, content: str) -> None:
    make(run, "preprocess")
    records.record_path(run, "preprocess").write_text(content)
    assert "there is no record" in refusal(run, "images")
    assert make(run, "preprocess") == ["preprocess"]


def test_what_was_never_made_names_its_notebook(run: Run) -> None:
    assert "images.npy: does not exist yet; run notebooks/04_preprocess.ipynb" in refusal(run, "images")
    make(run, "preprocess")
    with pytest.raises(
        ArtifactError, match=r"deit_bs4\.onnx: does not exist yet; run notebooks/02_optimize\.ipynb with batch_"
    ):
        make(run, "infer")


def test_a_stage_is_stale_when_what_it_was_made_from_is(run: Run) -> None:
    make(run, *UP_TO_INFER)
    run.file("onnx").write_text("edited")
    assert "made from bs4/deit_bs4.onnx, which is not current (made from export/deit.onnx, which" in refusal(run, "logits")


def test_batch_sizes_are_made_and_recorded_apart(run: Run) -> None:
    make(run, *UP_TO_INFER)
    assert make(run.at(8), *UP_TO_INFER) == ["optimize", "infer"]
    assert make(run, *UP_TO_INFER) == []


def test_files_that_a_failing_stage_wrote_are_refused(run: Run) -> None:
    make(run, "preprocess")
    changed = opened(run.root, limit=2)

    def fail() -> None:
        files.write_text(changed.file("images"), "half of it")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        records.ensure(changed, "preprocess", fail)
    assert "images.npy was changed after it was made" in refusal(changed, "images")
    assert make(changed, "preprocess") == ["preprocess"]


def test_a_stage_that_fails_before_it_writes_leaves_what_was_there(run: Run) -> None:
    make(run, "preprocess")

    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        records.ensure(opened(run.root, limit=2), "preprocess", fail)
    assert records.problem(opened(run.root), "preprocess") is None


def test_forgetting_a_stage_makes_it_again(run: Run) -> None:
    make(run, "preprocess")
    records.forget(run, "preprocess")
    records.forget(run, "preprocess")
    assert make(run, "preprocess") == ["preprocess"]


def test_a_meta_folder_that_cannot_be_written_is_an_artifact_error(run: Run) -> None:
    (run.folder / "meta").rmdir()
    (run.folder / "meta").write_text("a file where a folder should be")
    with pytest.raises(ArtifactError, match="meta: cannot be written"):
        make(run, "preprocess")


COPIED = shutil.ignore_patterns("__pycache__")
# A file of the package -> the stages that are made again when it changes, of UP_TO_INFER; test_lineage.py has every file.
CHANGED_CODE = {"report/perf.py": (), "stages/preprocess.py": ("preprocess",), "run/recipes.py": UP_TO_INFER}


@pytest.mark.parametrize("file", CHANGED_CODE)
def test_changed_code_makes_its_own_stages_again_and_no_others(run: Run, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    make(run, *UP_TO_INFER)
    package = shutil.copytree(hashing._PACKAGE, run.root / "package", ignore=COPIED)
    monkeypatch.setattr(hashing, "_PACKAGE", package)
    hashing.code_sha256.cache_clear()
    assert make(run, *UP_TO_INFER) == []
    with (package / file).open("a") as code:
        code.write("\n# changed\n")
    hashing.code_sha256.cache_clear()
    stale = [stage for stage in UP_TO_INFER if records.problem(run, stage) == "the code that makes it changed"]
    assert stale == list(CHANGED_CODE[file])
    records.require(run, "images", "logits")


def test_another_version_of_a_package_makes_the_stage_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make(run, "preprocess")
    monkeypatch.setattr(host.metadata, "version", lambda name: "0.0.1")
    assert str(records.problem(run, "preprocess")).endswith(", now 0.0.1")
    records.require(run, "images")
