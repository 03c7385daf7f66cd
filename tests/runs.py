"""Makes runs for the tests: tiny weights, a spec, a run in a folder, a finished one, a project by the command line."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pictures import draw

from deit_helpers import open_run
from deit_helpers.run.folder import Run
from deit_helpers.run.spec import RunSpec
from deit_helpers.stages import accuracy, convert, export, infer, optimize, perf, preprocess, reference

REPOSITORY = Path(__file__).parents[1]
TINY = {"model": "vit_tiny_patch16_224", "model_args": {"depth": 2, "embed_dim": 48, "num_heads": 3}}
CLASSES = ("apple", "berry", "cedar")
IMAGES = 13  # no multiple of 2, 4 or 8
SIZES = (1, 4, 8)
ONE_STREAM = {"streams": 1}  # measuring which number is fastest would make tests depend on the machine
# Of 60 images one changed answer is more than a point: a seed whose images leave fp16 on the emulator room for none.
LIMITED = {"limit": 60, "limit_seed": 1160}
DEMO = {"checkpoint": "demo", "images": "demo", **LIMITED, "batch_sizes": [1, 8], "expected": "demo", "runtime": {}}


def draw_classes(folder: Path) -> Path:
    """Draw IMAGES pictures of many sizes, `CLASS/NN.jpg`, dealt to the classes in turn."""
    for i in range(IMAGES):
        draw(folder / CLASSES[i % 3] / f"{i:02d}.jpg", (60 + 11 * i, 90 + 3 * i), seed=i)
    return folder


def make_checkpoint(path: Path) -> Path:
    """A random two-block ViT in the layout of the official files: `{"model": state_dict}`."""
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model(TINY["model"], num_classes=len(CLASSES), **TINY["model_args"])
    with torch.no_grad():  # timm's initialisation gives nearly equal logits: spread them
        for weight in model.parameters():
            weight.mul_(3.0)
            if weight.ndim == 1:  # zeros and ones would be simplified away, unlike the biases and norms of a trained model
                weight.add_(0.1 * torch.randn(weight.shape))
    torch.save({"model": model.state_dict()}, path)
    return path


def write_spec(project: Path, **keys: Any) -> Path:
    """Write `project/params/RUN.yaml`: the tiny model on `pictures`, one batch at a time, with `keys` on top."""
    files = {"checkpoint": "tiny.pth", "images": "pictures"}
    spec = {**TINY, **files, "run": "test", "batch_sizes": list(SIZES), "runtime": ONE_STREAM, **keys}
    path = project / "params" / f"{spec['run']}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(spec))
    return path


def opened(project: Path, **keys: Any) -> Run:
    """The run at batch size 4 of a project that is the working directory, its spec written with `keys`."""
    return open_run(write_spec(project, **keys), 4)


def new_run(folder: Path, **keys: Any) -> Run:
    """A run in `folder` at batch size 4, opened by absolute paths, with nothing made yet."""
    images, checkpoint = draw_classes(folder / "pictures"), make_checkpoint(folder / "tiny.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return opened(folder, images=str(images), checkpoint=str(checkpoint), **keys)


def run_through_05(run: Run) -> Run:
    """Make the files of stages 01, 02, 04 and 05 at the run's batch size."""
    for stage in (export.export, optimize.optimize, preprocess.preprocess, infer.infer, reference.reference):
        stage(run)
    return run


def finish(run: Run) -> Run:
    """Make the files of every stage at every batch size."""
    for at in run.at_each():
        convert.convert(run_through_05(at))
    for at in run.at_each():  # 06 compares batch sizes
        accuracy.score(at)
        perf.measure(at)
    return run


def with_keys(run: Run, **keys: Any) -> Run:
    """The run with other values of some keys of its spec, validated as if read from a file."""
    spec = RunSpec.from_mapping({**run.spec.model_dump(mode="json"), **keys}, "test")
    return dataclasses.replace(run, spec=spec)


def copy_of(run: Run, folder: Path, **keys: Any) -> Run:
    """A copy of a run's folder, opened at the same batch size: for tests that change files, or keys of the spec."""
    shutil.copytree(run.folder, folder / "copy")
    return with_keys(open_run(folder / "copy" / "spec.yaml", run.batch_size), **keys)


def run_tool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python module of the environment as a program, such as `deit_helpers run …` or `papermill …`."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=cwd, env=dict(os.environ), capture_output=True, text=True, check=False)


def make_project(folder: Path, **keys: Any) -> Path:
    """A project folder with `params/mini.yaml`: the demo with the tiny model."""
    write_spec(folder, **{**DEMO, "run": "mini", **keys})
    return folder


def finish_project(folder: Path) -> None:
    """Make a project in a new folder and run `deit-report run params/mini.yaml` in it."""
    result = run_tool("deit_helpers", "run", "params/mini.yaml", cwd=make_project(folder))
    assert result.returncode == 0, result.stderr
