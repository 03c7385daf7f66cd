"""How every chart of the notebooks and the report looks. A colour means one family or one rate everywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers; every bar also carries its name and value.
# One for each of `metrics.operators.FAMILIES`, in their order.
FAMILY_COLOURS = ("#D55E00", "#CC79A7", "#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#999999", "#CCCCCC")
LIMIT_COLOURS = ("#08519C", "#6BAED6", "#C6DBEF", "#BBBBBB", "#D5D9DE", "#D5D9DE")  # for each of `operators.LIMIT_PARTS`
PURE, END_TO_END, NEUTRAL = "#0072B2", "#D55E00", "#999999"
PAPER = "#fefefe"  # what is behind the drawing, which may be dark: `elements.Chart`; black is the colour of its text
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
}
WIDTH_IN = 5.4  # with 10 pt text still readable when scaled to a phone


@contextlib.contextmanager
def new_figure(
    height_in: float, width_in: float = WIDTH_IN, columns: int = 1, heights: Sequence[float] = (1,)
) -> Iterator[tuple[Figure, Any]]:
    """A figure and its axes, an array of them for several columns or rows. Draw inside the block: the style holds there."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width_in, height_in))
        yield figure, figure.subplots(len(heights), columns, height_ratios=heights)


def plain(name: object) -> str:
    """A name as a chart may hold it: one short line, its dollar signs no beginning of a formula."""
    return one_line(name, 24).replace("$", r"\$")


def label_rows(axes: Any, left: Sequence[str], right: Sequence[str]) -> None:
    """Names to the left and figures to the right of what is drawn at 0, 1, 2 …, from top to bottom."""
    rows = range(len(left))
    axes.set_yticks(rows, left)
    axes.set_ylim(len(left) - 0.5, -0.5)
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(rows, right)
    beside.spines["right"].set_visible(False)
    for side in (axes, beside):
        side.tick_params(axis="y", length=0)
