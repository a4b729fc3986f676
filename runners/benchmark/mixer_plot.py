"""The architectures' time against length, by operator, and what each costs: one picture each."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import axes, figure, ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg

from runners.benchmark.mixers import BASELINE, Row
from runners.core import figures
from runners.core.format import to_bytes

_GREY, _FASTER, _SLOWER = "#999999", "#0072B2", "#D55E00"
_NO_OPERATOR = "no operator"
_GAP = 0.075  # between two names, in panel heights


def growth(rows: Sequence[Row]) -> bytes:
    """Forward and backward against length as PNG: one panel an operator, attention in each."""
    drawn = sorted((row for row in rows if row.exponent is not None), key=lambda row: row.mixer)
    families: dict[str, list[Row]] = {}
    for row in drawn:
        families.setdefault(row.operators[0] if row.operators else _NO_OPERATOR, []).append(row)
    names = sorted(families, key=lambda name: (name == _NO_OPERATOR, name)) or [""]
    baseline = next((row for row in drawn if row.mixer == BASELINE), None)
    lengths, seconds = np.array([p for row in drawn for p in row.growth_seconds] or [(1, 1)]).T
    across = min(3, len(names))
    down = -(-len(names) // across)
    with matplotlib.rc_context(figures.STYLE):
        drawing = _figure(4.6 * across, 3.4 * down)
        grid = list(drawing.subplots(down, across, squeeze=False).flat)
        for panel, name in zip(grid, names, strict=False):
            panel.set_title(name, loc="left")
            panel.set(xlabel="length T", ylabel="forward and backward, ms")
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.set_xlim(lengths.min() / 1.1, lengths.max() * 1.1)
            panel.set_ylim(1e3 * seconds.min() / 1.5, 1e3 * seconds.max() * 1.5)
            panel.xaxis.set_minor_locator(ticker.NullLocator())
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
            _curves(panel, families.get(name, []), baseline)
        for unused in grid[len(names) :]:
            unused.remove()
        return figures.render(drawing)


def costs(rows: Sequence[Row]) -> bytes:
    """Time over attention's, time of one decoded token, and state, as PNG: one line a mixer."""
    drawn = [row for row in rows if row.ratio is not None]
    with matplotlib.rc_context(figures.STYLE):
        drawing = _figure(10.0, 1.2 + 0.24 * max(4, len(drawn)))
        columns = drawing.subplots(1, 3, sharey=True)
        for i, row in enumerate(drawn):
            colour = _FASTER if row.ratio <= 1 else _SLOWER
            columns[0].plot([1, row.ratio], [i, i], color=colour)
            columns[0].plot(row.ratio, i, color=colour, marker="o")
            _pair(columns[1], i, [1e6 * seconds for _, seconds in row.token_seconds])
            _pair(columns[2], i, [size for _, size in row.state_bytes])
        columns[0].axvline(1, color=_GREY, lw=1)
        columns[0].set_yticks(range(len(drawn)), [row.mixer for row in drawn])
        columns[0].set_ylim(len(drawn) - 0.4, -0.6)
        titles = (f"forward and backward / {BASELINE}", "one decoded token, µs", "state")
        for panel, title in zip(columns, titles, strict=True):
            panel.set_title(title, loc="left")
            panel.set_xscale("log")
            low, high = panel.get_xlim()
            subs = (1, 2, 5) if high < 300 * low else (1,)  # more would run into each other
            panel.xaxis.set_major_locator(ticker.LogLocator(subs=subs))
            panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
            panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        columns[2].xaxis.set_major_locator(ticker.LogLocator(base=16))
        columns[2].xaxis.set_minor_locator(ticker.NullLocator())
        columns[2].xaxis.set_major_formatter(
            ticker.FuncFormatter(lambda size, _: to_bytes(size).replace(".0", ""))
        )
        return figures.render(drawing)


def _curves(panel: axes.Axes, rows: Sequence[Row], baseline: Row | None) -> None:
    """The curves of a family, each named with its exponent in the margin where it ends."""
    ends, labels = [], []
    if baseline is not None:
        _curve(panel, baseline, color=_GREY, lw=4, alpha=0.5)
        if baseline not in rows:
            ends.append(baseline.growth_seconds[-1])
            labels.append((f"{BASELINE} {baseline.exponent:.2f}", _GREY))
    for i, row in enumerate(rows):
        colour, marker = figures.style(i)
        _curve(panel, row, color=colour, marker=marker, ms=4.5)
        ends.append(row.growth_seconds[-1])
        labels.append((f"{row.mixer} {row.exponent:.2f}", figures.dark(colour)))
    to_height = panel.transData + panel.transAxes.inverted()
    heights = [to_height.transform((n, 1e3 * s))[1] for n, s in ends]
    for height, (n, s), (text, colour) in zip(_apart(heights), ends, labels, strict=True):
        panel.annotate(
            text,
            (n, 1e3 * s),
            xytext=(1.05, height),
            textcoords="axes fraction",
            va="center",
            color=colour,
            fontsize=9,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.6,
                "shrinkA": 0,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )


def _curve(panel: axes.Axes, row: Row, **look: Any) -> None:
    lengths, seconds = zip(*row.growth_seconds, strict=True)
    panel.plot(lengths, [1e3 * s for s in seconds], **look)


def _apart(heights: Sequence[float]) -> list[float]:
    """The heights, moved as little as keeps two names from touching and all within the panel."""
    order = np.argsort(heights)
    placed = np.array(heights, np.float64)[order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + _GAP)
    placed -= np.mean(placed - np.array(heights)[order]) if len(placed) else 0
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], 1 - _GAP * (len(placed) - 1 - i))
    return list(placed[np.argsort(order)])


def _pair(panel: axes.Axes, y: int, values: Sequence[float]) -> None:
    """The first value hollow, the last one full, and on top: one full dot shows no growth."""
    if values:
        panel.plot([values[0], values[-1]], [y, y], color=_FASTER)
        panel.plot(values[0], y, color=_FASTER, marker="o", mfc="white")
        panel.plot(values[-1], y, color=_FASTER, marker="o")


def _figure(width: float, height: float) -> figure.Figure:
    drawing = figure.Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing
