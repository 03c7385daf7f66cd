"""The summary that ais_bench writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deit_helpers.ascend import ais_bench
from deit_helpers.errors import ArtifactError


def test_a_summary_keeps_every_sample(tmp_path: Path) -> None:
    path = tmp_path / "2022_12_17-07_37_18_summary.json"
    path.write_text(json.dumps({"npu_compute_time_list": [60.0, 64.0], "throughput": 1000 * 8 / 62, "pid": 1}))
    assert ais_bench.read_summary(path) == ais_bench.Summary([60.0, 64.0], 1000 * 8 / 62, 8)
    path.write_text(json.dumps({"throughput": 1.0}))
    with pytest.raises(ArtifactError, match="no key 'npu_compute_time_list'"):
        ais_bench.read_summary(path)
