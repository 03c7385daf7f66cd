"""Checkpoints: what is read, what is refused, and that a refused one runs nothing."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from runs import TINY, make_checkpoint, opened
from safetensors.torch import save_file

from deit_helpers.errors import ArtifactError, SpecError
from deit_helpers.model import checkpoint
from deit_helpers.model.checkpoint import build
from deit_helpers.run import hashing


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`{"model": state_dict}` of a tiny ViT with three classes."""
    return make_checkpoint(tmp_path_factory.mktemp("official") / "tiny.pth")


@pytest.fixture(scope="module")
def state(official: Path) -> dict[str, torch.Tensor]:
    return torch.load(official, weights_only=True)["model"]


def built_model(project: Path, checkpoint: Path, **keys: Any) -> Any:
    return build(opened(project, checkpoint=str(checkpoint), **keys))


@pytest.mark.parametrize("layout", ["official", "bare", "safetensors"])
def test_every_layout_of_a_checkpoint_gives_the_same_weights(
    project: Path, state: dict[str, torch.Tensor], layout: str
) -> None:
    path = project / ("x.safetensors" if layout == "safetensors" else "x.pth")
    if layout == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state} if layout == "official" else state, path)
    built = built_model(project, path)
    assert not built.training
    assert built.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in built.state_dict().items())


def test_the_built_model_computes_what_timms_does(project: Path, official: Path, state: dict[str, torch.Tensor]) -> None:
    plain = timm.create_model(TINY["model"], num_classes=3, **TINY["model_args"]).eval()
    plain.load_state_dict(state)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(built_model(project, official)(x), plain(x))


def test_a_relative_checkpoint_is_found_from_the_project(project: Path, official: Path) -> None:
    shutil.copy(official, project / "tiny.pth")
    assert built_model(project, Path("tiny.pth")).num_classes == 3


def test_a_missing_file_says_what_to_give(project: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"no such file .*nowhere\.pth; give a \.pth or \.safetensors file, `hub` or `demo`"
    ):
        built_model(project, Path("nowhere.pth"))


def test_a_hash_in_the_name_is_checked(tmp_path: Path, official: Path) -> None:
    prefix = hashing.sha256(official)[:8]
    right, wrong = tmp_path / f"tiny-{prefix}.pth", tmp_path / "tiny-00000000.pth"
    for path in (right, wrong):
        shutil.copy(official, path)
    assert checkpoint.load_state(right)
    with pytest.raises(ArtifactError, match=f"its sha256 starts with {prefix}, its name says 00000000: get it again"):
        checkpoint.load_state(wrong)


class RunsCode:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("torch_file", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path: Path, torch_file: bool) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    evil = {"model": {"head.weight": RunsCode(marker)}}
    if torch_file:
        torch.save(evil, path)
    else:
        path.write_bytes(pickle.dumps(evil, protocol=2))
    with pytest.raises(ArtifactError, match=r"evil\.pth: refused, reading it would run code .*use the official file"):
        checkpoint.load_state(path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if torch_file else pickle.loads(path.read_bytes())
    assert marker.exists()  # the file is a real one


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1000, -1])  # bytes; -1: all but the last
def test_a_truncated_file_is_named(tmp_path: Path, state: dict[str, torch.Tensor], suffix: str, kept: int) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=rf"cut\{suffix}: (cannot be read as a checkpoint|refused)"):
        checkpoint.load_state(path)


@pytest.mark.parametrize("value", [[1, 2], {}, {"model": {}}, {"epoch": 3, "lr": 0.1}, torch.zeros(3)])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "other.pth"
    torch.save(value, path)
    with pytest.raises(ArtifactError, match="holds no state dict"):
        checkpoint.load_state(path)


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({"depth": 3}, r"missing blocks\.2\..* … \(12\)"),
        ({"depth": 1}, r"unexpected blocks\.1\..* … \(12\)"),
        ({"embed_dim": 96}, r"of another shape blocks\.0\."),
    ],
)
def test_a_checkpoint_of_another_model_says_which_keys_differ(
    project: Path, official: Path, model_args: dict[str, int], message: str
) -> None:
    with pytest.raises(ArtifactError, match=rf"not a checkpoint of vit_tiny_patch16_224: keys .*{message}"):
        built_model(project, official, model_args={**TINY["model_args"], **model_args})


@pytest.mark.parametrize("keys", [{"model": "vit_tinny"}, {"model_args": {"no_such_option": 1}}])
def test_a_model_timm_cannot_create_is_a_wrong_spec(project: Path, official: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="timm cannot create"):
        built_model(project, official, **keys)


def test_a_download_that_fails_says_to_give_a_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **options: object) -> None:
        assert options["pretrained"]
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ArtifactError, match=r"the download of vit_tiny_patch16_224 failed \(no route to host\); give a file"):
        built_model(project, Path("hub"))


def test_the_demos_weights_want_the_demos_images(project: Path) -> None:
    with pytest.raises(SpecError, match="expected images: demo with checkpoint: demo"):
        opened(project, checkpoint="demo")
