"""Every chart of the notebooks and the report. One style; a colour means one family or one rate everywhere."""

from __future__ import annotations

from ..metrics.operators import FAMILIES

# Okabe and Ito's palette: told apart by colour-blind readers; every bar also carries its name and value.
FAMILY_COLOURS = dict(
    zip(
        FAMILIES,
        ("#D55E00", "#CC79A7", "#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#999999", "#CCCCCC"),
        strict=True,
    )
)
PURE, END_TO_END = "#0072B2", "#D55E00"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
}
WIDTH_IN = 5.4  # with 10 pt text still readable when scaled to a phone
