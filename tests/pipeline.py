"""Runs made once and shared by the tests that only read them; `copy_of` is for the tests that damage one."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest
import torch
from conftest import draw, make_checkpoint, write_spec

from deit_helpers import open_run
from deit_helpers.run.folder import Run
from deit_helpers.stages import accuracy, convert, export, infer, optimize, perf, preprocess, reference

IMAGES = 13  # no multiple of 4 or 8
SIZES = (1, 4, 8)


def new_run(folder: Path, batch_size: int = 4, **keys: object) -> Run:
    """A run in `folder` with nothing made yet: tiny model, IMAGES images in three classes, absolute paths."""
    for i in range(IMAGES):
        draw(folder / "pictures" / "abc"[i % 3] / f"{i:02d}.png", (60 + 11 * i, 90 + 3 * i), seed=i)
    give_biases(make_checkpoint(folder / "tiny.pth"))
    paths = {"images": str(folder / "pictures"), "checkpoint": str(folder / "tiny.pth")}
    spec = write_spec(folder, **{**paths, "batch_sizes": list(SIZES), **keys})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return open_run(spec, batch_size)


def give_biases(checkpoint: Path) -> None:
    """Draw biases and norms: zeros and ones, as initialised, would be simplified away, unlike those of a trained model."""
    state = torch.load(checkpoint, weights_only=True)
    generator = torch.Generator().manual_seed(1)
    for tensor in state["model"].values():
        if tensor.ndim == 1:
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    torch.save(state, checkpoint)


def run_through_05(run: Run) -> Run:
    """Stages 01, 02, 04 and 05 of one batch size."""
    export.export(run)
    optimize.optimize(run)
    preprocess.preprocess(run)
    infer.infer(run)
    reference.reference(run)
    return run


def finished(factory: pytest.TempPathFactory) -> Run:
    """All stages at all SIZES, opened at 4, made once per session. Do not change its files."""
    return _finished(factory.getbasetemp())


@functools.cache
def _finished(folder: Path) -> Run:
    run = new_run(folder / "finished")
    for size in SIZES:
        run_through_05(run.at(size))
        convert.convert(run.at(size))
    for size in SIZES:
        accuracy.score(run.at(size))
        perf.measure(run.at(size))
    return run


def copy_of(run: Run, folder: Path) -> Run:
    """A copy of a run's folder, opened at the same batch size."""
    shutil.copytree(run.folder, folder / "copy")
    return open_run(folder / "copy" / "spec.yaml", run.batch_size)
