"""The first minute of the index: card, terminal and banner say the same, whatever a run has and lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from runs import REPOSITORY, copy_of, with_keys

from deit_helpers import files
from deit_helpers.errors import VerdictError
from deit_helpers.metrics.verdict import PUBLISHED, REFERENCE, port
from deit_helpers.report import accuracy, html, index, perf
from deit_helpers.report.elements import Banner, Chart
from deit_helpers.run import backends, records
from deit_helpers.run.backends import BACKENDS
from deit_helpers.run.folder import Run
from deit_helpers.stages.accuracy import require_pass

NAMES = {"infer": "infer", "score": "accuracy", "perf": "perf"}
Change = Callable[[str, dict[str, Any]], dict[str, Any]]


@pytest.fixture
def run(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run across batch sizes whose files count as current as long as they exist."""
    copy = copy_of(finished, tmp_path)

    def problem(at: Run, stage: str, **_: Any) -> str | None:
        return None if at.file(NAMES.get(stage, "infer")).exists() else "does not exist yet"

    monkeypatch.setattr(records, "problem", problem)
    for at in copy.at_each():
        change(at, "accuracy", cause=None)  # so few images are next to guessing
        for name in ("infer", "perf"):
            change(at, name, disturbed="")  # whatever ran beside the tests
    return Run(copy.spec, copy.folder, copy.root)


def change(at: Run, name: str, **keys: Any) -> None:
    files.write_json(at.file(name), {**at.read(name), **keys})


def judge(run: Run, agrees: str, meets: str) -> None:
    """Give every batch size a check against fp32 and one against a published figure, with these verdicts."""
    drop = {"pass": 0.25, "inconclusive": 0.75, "fail": 3.5}
    for at in run.at_each():
        checks = [
            {"metric": "Acc@1", "percent": 80 - drop[verdict], "expected_percent": 80.0, "of": kind, "max_drop_points": 1.0,
             "kind": kind, "drop_points": drop[verdict], "drop_at_least_points": drop[verdict] - 0.5,
             "drop_at_most_points": drop[verdict] + 0.5, "verdict": verdict, "images_to_decide": None}
            for kind, verdict in ((PUBLISHED, meets), (REFERENCE, agrees))
        ]  # fmt: skip
        verdict = max(agrees, meets, key=("pass", "inconclusive", "fail").index)
        change(at, "accuracy", checks=checks, verdict=verdict, top1_percent=80 - drop[meets])


@pytest.mark.parametrize("meets", ["pass", "inconclusive", "fail"])
@pytest.mark.parametrize("agrees", ["pass", "inconclusive", "fail"])
def test_card_terminal_banner_and_exit_say_one_word_one_sentence_and_one_figure(run: Run, agrees: str, meets: str) -> None:
    judge(run, agrees, meets)
    kind, told = port(agrees, meets)
    shown, banner, lines = index.card(run), accuracy.verdict(run), index.lines(run)
    assert (shown.kind, banner.kind) == (kind, kind)
    assert shown.text == f"{told[0].upper()}{told[1:]}."
    assert banner.text.startswith(shown.text)
    assert lines[0] == f"{kind.upper()}: {told}"
    assert shown.tiles[0].value in lines[1]
    if kind == "fail":
        with pytest.raises(VerdictError, match=f"FAIL, Acc@1 is .*; {re.escape(told)}"):
            require_pass(run)
    else:
        require_pass(run)
    assert f"Acc@1 is {shown.tiles[0].value}" in banner.text


def test_six_lines_are_the_verdict_four_figures_and_the_page(run: Run) -> None:
    judge(run, "pass", "pass")
    lines = index.lines(run)
    assert [line.split()[0] for line in lines] == ["PASS:", "Acc@1", "agreement", "throughput", "utilisation", "page"]
    assert "79.75 %: drop 0.25 points (-0.25 to 0.75) from expected 80.00 %, 0.25 points (-0.25 to 0.75) from fp32" in lines[1]
    assert lines[-1].endswith(str(run.folder / "index.html"))
    assert all(line == line.strip() and "\n" not in line for line in lines)


