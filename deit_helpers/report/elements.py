"""What a notebook cell ends in: values that render as accessible HTML, by the macros of `templates/elements.html.j2`.

Our own table rather than pandas' Styler: it marks headings with a scope, scrolls by keyboard on a narrow screen, and the
notebooks without arithmetic are spared the import.
"""

from __future__ import annotations

import base64
import functools
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

from .style import PAPER

CARD_PX = 160  # two dozen photographs of 224 px would double a page
Cell = str | int | float | None
STYLE_TAG = re.compile(r'<style class="deit">.*?</style>', re.DOTALL)


@functools.cache
def _macros() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("elements.html.j2").module


class Element:
    """A value that is rendered by the macro of its class's name.

    In Jupyter every output brings the style with it, for nothing says which output stays; a page has it once (`html.unstyled`).
    """

    def _repr_html_(self) -> str:
        shown = getattr(_macros(), type(self).__name__.lower())(self)
        html = str(_macros().output(shown)) if shown else ""
        return html.encode("utf-8", "backslashreplace").decode()  # names of files may hold bytes that are no UTF-8


@dataclass(frozen=True)
class Table(Element):
    """Rows under headings. Numbers are aligned right; `quoted` rows were measured elsewhere, `alarm` rows are wrong.

    Attributes:
        caption: what was measured, on what, over how many samples.
        header: the headings as they stand above the rows, such as `image | seconds:.2f`: the format of numbers after a colon.
        folded: only the caption is seen until it is opened.
    """

    caption: str
    header: str
    rows: Sequence[Sequence[Cell]]
    quoted: frozenset[int] = frozenset()
    alarm: frozenset[int] = frozenset()
    folded: bool = False

    @functools.cached_property
    def formats(self) -> dict[str, str]:
        """The format of the numbers under each heading, empty for values as they are."""
        parts = (part.strip().partition(":") for part in self.header.split("|"))
        return {heading: form for heading, _, form in parts}

    @property
    def df(self) -> pd.DataFrame:
        """The rows as a DataFrame, with values as they are stored: not rounded, not formatted."""
        import pandas as pd

        return pd.DataFrame(list(self.rows), columns=list(self.formats))

    def texts(self, row: Sequence[Cell]) -> list[str]:
        """A row as it is shown."""
        pairs = zip(row, self.formats.values(), strict=True)
        return ["–" if value is None else value if isinstance(value, str) else format(value, form) for value, form in pairs]

    def numeric(self) -> list[bool]:
        """Which columns hold numbers and nothing else."""
        columns = ([row[i] for row in self.rows if row[i] is not None] for i in range(len(self.formats)))
        return [bool(values) and all(isinstance(value, (int, float)) for value in values) for values in columns]


@dataclass(frozen=True)
class Facts(Element):
    """Names and values, one a line."""

    caption: str
    values: dict[str, Cell]


@dataclass(frozen=True)
class Chart(Element):
    """A figure with its caption and a text that says in words what it shows.

    What is black in it takes the colour of the text around it, `style.PAPER` that of what is behind it: light or dark.
    """

    figure: Figure
    caption: str
    alt: str

    def drawing(self) -> str:
        """The figure as SVG. Text stays text, small and selectable; the same figure gives the same file."""
        import matplotlib

        buffer = io.StringIO()
        with warnings.catch_warnings(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "deit-report"}):
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it measures text; the reader's fonts draw it
            self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
        svg = buffer.getvalue()
        svg = svg[svg.index("<svg") :].replace("<svg", '<svg aria-hidden="true" fill="currentColor"', 1)  # black is not written
        return svg.replace("stroke: #000000", "stroke: currentColor").replace(PAPER, "var(--paper)")


@dataclass(frozen=True)
class Gallery(Element):
    """Crops (N, H, W, 3) uint8, each with a label below it, and below that with lines under headings, where there are some.

    `crops` is None where the images are not here, `df` what is known of them and of others like them.
    """

    crops: np.ndarray | None
    labels: Sequence[str]
    caption: str
    lists: Sequence[Mapping[str, Sequence[str]]] = ()
    df: pd.DataFrame | None = None

    def pictures(self) -> Iterator[tuple[str, str, Mapping[str, Sequence[str]]]]:
        """Every crop as a JPEG file in base64, empty where it is not here, with its label and its lists."""
        from PIL import Image

        crops = [None] * len(self.labels) if self.crops is None else self.crops
        for pixels, label, lists in zip(crops, self.labels, self.lists or [{}] * len(self.labels), strict=True):
            buffer = io.BytesIO()
            if pixels is not None:
                image = Image.fromarray(pixels)
                if lists:
                    image.thumbnail((CARD_PX, CARD_PX))
                image.save(buffer, "JPEG", quality=85)
            yield base64.b64encode(buffer.getvalue()).decode(), label, lists


@dataclass(frozen=True)
class Banner(Element):
    """One sentence that must not be missed, and a link to the page with the rest.

    Attributes:
        kind: pass, fail, inconclusive, note; or missing: a section of nothing else is folded.
    """

    kind: str
    title: str
    text: str
    link: str = ""


@dataclass(frozen=True)
class Stack(Element):
    """Banners one below the other, or nothing."""

    items: Sequence[Banner]


@dataclass(frozen=True)
class Links(Element):
    """Links to other pages, in groups."""

    groups: dict[str, dict[str, str]]


class Tile(NamedTuple):
    """A figure of a card: what it is, its value with its unit, and what must be known to read it."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Card(Element):
    """The verdict (`kind` as of a banner) with its sentence under what was judged, the figures, and lines of small print."""

    kind: str
    title: str
    text: str
    tiles: Sequence[Tile]
    notes: Sequence[str] = ()
