"""Shards of 05: complete or absent, resumed after an interruption, made elsewhere; and the same logits with `stream`."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline import IMAGES, copy_of, finished

from deit_helpers import files, pipeline
from deit_helpers.ascend import cann
from deit_helpers.backends import Execution, pool
from deit_helpers.backends.ort import OnnxRuntime
from deit_helpers.backends.ov import OpenVino
from deit_helpers.data import batches, sources
from deit_helpers.data.batches import Batch
from deit_helpers.errors import ArtifactError, BackendError, SpecError
from deit_helpers.executors import local
from deit_helpers.run import journal, records
from deit_helpers.run.folder import Run
from deit_helpers.run.spec import RunSpec
from deit_helpers.stages import infer, preprocess, reference


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(tmp_path_factory)


@pytest.fixture
def uninferred(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy in which 05 will run again, in shards of one batch of four."""
    monkeypatch.setattr(journal, "SHARD_IMAGES", 4)
    copy = copy_of(run, tmp_path)
    records.forget(copy, "infer")
    copy.file("logits").unlink()
    return copy


def with_keys(run: Run, **keys: Any) -> Run:
    values = {**run.spec.model_dump(mode="json"), **keys}
    return Run(RunSpec.from_mapping(values, "test"), run.folder, run.root, run.batch_size)


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