def test_the_best_rate_names_its_batch_size_interval_and_doubt(run: Run) -> None:
    for at, rate in zip(run.at_each(), (50.0, 90.0, 70.0), strict=True):
        change(at, "perf", pure={**at.read("perf")["pure"], "images_per_s": rate, "images_per_s_ci95": [rate - 1, rate + 1]})
    tile = index.tiles(run)[2]
    assert tile.value == "90.0 images/s"
    assert tile.note.startswith("at bs4, best of 3 batch sizes, 89.0 to 91.0 (95 %), model alone, onnxruntime ")
    assert "not trustworthy" not in tile.note
    change(run.at(4), "perf", disturbed="others had 34.0 % of the CPU")
    assert index.tiles(run)[2].note.endswith("not trustworthy: in 07, others had 34.0 % of the CPU")


@pytest.mark.parametrize(
    ("removed", "unknown"),
    [
        ((), []),
        (("accuracy",), ["Acc@1", "agreement"]),
        (("perf",), ["utilisation"]),
        (("accuracy", "perf", "infer"), ["Acc@1", "agreement", "throughput", "utilisation"]),
    ],
    ids=["all", "only timed", "07 not run", "nothing yet"],
)
def test_what_a_run_lacks_is_said_and_the_rest_is_drawn(run: Run, removed: tuple[str, ...], unknown: list[str]) -> None:
    for at in run.at_each():
        for name in removed:
            at.file(name).unlink()
    assert [tile.name for tile in index.tiles(run) if tile.value == "not known"] == unknown
    assert len(index.lines(run)) == 6
    drawn = [draw(run) for draw in (index.drop_chart, index.deployment, perf.families_chart, perf.limit_chart)]
    for element in (index.card(run), *drawn):
        assert BeautifulSoup(element._repr_html_(), "html.parser").get_text().strip()
    gone = ["accuracy" in removed, "infer" in removed, "perf" in removed, "perf" in removed]
    assert [isinstance(element, Banner) for element in drawn] == gone


def test_a_run_that_stopped_half_way_shows_what_it_has(run: Run) -> None:
    judge(run, "pass", "pass")
    for name in ("accuracy", "perf", "infer"):
        run.at(8).file(name).unlink()
    shown = index.card(run)
    assert shown.kind == "inconclusive"
    assert shown.text.startswith("Bs8 not scored yet; else the port is right")
    assert "best of 2 batch sizes" in shown.tiles[2].note


def test_the_title_names_run_model_device_precision_and_date(run: Run) -> None:
    created = records.read_record(run.at(8), "perf")["created"]
    assert re.fullmatch(r"test: vit_tiny_patch16_224 on CPU, fp32, \d\d [A-Z][a-z]{2} \d{4}", index.title(run))
    assert index.title(run).endswith(created[:4])
    for at in run.at_each():
        at.file("infer").unlink()
    assert index.title(run).startswith("test: vit_tiny_patch16_224 on onnxruntime, not measured yet, fp32")


def test_drops_are_drawn_with_the_bounds_they_are_judged_by(run: Run) -> None:
    judge(run, "pass", "fail")
    chart = index.drop_chart(run)
    assert isinstance(chart, Chart)
    axes = chart.figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"bs{size} Acc@1, from {side}" for size in (1, 4, 8) for side in ("expected", "fp32")]
    spans = [[float(x) for x, _ in line.get_segments()[0]] for line in axes.collections]
    assert spans == [[3.0, 4.0], [-0.25, 0.75]] * 3
    assert "bs8: Acc@1 is 76.50 %, 3.50 points below the 80.00 % of published, at most 1 below allowed, fail" in chart.alt
    assert "at least 3.00 points are lost" in chart.caption


def test_acc5_is_drawn_where_it_does_not_pass(run: Run) -> None:
    judge(run, "pass", "pass")
    for verdict, drawn in (("pass", False), ("fail", True)):
        checks = [{**check, "metric": "Acc@5", "verdict": verdict} for check in run.at(1).read("accuracy")["checks"][:1]]
        change(run.at(1), "accuracy", checks=[*run.at(1).read("accuracy")["checks"][:2], *checks])
        chart = index.drop_chart(run)
        assert isinstance(chart, Chart)
        assert ("Acc@5 is" in chart.alt) is drawn


def timed(run: Run, **p90_and_rate: tuple[float, float]) -> None:
    """Give batch sizes a p90 of 05 (all of its batches took that long) and a rate of 07."""
    for name, (p90, rate) in p90_and_rate.items():
        at = run.at(int(name[2:]))
        change(at, "infer", latency_ms={**at.read("infer")["latency_ms"], "p90": p90})
        pure = {**at.read("perf")["pure"], "images_per_s": rate, "images_per_s_ci95": None}
        change(at, "perf", pure=pure)
        files.write_text(at.file("latency"), "batch,latency_ms\n" + "".join(f"{i},{p90}\n" for i in range(60)))


