"""The published pages as a reader meets them: self-contained, readable on a phone, usable by keyboard."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from runs import run_tool

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian package chromium)")


@pytest.fixture(scope="module")
def pages(finished_project: Path) -> list[Path]:
    return sorted((finished_project / "reports/mini").rglob("*.html"))


def chromium(folder: Path, url: str, *options: str) -> str:
    """Run headless Chromium on a page and return what it prints."""
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={folder}/profile"]
    return subprocess.run([*command, *options, url], capture_output=True, text=True, check=True, timeout=120).stdout


def test_every_step_and_batch_size_has_a_page_that_the_report_links(pages: list[Path]) -> None:
    names = {f"{page.parent.name}/{page.name}" for page in pages}
    report = next(page for page in pages if page.name == "index.html")
    assert len(names) == 13  # 01 and 04, five steps at two batch sizes, the report
    links = re.findall(r'<a href="([^"#]+)"', report.read_text())
    assert {str((report.parent / link).resolve()) for link in links} == {str(p.resolve()) for p in pages if p != report}


def test_pages_are_small_and_name_no_other_host_and_hold_no_script_or_code(pages: list[Path]) -> None:
    for page in pages:
        text = page.read_text()
        assert len(text) < 3_000_000
        assert "<script" not in text
        assert not re.search(r'(?:src|href|action|data)\s*=\s*"(?!data:)[a-z]+:', text), page
        assert not re.search(r"url\(\s*['\"]?(?!#)[a-z]+:", text), page
        assert "open_run(" not in text


def test_charts_and_pictures_have_text_and_tables_scroll_by_keyboard(pages: list[Path]) -> None:
    for text in (page.read_text() for page in pages):
        assert not re.search(r"<img(?![^>]* alt=\"[^\"]+\")", text)
        soup = BeautifulSoup(text, "html.parser")
        assert all(chart.parent["role"] == "img" and chart.parent["aria-label"] for chart in soup.find_all("svg"))
        assert all(table["tabindex"] == "0" and table["aria-label"] for table in soup.select("div.table:not(.facts)"))
        assert '<html lang="en">' in text


def test_the_demo_says_on_every_page_that_it_is_one(pages: list[Path]) -> None:
    assert [page.name for page in pages if "This is the embedded demo." not in page.read_text()] == []


def test_render_can_show_the_code(tmp_path: Path, finished_project: Path) -> None:
    shutil.copytree(finished_project / "reports/mini", tmp_path / "mini")
    result = run_tool("deit_helpers", "render", str(tmp_path / "mini"), "--code", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "infer.infer(run)" in (tmp_path / "mini/bs8/05_infer.html").read_text()


def requests_of(folder: Path, page: Path) -> set[str]:
    """URLs that a page asked for, from Chromium's network log. The browser's own errands have no page as initiator."""
    log = folder / "net.json"
    chromium(folder, page.as_uri(), f"--log-net-log={log}", "--dump-dom")
    asked = [event["params"] for event in json.loads(log.read_text())["events"] if "initiator" in event.get("params", {})]
    return {params["url"] for params in asked if params["initiator"] != "not an origin"}


@browser
def test_no_page_makes_a_request(pages: list[Path], tmp_path: Path) -> None:
    leaking = tmp_path / "leaking.html"
    leaking.write_text('<img src="http://example.com/pixel.png">')
    assert requests_of(tmp_path, leaking) == {"http://example.com/pixel.png"}
    for page in pages:
        assert requests_of(tmp_path, page) == set(), page


@browser
def test_no_page_scrolls_sideways_on_a_phone(pages: list[Path], tmp_path: Path) -> None:
    frames = "".join(f'<iframe src="{page.as_uri()}" width="390" height="800"></iframe>' for page in pages)
    script = (
        "onload = () => document.body.textContent = [...document.querySelectorAll('iframe')]"
        ".map(f => f.contentDocument.documentElement.scrollWidth).join(' ')"
    )
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(f"<body>{frames}<script>{script}</script></body>")
    dom = chromium(tmp_path, wrapper.as_uri(), "--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom")
    widths = [int(word) for word in re.findall(r"<body>([\d ]+)</body>", dom)[0].split()]
    assert len(widths) == len(pages)
    assert max(widths) <= 390
