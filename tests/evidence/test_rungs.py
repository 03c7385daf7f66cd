"""The waterfall's rungs: each computes what its name says, is kept while its key holds, and does without what is not here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from runs import copy_of, with_keys

from deit_helpers.backends import Pool
from deit_helpers.data import sources
from deit_helpers.errors import ArtifactError
from deit_helpers.evidence import rungs
from deit_helpers.evidence.inputs import Input
from deit_helpers.evidence.rungs import Rung, State
from deit_helpers.run import hashing, records
from deit_helpers.run.folder import Run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    return copy_of(finished, tmp_path)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """The states whose images were run."""
    states, real = [], rungs._Maker._open

    def note(maker: Any, state: State) -> Pool:
        states.append(state)
        return real(maker, state)

    monkeypatch.setattr(rungs._Maker, "_open", note)
    return states


def climb(run: Run, *names: str) -> dict[str, Rung]:
    return {rung.name: rung for rung in rungs.climb(with_keys(run, waterfall=list(names)))}


def logits(rung: Rung) -> np.ndarray:
    assert rung.logits is not None, rung.reason
    return np.load(rung.logits)


def by_hand(run: Run, crops: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    """The exported graph on these crops, normalised with plain arithmetic."""
    x = ((crops / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2).astype(np.float32)
    session = onnxruntime.InferenceSession(run.file("onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": x})[0]


def test_each_rung_adds_its_change_to_those_before_it(run: Run) -> None:
    made = climb(run, "torch", "bgr", "no_std", "onnx", "simplified", "pad_tokens", "uint8_input", "device")
    assert all(rung.reason is None for rung in made.values())
    crops, recipe = np.load(run.file("images")), run.spec.recipe
    swapped = by_hand(run, crops[..., ::-1], recipe.mean, [1, 1, 1])
    oracles = {
        "torch": by_hand(run, crops, recipe.mean, recipe.std),
        "bgr": by_hand(run, crops[..., ::-1], recipe.mean, recipe.std),
        **dict.fromkeys(("no_std", "onnx", "simplified", "pad_tokens", "uint8_input"), swapped),
        "device": np.load(run.file("logits")),
    }
    for name, expected in oracles.items():
        assert logits(made[name]) == pytest.approx(expected, abs=1e-3), name
    assert np.abs(oracles["bgr"] - oracles["torch"]).max() > 0.1 < np.abs(swapped - oracles["bgr"]).max()
    assert made["pad_tokens"].state.edits == ("pad_tokens",)


def test_the_first_rung_is_the_specs_own_recipe_unless_the_list_opens_with_one(run: Run) -> None:
    assert list(climb(run, "bgr")) == ["start", "bgr"]
    made = climb(run, "modelzoo", "bicubic")
    assert list(made) == ["modelzoo", "bicubic"]
    assert made["modelzoo"].state.given.recipe.interpolation == "bilinear"
    assert made["bicubic"].state.given.recipe.interpolation == "bicubic"


def test_an_interrupted_waterfall_goes_on_behind_its_last_rung(
    run: Run, opened: list[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Pool.predictions

    def interrupted(pool: Pool, source: Any, singly: bool = False) -> Iterator[Any]:
        for number, prediction in enumerate(real(pool, source, singly)):
            if len(opened) == 3 and number == 1:
                raise KeyboardInterrupt
            yield prediction

    names = ("bgr", "no_std", "no_mean")
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "predictions", interrupted)
        with pytest.raises(KeyboardInterrupt):
            climb(run, *names)
    kept = {path: path.stat().st_mtime_ns for path in (run.folder / "waterfall").iterdir()}
    assert len(kept) == 2
    opened.clear()
    made = climb(run, *names)
    assert [rung.seconds is None for rung in made.values()] == [True, True, False, False]
    assert len(opened) == 2
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_all_batch_sizes_share_the_rungs_but_the_device(run: Run, opened: list[State]) -> None:
    four = climb(run, "onnx", "simplified", "device")
    opened.clear()
    one = climb(run.at(1), "onnx", "simplified", "device")
    assert opened == []
    assert [one[name].logits == four[name].logits for name in one] == [True, True, True, False]


def test_what_another_list_does_not_change_is_not_made_again_and_what_it_leaves_out_goes(run: Run, opened: list[State]) -> None:
    climb(run, "torch", "bgr", "onnx")
    opened.clear()
    made = climb(run, "torch", "no_mean", "onnx", "simplified")
    assert [name for name, rung in made.items() if rung.seconds is None] == ["torch"]
    assert sorted((run.folder / "waterfall").iterdir()) == sorted(rung.logits for rung in made.values() if rung.logits)


@pytest.mark.parametrize("what", ["weights", "code", "package", "damaged file"])
def test_a_rung_is_made_again_where_what_it_depends_on_changed(
    run: Run, opened: list[State], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = climb(run, "torch", "onnx")
    opened.clear()
    if what == "damaged file":
        path = made["onnx"].logits
        assert path is not None
        path.write_bytes(path.read_bytes()[:-8])
    elif what == "code":
        monkeypatch.setattr(hashing, "code_sha256", lambda code: "another")
    else:
        real = records.key

        def key(run: Run, stage: str) -> dict[str, Any]:
            now = real(run, stage)
            now["inputs"]["onnx"] = "another" if what == "weights" else now["inputs"]["onnx"]
            now["packages"]["onnxruntime"] = "another" if what == "package" else now["packages"]["onnxruntime"]
            return now

        monkeypatch.setattr(records, "key", key)
    climb(run, "torch", "onnx")
    expected = {"weights": ["onnx"], "damaged file": ["onnx"], "code": ["torch", "onnx"], "package": ["torch", "onnx"]}[what]
    assert [state.model for state in opened] == expected


def test_a_change_whose_images_are_not_here_is_left_out_of_the_rungs_after_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(run: Run) -> None:
        raise ArtifactError("pictures: no such folder")

    monkeypatch.setattr(sources, "list_folder", gone)
    made = climb(run, "bilinear", "bgr", "fold_scale")
    assert made["bilinear"].reason == "pictures: no such folder"
    assert made["bilinear"].logits is None
    assert made["fold_scale"].state == State(Input(run.spec.recipe, bgr=True), "simplified", ("fold_scale",))
    assert logits(made["fold_scale"]) == pytest.approx(logits(made["bgr"]), abs=1e-3)


def test_without_torch_the_exported_graph_stands_in_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deit_helpers.backends.torch_", None)
    monkeypatch.setattr(records, "version_of", lambda name: None if name == "torch" else "1")
    made = climb(run, "torch", "bgr", "onnx", "simplified")
    assert "backend 'torch' cannot be loaded" in str(made["torch"].reason)
    assert "PyTorch or the checkpoint is not on this host" in str(made["onnx"].reason)
    assert made["bgr"].state.model == "onnx"
    assert logits(made["bgr"]) == pytest.approx(logits(made["simplified"]), abs=1e-3)


def test_an_edit_that_finds_nothing_to_edit_is_a_row_with_its_reason(run: Run) -> None:
    made = climb(run, "pad_tokens", "pad_tokens_unmasked", "fold_scale")
    assert "pad_tokens_unmasked" in str(made["pad_tokens_unmasked"].reason)
    assert made["fold_scale"].state.edits == ("pad_tokens", "fold_scale")


def test_a_rung_that_is_more_than_its_name_says_what_else_changed(run: Run) -> None:
    made = climb(run, "bilinear", "onnx", "fold_scale", "device")
    assert made["onnx"].more_changes == ()
    assert made["fold_scale"].more_changes == ("model onnx → simplified",)
    assert made["device"].more_changes == ("interpolation bilinear → bicubic", "edits fold_scale → none")
    assert climb(run, "onnx", "simplified", "device")["device"].more_changes == ()


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_a_precision_rounds_the_graph_before_it(run: Run, name: str) -> None:
    made = climb(run, "torch", "onnx", "pad_tokens", name)
    assert made[name].state.edits == ("pad_tokens",)
    low = logits(made[name])
    assert 1e-5 < np.abs(low - logits(made["pad_tokens"])).max() < 0.5
    alone = climb(run, "torch", name)[name]
    assert alone.more_changes == ("model torch → onnx",)
    assert logits(alone) == pytest.approx(low, abs=0.1)
