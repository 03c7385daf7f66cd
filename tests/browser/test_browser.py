"""The pages of a finished run in a browser: offline, quiet, as wide as the screen, accessible, linked, without a script."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs Chromium (Debian package chromium)", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, one of the extras `dev`")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python, of the extras `dev`")

WIDTHS = (390, 768, 1280, 1920)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def pages(finished_project: Path) -> list[Path]:
    """A page of each kind, at the larger of two batch sizes."""
    return sorted({path.name: path for path in sorted((finished_project / "reports/mini").rglob("*.html"))}.values())


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    with browser.new_context() as context:
        yield context.new_page()


def complaints(tab: Any, path: Path) -> list[str]:
    """What a page asks for besides itself, what it says to the console, and how much too wide it is for a screen."""
    heard: list[str] = []
    tab.on("request", lambda request: heard.append(request.url))
    tab.on("console", lambda message: heard.append(message.text))
    tab.on("pageerror", lambda error: heard.append(str(error)))
    tab.goto(path.as_uri())
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 800})
        if (needs := tab.evaluate("document.documentElement.scrollWidth")) > width:
            heard.append(f"{needs} px at {width}")
    return [line for line in heard if line != path.as_uri() and not line.startswith("data:")]


def hindrances(tab: Any) -> list[str]:
    """What axe-core calls serious or critical in an open page, with its first place."""
    violations = axe.Axe().run(tab).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html']}" for v in violations if v["impact"] in ("serious", "critical")]


def test_a_page_that_asks_complains_and_is_too_wide_is_caught(tab: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<img src="http://localhost:9/pixel.png"><p style="color: #999; background: #fff">faint</p>'
        '<div style="width: 1000px">wide</div><script>console.error("loud")</script>'
    )
    said = complaints(tab, bad)
    assert {"http://localhost:9/pixel.png", "loud", "1008 px at 390", "1008 px at 768"} <= set(said)
    assert {line.partition(":")[0] for line in hindrances(tab)} >= {"color-contrast", "image-alt", "html-has-lang"}


def test_pages_make_no_request_are_silent_and_fit_every_screen(pages: list[Path], browser: Any) -> None:
    for path in pages:
        with browser.new_context() as context:
            assert complaints(context.new_page(), path) == [], path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_with_everything_unfolded(pages: list[Path], browser: Any, scheme: str) -> None:
    with browser.new_context(color_scheme=scheme) as context:
        tab = context.new_page()
        for path in pages:
            tab.goto(path.as_uri())
            tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
            tab.check("#show-code")
            assert hindrances(tab) == [], path


def test_the_links_of_pages_lead_somewhere(pages: list[Path], tab: Any) -> None:
    for path in pages:
        tab.goto(path.as_uri())
        targets = tab.evaluate("[...document.querySelectorAll('a')].map(link => [link.href, link.getAttribute('href')])")
        assert targets
        for url, target in targets:
            file = Path(unquote(urlsplit(url).path))
            assert file.is_file(), f"{path}: {target}"
            name = urlsplit(url).fragment
            assert not name or f'id="{name}"' in file.read_text(), f"{path}: {target}"


def test_code_and_hashes_are_folded_and_unfold_by_keyboard(pages: list[Path], tab: Any) -> None:
    tab.goto(next(path for path in pages if path.name == "index.html").as_uri())
    assert not tab.is_visible("pre.source")
    tab.focus("#show-code")
    tab.keyboard.press("Space")
    assert tab.is_visible("pre.source")
    assert not tab.is_visible("text=export/deit.onnx")
    tab.focus("summary:has-text('manifest.json')")
    tab.keyboard.press("Enter")
    assert tab.is_visible("td:text-is('export/deit.onnx')")


def test_the_first_key_skips_to_the_content(pages: list[Path], tab: Any) -> None:
    tab.goto(pages[0].as_uri())
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"


def test_on_a_phone_a_row_shows_its_accuracy_and_its_verdict(pages: list[Path], tab: Any) -> None:
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.goto(next(path for path in pages if path.name == "06_accuracy.html").as_uri())
    for label in ("Acc@1", "verdict"):
        cell = tab.locator(f"td[data-label='{label}']").first
        box = cell.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert cell.evaluate("cell => getComputedStyle(cell, '::before').content") == f'"{label}"'


def test_dark_pages_are_light_on_paper(pages: list[Path], browser: Any) -> None:
    with browser.new_context(color_scheme="dark") as context:
        tab = context.new_page()
        tab.goto(pages[0].as_uri())
        ground = "getComputedStyle(document.body).backgroundColor"
        assert tab.evaluate(ground) == "rgb(20, 24, 29)"
        tab.emulate_media(media="print", color_scheme="dark")
        assert tab.evaluate(ground) == "rgb(255, 255, 255)"
        assert not tab.is_visible("header")
