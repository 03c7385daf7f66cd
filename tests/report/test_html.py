"""Executed notebooks as pages: faults, sections with nothing in them, links between the pages of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from runs import opened

from deit_helpers.errors import SpecError, VerdictError
from deit_helpers.report import index
from deit_helpers.report.elements import Banner, Element, Stack, Table
from deit_helpers.report.html import html
from deit_helpers.run.folder import Run, html_path

MARK = "Execution using papermill encountered an exception here and stopped:"
MISSING = Banner("missing", "Not here yet.", "")


def text(source: str, *tags: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)})


def code(*elements: Element, source: str = "page.shown(run)", tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    """An executed cell that shows elements."""
    outputs = [nbformat.v4.new_output("display_data", {"text/html": element._repr_html_()}) for element in elements]
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata={"tags": list(tags)})


def fault(error: Exception, traceback: list[str]) -> nbformat.NotebookNode:
    """A cell that raised, as papermill leaves it."""
    name = type(error).__name__
    return nbformat.v4.new_code_cell(
        "work()", outputs=[nbformat.v4.new_output("error", None, ename=name, evalue=str(error), traceback=traceback)]
    )


def page(folder: Path, *cells: nbformat.NotebookNode) -> BeautifulSoup:
    """The page of a notebook with these cells."""
    path = folder / "06_accuracy.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[text("# 06 Accuracy: is it right?"), *cells]), path)
    return BeautifulSoup(html(path).read_text(), "html.parser")


def test_a_failed_verdict_is_a_banner_and_what_follows_is_shown(tmp_path: Path) -> None:
    error = fault(VerdictError("bs8: FAIL, Acc@1 is 50.00 %"), ["Traceback", "\x1b[31mVerdictError\x1b[0m"])
    soup = page(tmp_path, text(MARK, "papermill-error-cell-tag"), error, text("## Explore\n\nIn Jupyter"))
    (banner,) = soup.select(".banner")
    assert banner.text == "The verdict stops the batch run here. bs8: FAIL, Acc@1 is 50.00 %"
    assert "Traceback" not in soup.text
    assert "papermill" not in soup.main.text
    assert "In Jupyter" in soup.text


@pytest.mark.parametrize(
    ("error", "title", "folded"),
    [(SpecError("opset: got <99>"), "Stopped here.", []), (ValueError("a < b"), "ValueError", ["Traceback"])],
)
def test_after_an_error_a_page_ends_and_a_traceback_is_folded(
    tmp_path: Path, error: Exception, title: str, folded: list[str]
) -> None:
    soup = page(tmp_path, fault(error, ["\x1b[31mTraceback\x1b[0m", "<module>"]), text("Look at the table below."))
    assert soup.select_one(".banner.fail").text == f"{title} {error}"
    assert [part.summary.text for part in soup.select("details:not([open])")] == folded
    assert "\x1b" not in soup.text
    assert "Look at the table" not in soup.text


def test_a_section_of_nothing_is_folded_into_a_line(tmp_path: Path) -> None:
    soup = page(
        tmp_path,
        text("## Speed\n\nHow fast."), code(MISSING), text("And:"), code(Stack([])),
        text("## Images\n\nSome."), code(MISSING, Table("crops", "n", [[1]])),
        text("## Notes"), code(Banner("note", "This says something.", "")),
        text("## Explore\n\nwords only"),
    )  # fmt: skip
    assert [part.summary.text for part in soup.select("details.empty")] == ["Speed not here yet"]
    assert [section.h2.text for section in soup.select("section:has(h2)")] == ["Images", "Notes", "Explore"]
    contents = {link.text: link["href"][1:] for link in soup.select("nav.contents a")}
    assert list(contents) == ["Speed", "Images", "Notes", "Explore"]
    assert all(soup.find(id=target) for target in contents.values())


def test_the_style_of_elements_is_on_a_page_once_and_their_code_is_there(tmp_path: Path) -> None:
    soup = page(
        tmp_path, code(source="batch_size = 8", tags=("parameters",)),
        code(source="batch_size = 1", tags=("injected-parameters",)), code(MISSING), code(MISSING),
    )  # fmt: skip
    assert len(soup.find_all("style")) == 1
    assert [part.text for part in soup.select("pre.source")] == ["batch_size = 1", *["page.shown(run)"] * 2]
    assert not soup.select_one("#show-code").has_attr("checked")


@pytest.fixture
def published(project: Path) -> Run:
    """A run whose pages are empty, but for one that is not there: 05 at batch size 1."""
    run = opened(project, batch_sizes=[1, 4])
    for notebook in ("01_export", "05_infer", "06_accuracy"):
        for at in run.at_each(notebook != "01_export"):
            if (notebook, at.batch_size) != ("05_infer", 1):
                path = at.page(notebook)
                path.parent.mkdir(parents=True, exist_ok=True)
                nbformat.write(nbformat.v4.new_notebook(cells=[text(f"# {notebook}")]), path)
                html_path(path).touch()
    return run


def links(run: Run, notebook: str) -> dict[str, dict[str, str]]:
    soup = BeautifulSoup(html(run.page(notebook), run).read_text(), "html.parser")
    return {nav["aria-label"]: {link.text: link["href"] for link in nav.find_all("a")} for nav in soup.find_all("nav")}


def test_a_page_links_the_steps_at_its_batch_size_and_itself_at_the_others(published: Run) -> None:
    first, others = {"Report": "../index.html", "01 export": "../export/01_export.html"}, {"05 infer": "05_infer.html"}
    assert links(published.at(4), "06_accuracy") == {
        "Steps": {**first, **others, "06 accuracy": "#main"},
        "Batch sizes": {"batch size 1": "../bs1/06_accuracy.html", "batch size 4": "#main"},
    }
    assert links(published.at(1), "06_accuracy")["Steps"] == {**first, "06 accuracy": "#main"}
    made_once = dataclasses.replace(published, batch_size=None)
    assert links(made_once, "01_export")["Steps"]["06 accuracy"] == "../bs1/06_accuracy.html"


def test_links_of_an_output_start_where_its_notebook_lies(published: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def target() -> str:
        return index.pages(published).groups["06 accuracy"]["batch size 4"]

    assert target() == "bs4/06_accuracy.html"
    for folder, start in [(published.root / "notebooks", "../reports/test/bs4/"), (published.folder / "bs4", "")]:
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        assert target() == f"{start}06_accuracy.html"


def test_the_report_says_where_a_run_stopped_until_it_goes_on(published: Run) -> None:
    record = published.at(4).page_record("05_infer")
    record.parent.mkdir(exist_ok=True)
    record.write_text('{"stopped": "05_infer bs4: weights: <none>"}')
    soup = BeautifulSoup(index.state(published)._repr_html_(), "html.parser")
    assert soup.select_one(".banner.fail").text == "Stopped at 05_infer bs4: weights: <none> Open page"
    assert soup.a["href"] == "bs4/05_infer.html"
    record.write_text('{"notebook": "its hash"}')
    assert index.state(published).items == []
