"""What 07 and the report say of rates and operators."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import copy_of

from deit_helpers import files
from deit_helpers.report import perf, words
from deit_helpers.report.elements import Chart
from deit_helpers.run import records
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


def read_with(monkeypatch: pytest.MonkeyPatch, run: Run, **keys: object) -> None:
    """Let perf.json say these things besides."""
    perf_json = {**run.read("perf"), **keys}
    monkeypatch.setattr(Run, "read", lambda self, name: perf_json)


@pytest.mark.parametrize(("percent", "said"), [(0.0, "others had 0.0 % of"), (None, "what others had of the CPU is not known")])
def test_the_rates_say_what_others_had_and_no_zero_where_it_is_not_known(
    finished: Run, monkeypatch: pytest.MonkeyPatch, percent: float | None, said: str
) -> None:
    read_with(monkeypatch, finished, pure={**finished.read("perf")["pure"], "other_cpu_percent": percent})
    assert said in perf.rates(finished).caption


def test_efficiency_is_one_figure_in_one_wording(finished: Run) -> None:
    table = perf.throughput(finished)
    (row,) = (row for row in table.df.to_dict("records") if row["batch size"] == finished.size)
    assert row["efficiency %"] == pytest.approx(100 * row["end to end images/s"] / row["images/s"])
    assert perf.EFFICIENCY in table.caption
    assert perf.accounting(finished).values[perf.EFFICIENCY] == f"{row['efficiency %']:.1f} %"


def test_families_are_drawn_in_ms_per_image_and_in_shares(finished: Run) -> None:
    chart = perf.families_chart(finished)
    assert isinstance(chart, Chart)
    facts = finished.read("perf")
    share = facts["families"]["SoftmaxV2"]["share_percent"]
    ms = facts["operators_ms"] / 4 * share / 100
    assert f"SoftmaxV2 {share:.1f} %, {ms:.2f} ms" in chart.alt
    above, below = chart.figure.axes
    widths = [bar.get_width() for bars in above.containers for bar in bars]
    assert sum(widths) == pytest.approx(facts["operators_ms"] / 4)
    assert f"{share:.1f} %, {ms:.2f} ms" in [text.get_text() for text in below.texts]


def test_the_way_from_the_peak_is_drawn_for_batch_sizes_that_know_different_parts(finished: Run, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    facts = {**run.at(8).read("perf"), "families": {}, "operators_ms": None, "profiled_ms": None}
    files.write_json(run.at(8).file("perf"), facts)
    records.adopt(run.at(8), "perf", [], "here", images=False)
    chart = perf.limit_chart(Run(run.spec, run.folder, run.root))
    assert isinstance(chart, Chart)
    assert "bs1: at the peak" in chart.alt
    assert "not profiled" in chart.alt.partition("bs8: ")[2]
    lengths = [sum(bars[i].get_width() for bars in chart.figure.axes[0].containers) for i in range(3)]
    assert lengths == pytest.approx([1000 / run.at(size).read("perf")["pure"]["images_per_s"] for size in (1, 4, 8)])
