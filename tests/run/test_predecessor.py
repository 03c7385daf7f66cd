"""What a run gave the time before is kept, one generation, and said in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import copy_of

from deit_helpers.files import read_json, write_json
from deit_helpers.run import manifest, predecessor, records
from deit_helpers.run.folder import Run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run whose report was made."""
    run = copy_of(finished, tmp_path)
    manifest.write_manifest(run)
    return run


def measure_again(run: Run, faster: float) -> None:
    """Let 05 have been run again, so much faster at batch size 4, and the report be made anew."""
    at = run.at(4)
    write_json(
        at.file("infer"), at.read("infer") | {"interface_images_per_s": faster * at.read("infer")["interface_images_per_s"]}
    )
    for stage in ("infer", "score"):
        records.forget(at, stage)
        records.ensure(at, stage, lambda: None)
    said = predecessor.sentence(run)  # as a page says it that is made before the manifest
    manifest.write_manifest(run)
    assert predecessor.sentence(run) == said


def test_a_first_report_and_one_that_changes_nothing_keep_nothing(run: Run) -> None:
    manifest.write_manifest(run)
    assert not (run.folder / predecessor.FILE).exists()
    assert predecessor.sentence(run) == ""


def test_the_figures_of_the_time_before_are_kept_and_compared(run: Run) -> None:
    before = read_json(run.folder / "manifest.json")["summary"]
    measure_again(run, 100.0)  # now the fastest
    assert read_json(run.folder / predecessor.FILE) == before
    write_json(run.folder / predecessor.FILE, before | {"created": "2025-11-20T08:00:00+00:00"})
    assert predecessor.sentence(run) == "bs4: +9900.0 % images/s, +0.00 points Acc@1 since 20 Nov 2025"
    manifest.write_manifest(run)  # nothing changed
    assert read_json(run.folder / predecessor.FILE)["created"] == "2025-11-20T08:00:00+00:00"
    write_json(run.folder / predecessor.FILE, before | {"where": "torch fp32 on another"})
    assert predecessor.sentence(run).endswith(", then torch fp32 on another")


def test_a_report_of_a_run_that_stopped_halfway_is_no_generation(run: Run) -> None:
    before = json.loads((run.folder / "manifest.json").read_text())["summary"]
    records.forget(run.at(8), "infer")
    assert manifest.write_manifest(run)["summary"] == before
    records.ensure(run.at(8), "infer", lambda: None)
    measure_again(run, 1.5)
    assert read_json(run.folder / predecessor.FILE) == before


def test_another_batch_size_alone_is_no_generation(run: Run, tmp_path: Path) -> None:
    summary = read_json(run.folder / "manifest.json")["summary"]
    del summary["batch_sizes"]["8"]
    write_json(run.folder / "manifest.json", {"summary": summary})
    manifest.write_manifest(run)
    assert not (run.folder / predecessor.FILE).exists()
