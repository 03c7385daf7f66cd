"""Shared fixtures: an empty project, pictures in class folders, a finished run, a project finished by the command line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import runs
from filelock import FileLock

from deit_helpers.run import host, journal, records
from deit_helpers.run.folder import Run


@pytest.fixture(autouse=True, scope="session")
def quiet_machine() -> Iterator[None]:
    """What others do to this machine is in no file that tests make in their process; those of `host` have it back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host.Others, "percent", lambda self: (0.0, 0.0))
        patch.setattr(host, "interrupted_percent", lambda: 0.0)
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def class_folders(project: Path) -> Path:
    """`pictures/{apple,berry,cedar}/NN.jpg` in the project, 13 images in all."""
    return runs.draw_classes(project / "pictures")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with all stages made at all batch sizes, opened at 4. Do not change its files: `copy_of` is for that."""
    return runs.finish(runs.new_run(tmp_path_factory.mktemp("finished")))


@pytest.fixture
def uninferred(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the finished run in which 05 will run again, in shards of one batch of four."""
    monkeypatch.setattr(journal, "SHARD_IMAGES", 4)
    copy = runs.copy_of(finished, tmp_path)
    records.forget(copy, "infer")
    copy.file("logits").unlink()
    return copy


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A project folder with one whole run by the command line (`reports/mini`). Do not change its files."""
    base = tmp_path_factory.getbasetemp()
    project = (base if worker_id == "master" else base.parent) / "mini"  # one for all processes
    complete = project.with_suffix(".complete")
    with FileLock(project.with_suffix(".lock")):
        if not complete.exists():
            runs.finish_project(project)
            complete.touch()
    return project


with warnings.catch_warnings():  # torch and timm warn at import; `filterwarnings = error` is about our own code
    warnings.simplefilter("ignore")
    import timm  # noqa: F401
