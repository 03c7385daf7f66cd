"""Shards of 05 made in this process: resumed after an interruption, in one go; the same logits with `stream`."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from runs import IMAGES, copy_of, with_keys

from deit_helpers.backends import Execution, pool
from deit_helpers.backends.ort import OnnxRuntime
from deit_helpers.data import batches, sources
from deit_helpers.data.batches import Batch
from deit_helpers.errors import ArtifactError, BackendError
from deit_helpers.metrics import latency
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.stages import infer, preprocess, reference


def failing_after(monkeypatch: pytest.MonkeyPatch, batches: int, error: BaseException) -> list[int]:
    """Let the model fail at a batch; returns a list that counts the batches run."""
    ran: list[int] = []
    original = OnnxRuntime.infer

    def fails(self: OnnxRuntime, session: object, batch: np.ndarray) -> Execution:
        if len(ran) == batches:
            raise error
        ran.append(len(batch))
        return original(self, session, batch)

    monkeypatch.setattr(OnnxRuntime, "infer", fails)
    return ran


def test_an_interrupted_run_goes_on_where_it_was(uninferred: Run, finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WARMUP_BATCHES", 0)
    with monkeypatch.context() as patch:
        failing_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            infer.infer(uninferred)
    folder = uninferred.file("infer").parent / "shards"
    assert [path.name for path in sorted(folder.iterdir())] == ["0000000-0000003.npz", "0000004-0000007.npz"]
    ran = failing_after(monkeypatch, 99, AssertionError())
    facts = infer.infer(uninferred)
    assert ran == [4, 4]  # the two that were missing; the last one is padded
    np.testing.assert_array_equal(np.load(uninferred.file("logits")), np.load(finished.file("logits")))
    assert [(row["first"], row["stop"]) for row in facts["shards"]] == [(0, 4), (4, 8), (8, 12), (12, IMAGES)]
    assert facts["batches"] == 4
    assert not folder.exists()


def test_neighbouring_shards_are_made_in_one_go(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    original = batches.batches

    def noting(run: Run, size: int, dtype: np.dtype, first: int, stop: int) -> Generator[Batch, None, None]:
        asked.append((first, stop))
        return original(run, size, dtype, first, stop)

    with pytest.raises(ArtifactError, match="1 of 4"):
        infer.infer(with_keys(uninferred, shards=[1, 1]))
    monkeypatch.setattr(batches, "batches", noting)
    infer.infer(uninferred)
    assert asked == [(0, 4), (0, 4), (8, IMAGES)]  # to warm up, before the gap, after it


def test_a_nan_names_the_image_and_nothing_is_written(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    original = OnnxRuntime.infer
    calls: list[int] = []

    def sick(self: OnnxRuntime, session: object, batch: np.ndarray) -> Execution:
        execution = original(self, session, batch)
        calls.append(1)
        if len(calls) == pool.WARMUP_BATCHES + 3:
            execution.logits[1] = np.nan
        return execution

    monkeypatch.setattr(OnnxRuntime, "infer", sick)
    with pytest.raises(BackendError, match="NaN or infinite logits for image 9, in the batch from image 8"):
        infer.infer(uninferred)
    assert not uninferred.file("logits").exists()
    assert not uninferred.file("infer").parent.joinpath("shards", "0000008-0000011.npz").exists()


@pytest.mark.parametrize("size", [1, 8])
def test_stream_gives_the_logits_of_the_store_without_one(finished: Run, tmp_path: Path, size: int) -> None:
    copy = copy_of(finished, tmp_path, stream=True).at(size)
    copy.file("images").unlink()
    preprocess.preprocess(copy)
    infer.infer(copy)
    reference.reference(copy)
    for name in ("logits", "reference"):
        np.testing.assert_array_equal(np.load(copy.file(name)), np.load(finished.at(size).file(name)))
    assert not copy.file("images").exists()
    assert copy.read("preprocess")["fingerprint"] == finished.read("preprocess")["fingerprint"]
    assert sources.read_index(copy)[0] == sources.read_index(finished)[0]


def test_a_damaged_image_in_a_stream_is_named_and_no_shard_holds_it(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path, stream=True)
    folder = tmp_path / "pictures"
    shutil.copytree(finished.image_folder, folder)
    copy = with_keys(copy, images=str(folder))
    preprocess.preprocess(copy)
    (folder / "berry" / "10.jpg").write_bytes(b"not an image")
    records.forget(copy, "preprocess")
    preprocess.preprocess(copy)
    with pytest.raises(ArtifactError, match=r"berry/10\.jpg: cannot be decoded"):
        infer._infer.__wrapped__(copy)  # whatever 01 was made from


def test_a_shard_is_kept_when_the_image_after_it_is_damaged(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are sent ahead: an error of a later image must not lose predictions that are under way."""
    original = batches.batches

    def damaged(run: Run, size: int, dtype: np.dtype, first: int, stop: int) -> Generator[Batch, None, None]:
        for batch in original(run, size, dtype, first, stop):
            if batch.start == 4:
                raise ArtifactError("4.jpg: cannot be decoded")
            yield batch

    monkeypatch.setattr(batches, "batches", damaged)
    with pytest.raises(ArtifactError, match=r"4\.jpg"):
        infer.infer(with_keys(uninferred, backend="openvino", runtime={"streams": 2}))
    folder = uninferred.file("infer").parent / "shards"
    assert [path.name for path in folder.iterdir()] == ["0000000-0000003.npz"]


def test_shards_stay_until_what_is_made_of_them_is_written(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(latency, "write_latency", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            infer.infer(uninferred)
    assert len(list((uninferred.file("infer").parent / "shards").iterdir())) == 4
    ran = failing_after(monkeypatch, 0, AssertionError("inferred again"))
    assert infer.infer(uninferred)["images"] == IMAGES
    assert ran == []
    assert not (uninferred.file("infer").parent / "shards").exists()


def test_images_that_are_gone_since_04_are_an_error_and_no_row_is_made_up(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path, stream=True)
    preprocess.preprocess(copy)
    pictures = shutil.copytree(copy.image_folder, tmp_path / "fewer")
    sorted(pictures.rglob("*.jpg"))[-1].unlink()
    fewer = with_keys(copy, images=str(pictures))
    with pytest.raises(ArtifactError, match=r"fewer/.*\.jpg: cannot be decoded .*replace the file"):
        infer._infer.__wrapped__(fewer)
