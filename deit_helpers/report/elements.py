"""What a notebook cell ends in: values that render as accessible HTML.

Our own table rather than pandas' Styler: it marks headings with a scope, scrolls by keyboard on a narrow screen, and the
notebooks without arithmetic are spared the import.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Rows under headings. Numbers are aligned right; `quoted` rows were measured elsewhere, `alarm` rows are wrong.

    Attributes:
        caption: what was measured, on what, over how many samples.
        formats: a format specification per heading for numbers, such as `.2f`.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    formats: dict[str, str] = field(default_factory=dict)
    quoted: frozenset[int] = frozenset()
    alarm: frozenset[int] = frozenset()

    def text(self, column: str, value: Cell) -> str:
        if value is None:
            return "–"
        if isinstance(value, str) or column not in self.formats:
            return str(value)
        return format(value, self.formats[column])

    def _class(self, column: int) -> str:
        values = [row[column] for row in self.rows if row[column] is not None]
        return ' class="number"' if values and all(isinstance(value, (int, float)) for value in values) else ""

    def _repr_html_(self) -> str:
        kinds = [self._class(i) for i in range(len(self.columns))]
        head = "".join(f'<th scope="col"{k}>{html.escape(c)}</th>' for k, c in zip(kinds, self.columns, strict=True))
        body = []
        for number, row in enumerate(self.rows):
            cells = "".join(
                f"<td{k}>{html.escape(self.text(c, value))}</td>" for k, c, value in zip(kinds, self.columns, row, strict=True)
            )
            kind = "quoted" if number in self.quoted else "alarm" if number in self.alarm else ""
            body.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
        label = html.escape(self.caption, quote=True)
        return (
            f'<div class="table" role="region" tabindex="0" aria-label="{label}">{_open_table(self.caption)}'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        )


@dataclass(frozen=True)
class Facts:
    """Names and values, one a line."""

    caption: str
    values: dict[str, Cell]

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>'
            for name, value in self.values.items()
        )
        return f'<div class="table facts">{_open_table(self.caption)}<tbody>{rows}</tbody></table></div>'


def from_records(
    caption: str,
    records: Sequence[dict[str, Any]],
    columns: dict[str, str],
    formats: dict[str, str] | None = None,
    **marks: frozenset[int],
) -> Table:
    """A table of dictionaries; `columns` maps keys to headings, `formats` keys to format specifications."""
    rows = [[record.get(key) for key in columns] for record in records]
    return Table(caption, list(columns.values()), rows, {columns[key]: f for key, f in (formats or {}).items()}, **marks)


def _open_table(caption: str) -> str:
    return f"<table><caption>{html.escape(caption)}</caption>"


@dataclass(frozen=True)
class Chart:
    """A figure with its caption and a text that says in words what it shows."""

    figure: Figure
    caption: str
    alt: str

    def _repr_html_(self) -> str:
        import matplotlib

        buffer = io.StringIO()
        # Text stays text, small and selectable; the same figure gives the same file.
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "deit-report"}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        drawing = buffer.getvalue()
        drawing = drawing[drawing.index("<svg") :].replace("<svg", '<svg aria-hidden="true"', 1)
        alt = html.escape(self.alt, quote=True)
        return (
            f'<figure class="chart"><div role="img" aria-label="{alt}">{drawing}</div>'
            f"<figcaption>{html.escape(self.caption)}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Gallery:
    """Crops (N, H, W, 3) uint8, each with a label below it."""

    crops: np.ndarray
    labels: Sequence[str]
    caption: str

    def _repr_html_(self) -> str:
        cells = []
        for pixels, label in zip(self.crops, self.labels, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
            source = base64.b64encode(buffer.getvalue()).decode()
            text = html.escape(label, quote=True)
            cells.append(f'<li><img src="data:image/jpeg;base64,{source}" alt="crop of {text}"><span>{text}</span></li>')
        items = "".join(cells)
        return f'<figure class="gallery"><ul>{items}</ul><figcaption>{html.escape(self.caption)}</figcaption></figure>'


@dataclass(frozen=True)
class Banner:
    """One sentence that must not be missed; `kind` is pass, fail, inconclusive or note."""

    kind: str
    title: str
    text: str

    def _repr_html_(self) -> str:
        title, text = html.escape(self.title), html.escape(self.text)
        return f'<div class="banner {self.kind}" role="note"><strong>{title}</strong> {text}</div>'


@dataclass(frozen=True)
class Stack:
    """Banners one below the other, or nothing."""

    items: Sequence[Banner]

    def _repr_html_(self) -> str:
        return "".join(item._repr_html_() for item in self.items)


@dataclass(frozen=True)
class Links:
    """Links to other pages, in groups."""

    groups: dict[str, dict[str, str]]

    def _repr_html_(self) -> str:
        def items(links: dict[str, str]) -> str:
            return "".join(
                f'<li><a href="{html.escape(to, quote=True)}">{html.escape(text)}</a></li>' for text, to in links.items()
            )

        rows = "".join(
            f"<div><dt>{html.escape(name)}</dt><dd><ul>{items(links)}</ul></dd></div>" for name, links in self.groups.items()
        )
        return f'<nav class="pages" aria-label="Pages of this run"><dl>{rows}</dl></nav>'


def runtime_text(runtime: dict[str, Any]) -> str:
    """Which runtime and device a figure was measured on, as a backend describes itself."""
    streams = f", {runtime['streams']} batches at once" if runtime.get("streams", 1) > 1 else ""
    return f"{runtime['backend']} {runtime['version']} ({runtime['device']}, {runtime['precision']}{streams})"


def device_text(runtime: dict[str, Any]) -> str:
    """The same without how many batches it works on at once: batch sizes differ in it, and a profile is of one."""
    return runtime_text({**runtime, "streams": 1})


def in_flight_text(*records: dict[str, Any]) -> str:
    """What a latency includes besides the work on one batch, where several are sent at once."""
    several = sorted({number for record in records for number in record.get("in_flight") or [1]})
    return f", from sending one to its answer with {' or '.join(map(str, several))} in flight" if several > [1] else ""
