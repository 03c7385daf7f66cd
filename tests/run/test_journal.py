"""Shards of 05 as files: which ones complete a run, made here or elsewhere, and which are not taken or refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import IMAGES, copy_of, with_keys

from deit_helpers import files
from deit_helpers.ascend import cann
from deit_helpers.backends import pool
from deit_helpers.backends.ort import OnnxRuntime
from deit_helpers.backends.ov import OpenVino
from deit_helpers.errors import ArtifactError
from deit_helpers.executors import local
from deit_helpers.run import journal, records
from deit_helpers.run.folder import Run
from deit_helpers.stages import infer


def test_shards_of_another_data_set_or_model_are_not_taken(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    infer.infer(with_keys(uninferred, runtime={"threads": 1}))
    monkeypatch.setattr(pool, "WARMUP_BATCHES", 0)
    records.forget(uninferred, "infer")
    first = journal.shards(uninferred, IMAGES)[0]
    files.write_dir(first.path.parent)
    with first.path.open("wb") as file:
        np.savez(file, logits=np.zeros((4, 3), np.float32), timings=np.zeros((1, 7)), facts='{"key": "another"}')
    (first.path.parent / "0000004-0000007.npz").write_bytes(b"half of it")
    (first.path.parent / "0000008-0000011.npz").write_bytes(first.path.read_bytes()[:200])  # a copy that broke off
    sent: list[int] = []
    original = OnnxRuntime.infer
    monkeypatch.setattr(OnnxRuntime, "infer", lambda self, *rest: sent.append(len(rest[-1])) or original(self, *rest))
    infer.infer(uninferred)
    assert sent == [4, 4, 4, 4]


def test_shards_made_elsewhere_complete_a_run(uninferred: Run, finished: Run, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"2 of 4 shards are in .*such as 0000008-0000011\.npz, elsewhere"):
        infer.infer(with_keys(uninferred, shards=[0, 1]))
    other = copy_of(uninferred, tmp_path / "elsewhere", shards=[2, 3])
    shutil.rmtree(other.folder / "bs4" / "shards")
    with pytest.raises(ArtifactError, match="2 of 4 shards"):
        infer.infer(other)
    for path in (other.folder / "bs4" / "shards").iterdir():
        shutil.copy(path, uninferred.folder / "bs4" / "shards")
    infer.infer(with_keys(uninferred, shards=[0, 0]))
    np.testing.assert_array_equal(np.load(uninferred.file("logits")), np.load(finished.file("logits")))


def test_shards_copied_here_meanwhile_are_seen(
    uninferred: Run, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    np.testing.assert_array_equal(np.load(uninferred.file("logits")), np.load(finished.file("logits")))


def test_shards_of_two_devices_are_not_mixed(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match="1 of 4"):
        infer.infer(with_keys(uninferred, shards=[0, 0]))
    original = OnnxRuntime.describe
    monkeypatch.setattr(OnnxRuntime, "describe", lambda self: {**original(self), "hardware": "another"})
    with pytest.raises(
        ArtifactError, match=r"0000004-0000007\.npz: made by onnxruntime .* on another in fp32, the first by onnx"
    ):
        infer.infer(uninferred)


@pytest.mark.parametrize(("chip", "same"), [("Ascend310P3", True), ("Ascend310P{}", False)])
def test_shards_of_two_chips_of_a_kind_go_together(monkeypatch: pytest.MonkeyPatch, chip: str, same: bool) -> None:
    monkeypatch.setattr(cann, "is_emulated", lambda backend: False)
    one, two = (
        journal.made_by({"runtime": cann.describe("pyacl", chip.format(i), i, "fp16"), "machine": {"cpu": f"Xeon {i}"}})
        for i in (1, 3)
    )
    assert (one == two) == same


def test_shards_that_used_other_numbers_of_streams_go_together(
    uninferred: Run, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match="2 of 4"):
        infer.infer(with_keys(uninferred, backend="openvino", runtime={"streams": 1}, shards=[0, 1]))
    sent: list[int] = []
    original = OpenVino.infer
    monkeypatch.setattr(OpenVino, "infer", lambda self, *rest: sent.append(self.streams) or original(self, *rest))
    monkeypatch.setattr(pool, "WARMUP_BATCHES", 0)
    facts = infer.infer(with_keys(uninferred, backend="openvino", runtime={"streams": 2}))
    assert sent == [2] * (2 + 2)  # to warm both streams, and for the two shards that were missing
    assert facts["batches"] == 4
    np.testing.assert_allclose(np.load(uninferred.file("logits")), np.load(finished.file("logits")), atol=1e-4)
