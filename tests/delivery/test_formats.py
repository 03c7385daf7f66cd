"""A finished run in other forms than its pages: the same figures, wherever they are read."""

from __future__ import annotations

import csv
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import runs
from bs4 import BeautifulSoup
from runs import run_tool

from deit_helpers import open_run
from deit_helpers.delivery import formats
from deit_helpers.errors import ArtifactError, ToolError
from deit_helpers.run.folder import Run


@pytest.fixture(scope="module")
def mini(finished_project: Path) -> Run:
    return open_run(finished_project / "reports/mini/spec.yaml")


def written(run: Run, form: str, folder: Path) -> str:
    return formats.write(run, form, folder / "out").read_text(encoding="utf-8")


def rows_of(text: str) -> list[list[str]]:
    """The cells of all Markdown tables of a text; a pipe behind a backslash is part of a cell."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_markdown_holds_every_heading_and_every_table_cell_of_the_report(mini: Run, tmp_path: Path) -> None:
    text = written(mini, "markdown", tmp_path)
    page = BeautifulSoup((mini.folder / "index.html").read_text(), "html.parser")
    for heading in page.find_all(["h1", "h2"]):
        assert re.search(rf"^#+ {re.escape(heading.get_text(strip=True))}", text, re.M), heading
    cells = {" ".join(re.sub(r"\\(.)", r"\1", cell).split()) for row in rows_of(text) for cell in row}
    for cell in page.select("div.table td"):
        assert " ".join(cell.get_text().split()) in cells


def test_markdown_says_a_chart_in_words_and_holds_no_drawing(mini: Run, tmp_path: Path) -> None:
    text = written(mini, "markdown", tmp_path)
    assert "<svg" not in text
    assert "base64" not in text
    assert re.search(r"bs1: [\d.]+ images/s at a p90 of [\d.]+ ms", text)


def test_csv_has_a_row_per_batch_size_with_the_figures_of_the_json_files(mini: Run, tmp_path: Path) -> None:
    rows = list(csv.DictReader(written(mini, "csv", tmp_path).splitlines()))
    assert [int(row["batch_size"]) for row in rows] == list(mini.spec.batch_sizes)
    for row, at in zip(rows, mini.at_each(), strict=True):
        assert float(row["accuracy.top1_percent"]) == at.read("accuracy")["top1_percent"]
        assert float(row["perf.latency_ms.p50"]) == at.read("perf")["latency_ms"]["p50"]
        assert row["accuracy.verdict"] == at.read("accuracy")["verdict"]


@pytest.mark.parametrize(("form", "chip"), [("modelzoo-zh", "芯片型号"), ("modelzoo-en", "chip")])
def test_a_modelzoo_readme_has_the_figures_commands_and_the_banner(mini: Run, tmp_path: Path, form: str, chip: str) -> None:
    text = written(mini, form, tmp_path)
    table = [row for row in rows_of(text) if len(row) == 8]
    assert table[0][0] == chip
    for row, at in zip(table[2:], mini.at_each(), strict=False):
        accuracy, perf = at.read("accuracy"), at.read("perf")
        percents = [f"{accuracy[key]:.2f}" for key in ("top1_percent", "top5_percent")]
        assert row[1:5] == [str(at.batch_size), str(accuracy["images"]), *percents]
        assert row[6] == f"{perf['images_per_s']:.1f}"
        assert at.read("convert")["command_line"] in text
    assert re.search("demo was run|内置示例", text)


def test_no_cpu_figure_passes_for_an_npus(finished: Run, tmp_path: Path) -> None:
    assert "not on an Ascend chip" in written(finished, "modelzoo-en", tmp_path)
    assert "并非昇腾芯片" in written(finished, "modelzoo-zh", tmp_path)


def test_a_modelzoo_readme_of_an_unfinished_run_says_what_was_not_measured(project: Path, tmp_path: Path) -> None:
    run = runs.opened(project, images="pictures")
    assert "not measured | 1 | not scored" in written(run, "modelzoo-en", tmp_path)
    assert "未测量 | 1 | 未统计" in written(run, "modelzoo-zh", tmp_path)


def test_names_with_pipes_tags_and_chinese_stay_in_their_cell(finished: Run, tmp_path: Path) -> None:
    copy = runs.copy_of(finished, tmp_path)
    path = copy.file("perf")
    path.write_text(json.dumps({**copy.read("perf"), "device": "卡|<script>alert(1)</script>\nx"}))
    text = written(copy, "modelzoo-en", tmp_path)
    assert "<script" not in text
    assert r"卡\|&lt;script>alert(1)&lt;/script> x" in [row[0] for row in rows_of(text) if len(row) == 8]


def test_an_archive_opens_elsewhere_with_its_links_and_without_what_is_large(mini: Run, tmp_path: Path) -> None:
    path = formats.write(mini, "zip", tmp_path / "mail.zip")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "there")
    page = tmp_path / "there/mini/index.html"
    for link in BeautifulSoup(page.read_text(), "html.parser").select("nav.pages a"):
        assert (page.parent / link["href"]).is_file()
    names = {file.name for file in (tmp_path / "there").rglob("*")}
    assert {"accuracy.json", "latency.csv", "manifest.json"} <= names
    assert not {name for name in names if name.endswith((".ipynb", ".onnx", ".pth", ".lock"))}


def test_a_trace_holds_the_measured_durations_and_says_that_starts_are_not(mini: Run, tmp_path: Path) -> None:
    events = json.loads(written(mini, "perfetto", tmp_path))["traceEvents"]
    titles = [event["args"]["name"] for event in events if event["ph"] == "M"]
    assert titles
    assert all("one after the other" in title for title in titles)
    at = mini.at_each()[0]
    called = [event["dur"] for event in events if event["pid"] == at.batch_size and event["name"] == "inference"]
    with at.file("latency").open() as file:
        measured = [1000 * float(row["inference_ms"]) for row in csv.DictReader(file)]
    assert called == pytest.approx(measured)
    operators = [event["dur"] for event in events if event["pid"] == at.size + 1000 and event["ph"] == "X"]
    assert sum(operators) == pytest.approx(1000 * at.read("perf")["operators_ms"], rel=1e-3)


@pytest.mark.parametrize("form", ["csv", "perfetto"])
def test_nothing_measured_is_said(project: Path, form: str) -> None:
    with pytest.raises(ArtifactError, match=r"nothing was .* yet: run 0"):
        formats.write(runs.opened(project, images="pictures"), form)


def test_without_a_browser_a_pdf_is_one_line(mini: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "BROWSERS", ("no-such-browser",))
    with pytest.raises(ToolError, match=r"needs one of no-such-browser on the PATH"):
        formats.write(mini, "pdf", tmp_path / "x.pdf")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not any(map(shutil.which, formats.BROWSERS)), reason="needs Chromium (Debian package chromium)")
def test_a_pdf_is_one(mini: Run, tmp_path: Path) -> None:
    assert formats.write(mini, "pdf", tmp_path / "x.pdf").read_bytes().startswith(b"%PDF-")


def test_the_command_writes_a_form_and_names_the_nearest_one(finished_project: Path, tmp_path: Path) -> None:
    render = ("deit_helpers", "render", "reports/mini", "--format")
    done = run_tool(*render, "csv", "-o", str(tmp_path / "r.csv"), cwd=finished_project)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "r.csv"))
    wrong = run_tool(*render, "markdwn", cwd=finished_project)
    assert wrong.returncode == 1
    assert "did you mean 'markdown'?" in wrong.stderr