def test_an_interrupted_run_goes_on_where_it_was(uninferred: Run, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WARMUP_BATCHES", 0)
    with monkeypatch.context() as patch:
        failing_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            infer.infer(uninferred)
    folder = uninferred.file("infer").parent / "shards"
    assert [path.name for path in sorted(folder.iterdir())] == ["0000000-0000003.npz", "0000004-0000007.npz"]
    ran = failing_after(monkeypatch, 99, AssertionError())
    found = infer.infer(uninferred)
    assert ran == [4, 4]  # the two that were missing; the last one is padded
    np.testing.assert_array_equal(np.load(uninferred.file("logits")), np.load(run.file("logits")))
    assert [(row["first"], row["stop"]) for row in found["shards"]] == [(0, 4), (4, 8), (8, 12), (12, IMAGES)]
    assert found["batches"] == 4
    assert not folder.exists()


def test_shards_of_another_data_set_or_model_are_not_taken(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WARMUP_BATCHES", 0)
    infer.infer(with_keys(uninferred, runtime={"threads": 1}))
    records.forget(uninferred, "infer")
    first = journal.of(uninferred, IMAGES)[0]
    files.write_dir(first.path.parent)
    with first.path.open("wb") as file:
        np.savez(file, logits=np.zeros((4, 3), np.float32), spans=np.zeros((1, 7)), facts='{"key": "another"}')
    (first.path.parent / "0000004-0000007.npz").write_bytes(b"half of it")
    (first.path.parent / "0000008-0000011.npz").write_bytes(first.path.read_bytes()[:200])  # a copy that broke off
    ran = failing_after(monkeypatch, 99, AssertionError())
    infer.infer(uninferred)
    assert ran == [4, 4, 4, 4]


def test_shards_made_elsewhere_complete_a_run(uninferred: Run, run: Run, tmp_path: Path) -> None:
    here, there = with_keys(uninferred, shards=[0, 1]), tmp_path / "there"
    with pytest.raises(ArtifactError, match=r"2 of 4 shards are in .*such as 0000008-0000011\.npz, elsewhere"):
        infer.infer(here)
    shutil.copytree(uninferred.folder, there)
    other = Run(with_keys(uninferred, shards=[2, 3]).spec, there, uninferred.root, uninferred.batch_size)
    shutil.rmtree(there / "bs4" / "shards")
    with pytest.raises(ArtifactError, match="2 of 4 shards"):
        infer.infer(other)
    for path in (there / "bs4" / "shards").iterdir():
        shutil.copy(path, uninferred.folder / "bs4" / "shards")
    infer.infer(with_keys(uninferred, shards=[0, 0]))
    np.testing.assert_array_equal(np.load(uninferred.file("logits")), np.load(run.file("logits")))


def test_shards_of_two_devices_are_not_mixed(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match="1 of 4"):
        infer.infer(with_keys(uninferred, shards=[0, 0]))
    original = OnnxRuntime.describe
    monkeypatch.setattr(OnnxRuntime, "describe", lambda self: {**original(self), "hardware": "another"})
    with pytest.raises(
        ArtifactError, match=r"0000004-0000007\.npz: made by onnxruntime .* on another in fp32, the first by onnx"
    ):
        infer.infer(uninferred)


def test_shards_that_used_other_numbers_of_streams_go_together(
    uninferred: Run, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match="2 of 4"):
        infer.infer(with_keys(uninferred, backend="openvino", runtime={"streams": 1}, shards=[0, 1]))
    sent: list[int] = []
    original = OpenVino.infer
    monkeypatch.setattr(OpenVino, "infer", lambda self, *rest: sent.append(self.streams) or original(self, *rest))
    monkeypatch.setattr(pool, "WARMUP_BATCHES", 0)
    found = infer.infer(with_keys(uninferred, backend="openvino", runtime={"streams": 2}))
    assert sent == [2] * (2 + 2)  # to warm both streams, and for the two shards that were missing
    assert found["batches"] == 4
    np.testing.assert_allclose(np.load(uninferred.file("logits")), np.load(run.file("logits")), atol=1e-4)


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


def test_force_makes_the_shards_of_an_interrupted_run_again(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match="1 of 4"):
        infer.infer(with_keys(uninferred, shards=[0, 0]))
    monkeypatch.setattr(pipeline, "_run_notebook", lambda step: None)
    pipeline.execute([pipeline.Step("05_infer", uninferred, "forced")], True, lambda line: None)
    assert not (uninferred.file("infer").parent / "shards").exists()


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
def test_stream_gives_the_logits_of_the_store_without_one(run: Run, tmp_path: Path, size: int) -> None:
    copy = with_keys(copy_of(run, tmp_path), stream=True).at(size)
    copy.file("images").unlink()
    preprocess.preprocess(copy)
    infer.infer(copy)
    reference.reference(copy)
    for name in ("logits", "reference"):
        np.testing.assert_array_equal(np.load(copy.file(name)), np.load(run.at(size).file(name)))
    assert not copy.file("images").exists()
    assert copy.read("preprocess")["fingerprint"] == run.read("preprocess")["fingerprint"]
    assert sources.read_index(copy)[0] == sources.read_index(run)[0]


def test_a_damaged_image_in_a_stream_is_named_and_no_shard_holds_it(run: Run, tmp_path: Path) -> None:
    copy = with_keys(copy_of(run, tmp_path), stream=True)
    folder = tmp_path / "pictures"
    shutil.copytree(run.image_folder, folder)
    copy = with_keys(copy, images=str(folder))
    preprocess.preprocess(copy)
    (folder / "b" / "10.png").write_bytes(b"not an image")
    records.forget(copy, "preprocess")
    preprocess.preprocess(copy)
    with pytest.raises(ArtifactError, match=r"b/10\.png: cannot be decoded"):
        infer._infer(copy)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"stream": True, "bins": True}, "stream: false with bins"),
        ({"stream": True, "on_bad_image": "skip"}, "stream: false with bins, on_bad_image: skip"),
        ({"shards": [2, 1]}, "shards of the first and the last"),
        ({"backend": "torch", "edits": ["fold_scale"]}, r"edits: \[\] for backend torch"),
    ],
)
def test_keys_that_do_not_go_together_are_named(run: Run, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        with_keys(run, **keys)


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


@pytest.mark.parametrize(("chip", "same"), [("Ascend310P3", True), ("Ascend310P{}", False)])
def test_shards_of_two_chips_of_a_kind_go_together(monkeypatch: pytest.MonkeyPatch, chip: str, same: bool) -> None:
    monkeypatch.setattr(cann, "is_emulated", lambda backend: False)
    one, two = (
        journal.made_by({"runtime": cann.describe("pyacl", chip.format(i), i, "fp16"), "machine": {"cpu": f"Xeon {i}"}})
        for i in (1, 3)
    )
    assert (one == two) == same


def test_shards_copied_here_meanwhile_are_seen(
    uninferred: Run, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match="2 of 4"):
        infer.infer(with_keys(uninferred, shards=[2, 3]))
    folder = uninferred.file("infer").parent / "shards"
    folder.rename(tmp_path / "elsewhere")
    original = local.run_shards

    def meanwhile(*given: Any) -> None:
        original(*given)
        for path in (tmp_path / "elsewhere").iterdir():
            shutil.copy(path, folder)

    monkeypatch.setattr(infer, "run_shards", meanwhile)
    infer.infer(with_keys(uninferred, shards=[0, 1]))
    np.testing.assert_array_equal(np.load(uninferred.file("logits")), np.load(run.file("logits")))


def test_force_makes_its_own_shards_again_and_keeps_those_of_others(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match="3 of 4"):
        infer.infer(with_keys(uninferred, shards=[0, 2]))
    monkeypatch.setattr(pipeline, "_run_notebook", lambda step: None)
    pipeline.execute([pipeline.Step("05_infer", with_keys(uninferred, shards=[1, 2]), "forced")], True, lambda line: None)
    assert [path.name for path in (uninferred.file("infer").parent / "shards").iterdir()] == ["0000000-0000003.npz"]
