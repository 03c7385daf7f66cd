"""The model that is built from a checkpoint; what may be one is the table of tests/inputs/test_checkpoints.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from runs import TINY, make_checkpoint, opened

from deit_helpers.errors import ArtifactError, SpecError
from deit_helpers.model.checkpoint import load


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`{"model": state_dict}` of a tiny ViT with three classes."""
    return make_checkpoint(tmp_path_factory.mktemp("official") / "tiny.pth")


@pytest.fixture(scope="module")
def state(official: Path) -> dict[str, torch.Tensor]:
    return torch.load(official, weights_only=True)["model"]


def built_model(project: Path, checkpoint: Path, **keys: Any) -> Any:
    return load(opened(project, checkpoint=str(checkpoint), **keys))[0]


def test_the_built_model_computes_what_timms_does(project: Path, official: Path, state: dict[str, torch.Tensor]) -> None:
    plain = timm.create_model(TINY["model"], num_classes=3, **TINY["model_args"]).eval()
    plain.load_state_dict(state)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(built_model(project, official)(x), plain(x))


def test_a_relative_checkpoint_is_found_from_the_project(project: Path, official: Path) -> None:
    shutil.copy(official, project / "tiny.pth")
    assert built_model(project, Path("tiny.pth")).num_classes == 3


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
