"""The published pages as files: self-contained, linked, with text for every picture; `browser/` opens them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from runs import run_tool


@pytest.fixture(scope="module")
def pages(finished_project: Path) -> list[Path]:
    return sorted((finished_project / "reports/mini").rglob("*.html"))


def test_every_step_and_batch_size_has_a_page_that_the_report_links(pages: list[Path]) -> None:
    names = {f"{page.parent.name}/{page.name}" for page in pages}
    report = next(page for page in pages if page.name == "index.html")
    assert len(names) == 13  # 01 and 04, five steps at two batch sizes, the report
    links = [link["href"] for link in BeautifulSoup(report.read_text(), "html.parser").select("nav.pages a")]
    assert {str((report.parent / link).resolve()) for link in links} == {str(p.resolve()) for p in pages if p != report}


def test_pages_are_small_and_name_no_other_host_and_hold_no_script(pages: list[Path]) -> None:
    for page in pages:
        text = page.read_text()
        assert len(text) < 3_000_000
        assert "<script" not in text
        assert not re.search(r'(?:src|href|action|data)\s*=\s*"(?!data:)[a-z]+:', text), page
        assert not re.search(r"url\(\s*['\"]?(?!#)[a-z]+:", text), page
        assert '<style class="deit">' not in text


def test_charts_and_pictures_have_text_and_tables_scroll_by_keyboard(pages: list[Path]) -> None:
    for text in (page.read_text() for page in pages):
        assert not re.search(r"<img(?![^>]* alt=\"[^\"]+\")", text)
        soup = BeautifulSoup(text, "html.parser")
        assert all(chart.parent["role"] == "img" and chart.parent["aria-label"] for chart in soup.find_all("svg"))
        assert all(table["tabindex"] == "0" and table["aria-label"] for table in soup.select("div.table:not(.facts)"))
        assert '<html lang="en">' in text


def test_the_demo_says_on_every_page_that_it_is_one(pages: list[Path]) -> None:
    assert [page.name for page in pages if "This is the embedded demo." not in page.read_text()] == []


def test_render_can_unfold_the_code(tmp_path: Path, finished_project: Path) -> None:
    shutil.copytree(finished_project / "reports/mini", tmp_path / "mini")
    result = run_tool("deit_helpers", "render", str(tmp_path / "mini"), "--code", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    soup = BeautifulSoup((tmp_path / "mini/bs8/05_infer.html").read_text(), "html.parser")
    assert "infer.infer(run)" in soup.text
    assert soup.select_one("#show-code").has_attr("checked")
