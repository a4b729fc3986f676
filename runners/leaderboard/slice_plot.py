"""How metrics change along a number that the test set is sliced by, such as the words seen."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import axes, figure

from runners.core import figures
from runners.leaderboard import panels
from runners.leaderboard.selection import Row, Section
from runners.leaderboard.tables import Leaderboard

NAME = "plots/slices.png"
_FEWEST = 4  # numbers that make a curve

Curve = list[tuple[int, float]]


def caption(board: Leaderboard) -> str | None:
    """What `draw` shows; None where the slices of a study make no curves."""
    keys = {key for section in board.sections for key, _ in _metrics(section)}
    if not keys:
        return None
    return (
        f"Test metrics against {' or '.join(sorted(keys))}: each architecture at its best (width, "
        "options, learning rate), mean over seeds; dashed in grey the anchors."
    )


def draw(board: Leaderboard) -> figure.Figure:
    """One panel for each metric of a single section, or the primary one of each section."""
    if len(board.sections) == 1:
        section = board.sections[0]
        wanted = [(section, key, metric) for key, metric in _metrics(section)]
    else:
        wanted = [(s, key, s.metric) for s in board.sections for key, _ in _metrics(s)[:1]]
    across = min(3, len(wanted))
    drawing, axes = figures.grid(across, -(-len(wanted) // across), len(wanted))
    look = panels.look(board)
    for panel, (section, key, metric) in zip(axes, wanted, strict=True):
        for name, values in section.anchor_metrics.items():
            points = _curve(values, metric, key)
            if points:
                _grey(panel, name, points)
        for row in _best(section):
            points = _curve(row.metrics, metric, key)
            if points:
                colour, marker = look[row.mixer]
                every = max(1, len(points) // 6)
                style = {"color": colour, "marker": marker, "markersize": 4, "markevery": every}
                panel.plot(*zip(*points, strict=True), label=row.label, **style)
        title = metric if len(board.sections) == 1 else section.setting
        panel.set_title(textwrap.fill(title, panels.TITLE), loc="left")
        panel.set_xlabel(key)
        if len({section.metric for section in board.sections}) > 1:
            panel.set_ylabel(metric)
    panels.legend(drawing, axes)
    return drawing


def _metrics(section: Section) -> list[tuple[str, str]]:
    """(key, metric) for each metric with slices "key=number", the primary one first."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in section.rows:
        for name in row.metrics:
            metric, _, piece = name.partition("/")
            key, _, number = piece.partition("=")
            if number.isdecimal():
                found.setdefault((key, metric), set()).add(number)
    curves = [pair for pair, numbers in found.items() if len(numbers) >= _FEWEST]
    return sorted(curves, key=lambda pair: (pair[1] != section.metric, pair))


def _curve(values: dict[str, float], metric: str, key: str) -> Curve:
    """The points of one metric in ascending order."""
    start = f"{metric}/{key}="
    points = {name.removeprefix(start): v for name, v in values.items() if name.startswith(start)}
    return sorted((int(n), v) for n, v in points.items() if n.isdecimal() and math.isfinite(v))


def _best(section: Section) -> list[Row]:
    """The first row of each architecture: rows are sorted."""
    found: dict[str, Row] = {}
    for row in section.rows:
        if row.metrics:
            found.setdefault(row.label, row)
    return list(found.values())


def _grey(panel: axes.Axes, name: str, points: Sequence[tuple[int, float]]) -> None:
    x, y = np.array(points).T
    panel.plot(x, y, color=figures.GREY, lw=1, ls=(0, (5, 3)), zorder=0.9)
    panel.annotate(
        name,
        (x[-1], y[-1]),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        color=figures.GREY,
        fontsize=7,
    )
