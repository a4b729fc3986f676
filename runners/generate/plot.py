"""The picture of speed against context."""

from collections.abc import Callable, Sequence

import matplotlib
from matplotlib import axes, ticker

from runners.core import figures
from runners.generate.speed import BATCHES, Speed


def speeds(rows: Sequence[Speed]) -> bytes:
    """Prefill, and one token at each batch size, against context as PNG; a curve a model."""
    measured = [row for row in rows if row.failure is None]
    names = list(dict.fromkeys(row.model for row in measured))
    panels: list[tuple[str, str, Callable[[Speed], float]]] = [
        ("prefill, batch 1", "tokens a second", lambda row: row.prefill)
    ]
    for batch in BATCHES:
        title, label = f"decoding, batch {batch}", "ms for a token of each sequence"
        panels.append((title, label, lambda row, batch=batch: 1e3 * row.token_seconds[batch]))
    with matplotlib.rc_context(figures.STYLE):
        drawing, grid = figures.grid(len(panels), 1, len(panels), (3.6 * len(panels), 3.6))
        for panel, (title, label, value) in zip(grid, panels, strict=True):
            panel.set_title(title, loc="left")
            panel.set(xlabel="context, tokens", ylabel=label)
            for i, name in enumerate(names):
                own = sorted((row for row in measured if row.model == name), key=_context)
                colour, marker = figures.style(i)
                points = [(row.context, value(row)) for row in own]
                panel.plot(*zip(*points, strict=True), color=colour, marker=marker, label=name)
            _logarithmic(panel)
        drawing.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
        return figures.render(drawing)


def _context(row: Speed) -> int:
    return row.context


def _logarithmic(panel: axes.Axes) -> None:
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    middle, reach = (low * high) ** 0.5, max((high / low) ** 0.5, 4)  # a flat curve looks flat
    panel.set_ylim(middle / reach, middle * reach)
    panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_minor_locator(ticker.NullLocator())
    panel.xaxis.set_minor_locator(ticker.NullLocator())
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(ticker.FuncFormatter(lambda number, _: f"{number:,g}"))
