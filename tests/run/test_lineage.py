"""The table of the lineage: every file of a run has its stage, every entry exists."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import house
import pytest
from runs import new_run

from deit_helpers.run import hashing, lineage, records
from deit_helpers.run.backends import BACKENDS
from deit_helpers.run.folder import Run


def test_every_file_of_a_run_has_one_stage_that_makes_it() -> None:
    made = [name for stage in lineage.STAGES.values() for name in stage.outputs]
    assert sorted(made) == sorted(lineage.FILES)


def test_what_the_lineage_names_exists() -> None:
    for stage in lineage.STAGES.values():
        assert [entry for entry in stage.code if entry != "backend" and not (house.PACKAGE / entry).exists()] == []
    assert [file for row in BACKENDS.values() for file in row.code if not (house.PACKAGE / file).exists()] == []


MAKES_STORE_GRAPH_OR_SHARD = ("export", "optimize", "preprocess", "reference", "infer")
OUTSIDE = ("report/perf.py", "report/templates/style.css", "ascend/npu_smi.py", "ascend/benchmark.py", "metrics/latency.py",
           "metrics/classification.py", "pipeline.py", "__main__.py", "stages/accuracy.py", "run/expected.py")  # fmt: skip


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package whose files stand for the code of the stages."""
    copy = tmp_path / "package"
    shutil.copytree(house.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(hashing, "_PACKAGE", copy)
    hashing.code_sha256.cache_clear()
    yield copy
    hashing.code_sha256.cache_clear()


def changed_by(package: Path, file: str, codes: dict[str, tuple[str, ...]]) -> set[str]:
    """The rows whose code has another hash after a comment was added to a file."""
    before = {name: hashing.code_sha256(code) for name, code in codes.items()}
    with (package / file).open("a") as text:
        text.write("\n")
    hashing.code_sha256.cache_clear()
    return {name for name, code in codes.items() if hashing.code_sha256(code) != before[name]}


def codes_of(run: Run) -> dict[str, tuple[str, ...]]:
    rows = {name: records.code_of(run, stage.code) for name, stage in lineage.STAGES.items() if stage.code}
    return rows | {"shards": records.code_of(run, lineage.SHARD_CODE)}


@pytest.mark.parametrize("stage", [name for name, row in lineage.STAGES.items() if row.code])
def test_a_change_in_any_file_of_a_row_makes_its_stage_again(stage: str, package: Path, tmp_path: Path) -> None:
    codes = codes_of(new_run(tmp_path))
    files = [package / entry for entry in codes[stage]]
    for file in (file for entry in files for file in ([entry] if entry.is_file() else sorted(entry.glob("*.*")))):
        assert stage in changed_by(package, file.relative_to(package).as_posix(), codes), file


@pytest.mark.parametrize("file", OUTSIDE)
def test_a_change_outside_makes_no_store_graph_or_shard_again(file: str, package: Path, tmp_path: Path) -> None:
    changed = changed_by(package, file, codes_of(new_run(tmp_path)))
    assert changed.isdisjoint({*MAKES_STORE_GRAPH_OR_SHARD, "shards"})


def test_the_assembly_of_shards_may_change_and_they_stay(package: Path, tmp_path: Path) -> None:
    assert changed_by(package, "stages/infer.py", codes_of(new_run(tmp_path))) == {"infer"}
    assert "shards" in changed_by(package, "data/transforms.py", codes_of(new_run(tmp_path)))
