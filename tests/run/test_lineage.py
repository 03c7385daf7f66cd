"""The table of the lineage: every file of a run has its stage, every entry exists."""

from __future__ import annotations

import house

from deit_helpers.run import lineage
from deit_helpers.run.backends import BACKENDS


def test_every_file_of_a_run_has_one_stage_that_makes_it() -> None:
    made = [name for stage in lineage.STAGES.values() for name in stage.outputs]
    assert sorted(made) == sorted(lineage.FILES)


def test_what_the_lineage_names_exists() -> None:
    for stage in lineage.STAGES.values():
        assert [entry for entry in stage.code if entry != "backend" and not (house.PACKAGE / entry).exists()] == []
    assert [file for row in BACKENDS.values() for file in row.code if not (house.PACKAGE / file).exists()] == []
