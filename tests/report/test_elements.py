"""Elements are accessible HTML whatever text they hold, and a table is a table for programs, too."""

from __future__ import annotations

import numpy as np
import pytest
from bs4 import BeautifulSoup

from deit_helpers.metrics.operators import FAMILIES, LIMIT_PARTS
from deit_helpers.report import style
from deit_helpers.report.elements import Banner, Card, Chart, Element, Facts, Gallery, Links, Stack, Table, Tile

HOSTILE = """<script>alert("1" + '2')</script> & <b>"""


def chart(title: str = "") -> Chart:
    with style.new_figure(1.0) as (figure, axes):
        axes.set_title(title)
    return Chart(figure, HOSTILE, HOSTILE)


ELEMENTS = [
    Table(HOSTILE, f"{HOSTILE} | n", [[HOSTILE, 1]]),
    Facts(HOSTILE, {HOSTILE: HOSTILE}),
    Banner("note", HOSTILE, HOSTILE),
    Card("fail", HOSTILE, HOSTILE, [Tile(HOSTILE, HOSTILE, HOSTILE)], [HOSTILE]),
    Stack([Banner("fail", HOSTILE, HOSTILE)]),
    Links({HOSTILE: {HOSTILE: f'x" onclick="{HOSTILE}'}}),
    Gallery(np.zeros((1, 4, 4, 3), np.uint8), [HOSTILE], HOSTILE),
    Gallery(np.zeros((1, 4, 4, 3), np.uint8), [""], "", [{HOSTILE: [HOSTILE]}]),
    chart(HOSTILE),
]


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda element: type(element).__name__)
def test_text_stays_text(element: Element) -> None:
    soup = BeautifulSoup(element._repr_html_(), "html.parser")
    assert HOSTILE in soup.get_text()
    assert soup.find(["script", "b"]) is None
    assert all("onclick" not in tag.attrs for tag in soup.find_all(True))


def test_a_table_says_its_caption_twice_and_aligns_numbers() -> None:
    rows = [["a", 1, 0.126, None], ["b", 2000, None, "x"], ["c", None, 3, 4]]
    table = Table('of "3"', "name | count:, | share %:.2f | mixed", rows, quoted=frozenset({1}), alarm=frozenset({1, 2}))
    soup = BeautifulSoup(table._repr_html_(), "html.parser")
    region = soup.select_one("div.table")
    assert region["aria-label"] == soup.caption.text == 'of "3"'
    assert (region["role"], region["tabindex"]) == ("region", "0")
    assert [(th.text, th["scope"], th.get("class")) for th in soup.find_all("th")] == [
        ("name", "col", None),
        ("count", "col", ["number"]),
        ("share %", "col", ["number"]),
        ("mixed", "col", None),
    ]
    body = soup.tbody.find_all("tr")
    assert [[td.text for td in row.find_all("td")] for row in body] == [
        ["a", "1", "0.13", "–"],
        ["b", "2,000", "–", "x"],
        ["c", "–", "3.00", "4"],
    ]
    assert [row.get("class") for row in body] == [None, ["quoted"], ["alarm"]]
    assert body[0].find_all("td")[1]["class"] == ["number"]


def test_a_table_is_a_data_frame_with_its_stored_values() -> None:
    frame = Table("", "edit | max abs diff:.1e", [["simplify", 1.2345e-7]]).df
    assert frame.columns.to_list() == ["edit", "max abs diff"]
    assert frame["max abs diff"].to_list() == [1.2345e-7]
    assert Table("", "edit | runs", []).df.columns.to_list() == ["edit", "runs"]


def test_a_row_that_does_not_fit_its_header_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        Table("", "a | b", [[1, 2], [1, 2, 3]])._repr_html_()


def test_a_drawing_is_inlined_with_its_text_and_the_same_twice() -> None:
    html = chart("latency")._repr_html_()
    assert html == chart("latency")._repr_html_()
    soup = BeautifulSoup(html, "html.parser")
    assert soup.svg["aria-hidden"] == "true"
    assert soup.svg.find("text", string="latency")
    assert soup.svg.parent["aria-label"] == HOSTILE


def test_a_drawing_takes_its_black_and_its_ground_from_the_page_it_is_on() -> None:
    with style.new_figure(1.0) as (figure, axes):
        axes.axhline(0.5, color="black")
        axes.text(0, 0, "boxed", bbox={"facecolor": style.PAPER, "edgecolor": style.PURE})
    html = Chart(figure, "", "")._repr_html_()
    svg = BeautifulSoup(html, "html.parser").svg
    assert svg["fill"] == "currentColor"  # of what has no colour of its own, such as text
    assert not any(colour in str(svg) for colour in ("#000000", "#ffffff", style.PAPER))
    assert "fill: var(--paper)" in str(svg)
    assert "--paper:" in html


def test_rows_of_a_wide_table_name_their_cells_and_a_folded_one_shows_its_caption() -> None:
    wide = BeautifulSoup(Table("", HOSTILE + " | b | c | d | e | f", [list("123456")])._repr_html_(), "html.parser")
    assert [cell["data-label"] for cell in wide.find_all("td")] == [HOSTILE, *"bcdef"]
    folded = BeautifulSoup(Table(HOSTILE, "a", [], folded=True)._repr_html_(), "html.parser")
    assert folded.details.summary.text == HOSTILE
    assert not folded.details.has_attr("open")


def test_every_family_has_a_colour_of_its_own() -> None:
    assert len(set(style.FAMILY_COLOURS)) == len(FAMILIES)
    assert len(style.LIMIT_COLOURS) == len(LIMIT_PARTS)
