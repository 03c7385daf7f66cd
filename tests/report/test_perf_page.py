"""What 07 and the report say of rates and operators."""

from __future__ import annotations

import pytest

from deit_helpers.report import perf, words
from deit_helpers.run.folder import Run


def test_batches_that_are_timed_together_are_all_counted(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    perf_json = finished.read("perf")
    pure = {**perf_json["pure"], "batches_per_sample": 2, "warmup_batches": 5}
    monkeypatch.setattr(Run, "read", lambda self, name: {**perf_json, "pure": pure})
    table = perf.rates(finished)
    (alone,) = (row for row in table.rows if row[0] == "model alone, warm")
    assert alone[1] == 2 * pure["latency_ms"]["n"]
    assert "10 warm-up batches left out" in table.caption


def test_a_latency_says_how_many_batches_were_in_flight() -> None:
    assert words.in_flight_text({"in_flight": [1]}, {}) == ""
    assert words.in_flight_text({"in_flight": [3]}, {"in_flight": [2]}).endswith(" with 2 or 3 in flight")


def test_operators_that_last_longer_than_the_batch_leave_no_negative_rest(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    perf_json = {**finished.read("perf"), "residual_ms": -3.0}
    monkeypatch.setattr(Run, "read", lambda self, name: perf_json)
    rows = perf.accounting(finished).values
    assert str(rows["ms per profiled batch outside operators"]).startswith("none")
