"""A run is verified fresh, copied and packed small; whatever was changed since is found and named."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from deit_helpers.__main__ import main
from deit_helpers.audit import bundle
from deit_helpers.audit.verify import verify
from deit_helpers.explore import OpenedRun
from deit_helpers.run.folder import Run

PAGE = "bs1/06_accuracy.html"


def verified(given: Path) -> tuple[int, str]:
    """How much differs, and what is said."""
    said: list[str] = []
    return verify(given, OpenedRun.resolve, said.append), "\n".join(said)


def state(folder: Path) -> dict[str, tuple[str, int]]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in paths}


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def mend_record(folder: Path, name: str, record: str) -> None:
    """Write the hash that a file has now into its record, as a careful forger does."""
    path = folder / "meta" / record
    facts = json.loads(path.read_text())
    facts["outputs"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(facts))


@pytest.fixture
def folder(finished_project: Path, tmp_path: Path) -> Path:
    """A copy of a finished run with the pages of 06 at batch size 1 and of the report alone: the others take time."""
    copy = tmp_path / "mini"
    shutil.copytree(finished_project / "reports/mini", copy, ignore=shutil.ignore_patterns("0[1-57]_*", "page_0[1-57]*"))
    return copy


def test_a_run_passes_as_it_is_and_copied_without_its_images_and_stays_as_it_was(
    finished_project: Path, tmp_path: Path
) -> None:
    run = finished_project / "reports/mini"
    before = state(run)
    wrong, said = verified(run)
    assert (wrong, said.splitlines()[-1]) == (0, f"verified: {run}"), said
    assert state(run) == before
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("images", "images.npy"))
    wrong, said = verified(tmp_path / "copy")
    assert re.findall("mismatch .*", said) == [
        "mismatch     dataset/images.npy: sha256 is 'that of no file', meta/preprocess.json says"
    ]
    assert wrong == 1


def test_the_small_file_passes_and_says_what_it_cannot_tell(finished_project: Path, tmp_path: Path) -> None:
    path = tmp_path / "mini.audit.tar.xz"
    result = CliRunner().invoke(main, ["pack", "--audit", str(finished_project / "reports/mini"), "-o", str(path)])
    assert (result.exit_code, path.stat().st_size < 2_000_000) == (0, True), result.output
    result = CliRunner().invoke(main, ["verify", str(path)])
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, f"verified: {path}"), result.output
    assert "bs1/accuracy.json: what only logits tell: reference.max_abs_diff" in result.output
    assert re.search(r"not checked +\d+ files .*images\.npy", result.output)
    assert "bs1/latency.csv" not in result.output  # it is there to the last digit