@pytest.mark.parametrize(
    ("budget", "start"),
    [
        (None, "bs8 is the fastest: 100.0 images/s, 90 % of its batches take at most 80.0 ms (80.0 to 80.0)"),
        (100, "Deploy bs8 within 100 ms: 100.0 images/s"),
        (79, "Deploy bs4 within 79 ms: 90.0 images/s"),
        (20, "Deploy bs1 within 20 ms: 60.0 images/s"),
        (5, "No batch size surely keeps the budget of 5 ms: the least p90 is 16.0 ms, bs1"),
    ],
)
def test_the_batch_size_to_deploy_is_the_fastest_within_the_budget(run: Run, budget: float | None, start: str) -> None:
    timed(run, bs1=(16.0, 60.0), bs4=(44.0, 90.0), bs8=(80.0, 100.0))
    run = with_keys(run, latency_budget_ms=budget)
    chart = index.deployment(run)
    assert isinstance(chart, Chart)
    assert index.answer(run).startswith(start)
    assert chart.caption.startswith(start)
    assert f"{start}" in " ".join(index.card(run).notes)
    assert [text.get_text() for text in chart.figure.axes[0].texts[:3]] == ["bs1", "bs4", "bs8"]


def test_a_budget_that_lies_in_the_interval_of_the_p90_is_not_kept_for_certain(run: Run) -> None:
    timed(run, bs1=(16.0, 60.0), bs4=(44.0, 90.0), bs8=(80.0, 100.0))
    spread = "".join(f"{i},{80 + (20 if i >= 53 else 0)}\n" for i in range(60))  # seven of sixty took 100 ms
    files.write_text(run.at(8).file("latency"), f"batch,latency_ms\n{spread}")
    assert index.answer(with_keys(run, latency_budget_ms=90.0)).startswith("Deploy bs4 within 90 ms")


def test_a_point_of_a_disturbed_clock_is_hollow(run: Run) -> None:
    change(run.at(4), "infer", disturbed="others had 34.0 % of the CPU")
    chart = index.deployment(run)
    assert isinstance(chart, Chart)
    fills = [line.get_markerfacecolor() for line in chart.figure.axes[0].lines if line.get_marker() == "o"]
    assert [fill == "none" for fill in fills] == [False, True, False]


def test_imported_figures_without_percentiles_leave_nothing_to_choose(run: Run) -> None:
    for at in run.at_each():
        change(at, "infer", latency_ms={"mean": 6.4, "p50": None, "p90": None, "p99": None, "n": 0}, imported_from="x.txt")
    assert isinstance(index.deployment(run), Banner)
    assert f"the import of a tool's files was seen working on {backends.IMPORTED_SEEN_ON};" in index.card(run).notes[-1]


def test_the_readme_says_of_every_backend_what_the_card_says() -> None:
    table = (REPOSITORY / "README.md").read_text().partition("## What was never run on hardware")[2]
    rows = [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in table.splitlines() if line[:1] == "|"]
    for name, row in BACKENDS.items():
        assert [seen for part, seen in rows if re.search(rf"backends?\b.*\b{name}\b", part)] == [row.seen_on], name
    assert ["benchmark and ais_bench files" in part for part, seen in rows if seen == backends.IMPORTED_SEEN_ON] == [True]
    assert ["torch on a CUDA GPU" in part for part, seen in rows if seen == backends.NEVER_SEEN] == [True]


def test_a_device_that_a_backend_was_never_seen_on_is_named_as_such(run: Run) -> None:
    assert "backend onnxruntime was seen working on CPUs" in index.card(run).notes[-1]
    for at in run.at_each():
        change(at, "infer", runtime={**at.read("infer")["runtime"], "device": "NVIDIA H100"})
    assert "backend onnxruntime beyond CPUs was seen working on nothing" in index.card(run).notes[-1]


def test_the_index_has_the_title_of_its_run_once(run: Run) -> None:
    files.write_text(
        run.page("report"), nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A")]))
    )
    soup = BeautifulSoup(html.html(run.page("report"), run).read_text(), "html.parser")
    assert soup.title is not None
    assert soup.title.text == index.title(run)
