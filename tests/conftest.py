"""Shared fixtures: a project folder in a temporary directory, small drawn images, a two-block random ViT."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image

from deit_helpers import open_run
from deit_helpers.run.folder import Run

REPOSITORY = Path(__file__).parents[1]
TINY = {"model": "vit_tiny_patch16_224", "model_args": {"depth": 2, "embed_dim": 48, "num_heads": 3}}

ONE_STREAM = {"runtime": {"streams": 1}}  # measuring which number is fastest would make tests depend on the machine


def draw(path: Path, size: tuple[int, int] = (90, 70), seed: int = 0, mode: str = "RGB") -> Path:
    """Write a picture of coloured noise blocks; the suffix of `path` decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def class_folders(project: Path) -> Path:
    """`pictures/{apple,berry,cedar}/N.jpg`, 13 images in all: no multiple of 2, 4 or 8."""
    for i in range(13):
        name = ("apple", "berry", "cedar")[i % 3]
        draw(project / "pictures" / name / f"{i:02d}.jpg", (60 + 11 * i, 90 + 3 * i), seed=i)
    return project / "pictures"


@pytest.fixture
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pth", classes=3)


def make_checkpoint(path: Path, classes: int = 3, seed: int = 0) -> Path:
    """A random two-block ViT in the layout of the official files: `{"model": state_dict}`."""
    import timm
    import torch

    torch.manual_seed(seed)
    model = timm.create_model(TINY["model"], num_classes=classes, **TINY["model_args"])
    with torch.no_grad():  # timm's initialisation gives nearly equal logits: spread them
        for weight in model.parameters():
            weight.mul_(3.0)
    torch.save({"model": model.state_dict()}, path)
    return path


def write_spec(project: Path, **keys: Any) -> Path:
    """Write `project/params/test.yaml`: the tiny model on `pictures`, one batch at a time, with `keys` on top."""
    images = {"checkpoint": "tiny.pth", "images": "pictures", "batch_sizes": [1, 4]}
    values = {**TINY, **ONE_STREAM, **images, "run": "test", **keys}
    path = project / "params" / "test.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def tiny_run(class_folders: Path, tiny_checkpoint: Path) -> Run:
    """An opened run at batch size 4: tiny model, 13 images in 3 classes, nothing made yet."""
    project = class_folders.parent
    return open_run(write_spec(project, checkpoint=str(tiny_checkpoint)), 4)


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A project folder with one whole run by the command line (`reports/mini`). Do not change its files."""
    import mini  # imports this module

    base = tmp_path_factory.getbasetemp()
    project = (base if worker_id == "master" else base.parent) / "mini" / "project"  # one for all processes
    project.parent.mkdir(exist_ok=True)
    done = project.with_suffix(".done")
    with FileLock(project.with_suffix(".lock")):
        if not done.exists():
            mini.finish(project)
            done.touch()
    return project


with warnings.catch_warnings():  # torch and timm warn at import; `filterwarnings = error` is about our own code
    warnings.simplefilter("ignore")
    import timm  # noqa: F401
