"""Style, colours and rendering of every picture.

Colours are those of Okabe & Ito, which people with any common colour blindness can tell apart;
markers say the same again.
"""

import io

from matplotlib import axes, colors, figure
from matplotlib.backends.backend_agg import FigureCanvasAgg

STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 6.5,
}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p")
GREY = "#777777"


def style(i: int) -> tuple[str, str]:
    """Colour and marker of the i-th curve."""
    return _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]


def grid(
    across: int, down: int, count: int, size: tuple[float, float] | None = None, **share: bool
) -> tuple[figure.Figure, list[axes.Axes]]:
    """A drawing with `count` panels in rows of `across`, of `size` inches."""
    size = size or (3.1 * across + 1.0, 2.7 * down + 0.9)
    drawing = figure.Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(drawing)  # attaches itself: no display, and no global state as pyplot has it
    panels = list(drawing.subplots(down, across, squeeze=False, **share).flat)
    for unused in panels[count:]:
        unused.remove()
    return drawing, panels[:count]


def render(drawing: figure.Figure) -> bytes:
    """The picture as PNG, without the date and version that would change its bytes."""
    file = io.BytesIO()
    drawing.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


def dark(colour: str) -> tuple[float, ...]:
    """The colour as text needs it: a marker's light blue is too faint for letters."""
    return tuple(0.75 * part for part in colors.to_rgb(colour))
