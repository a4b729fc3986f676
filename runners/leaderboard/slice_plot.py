"""Plot of metrics along a number that the test set is sliced by, such as the words seen."""

import itertools
import math
import textwrap

from matplotlib import axes, figure, ticker

from runners.core import figures
from runners.leaderboard import panels
from runners.leaderboard.rows import Section
from runners.leaderboard.tables import Leaderboard
from tasks import Slice

NAME = "plots/slices.png"
_FEWEST = 4  # numbers that make a curve

_Curve = list[tuple[float, float]]


def caption(board: Leaderboard) -> str | None:
    """Caption of `draw`; None where the slices of a study make no curves."""
    drawn = _panels(board)
    if not drawn:
        return None
    keys = sorted({key for _, key, _ in drawn})
    losses = any("↓" in section.judge.axis(metric) for section, _, metric in drawn)
    arrow = " ↓: smaller is better." if losses else ""
    return (
        f"Test metrics against {' or '.join(keys)}: each architecture at its best (width, "
        "options, learning rate), mean over seeds; dashed in grey the reference predictors."
        f"{arrow}"
    )


def draw(board: Leaderboard) -> figure.Figure:
    """Draws the panels, at most three in a row."""
    wanted = _panels(board)
    across = min(3, len(wanted))
    drawing, grid = figures.grid(across, -(-len(wanted) // across), len(wanted))
    look = panels.look(board)
    for panel, (section, key, metric) in zip(grid, wanted, strict=True):
        ends = {}
        near = panels.near_references(section, section.rows)
        for name, values in section.judge.reference_metrics.items():
            is_far = metric == section.metric.name and name not in near
            points = [] if is_far else _curve(values, metric, key)
            if points:
                x, y = zip(*points, strict=True)
                panel.plot(x, y, color=figures.GREY, lw=1, ls=(0, (5, 3)), zorder=0.9)
                ends[name] = y[-1]
        for row in panels.best_rows(section):
            points = _curve(row.metrics, metric, key)
            if points:
                colour, marker = look[row.mixer]
                every = max(1, len(points) // 6)
                style = {"color": colour, "marker": marker, "markersize": 4, "markevery": every}
                panel.plot(*zip(*points, strict=True), label=row.label, **style)
        _widen(panel)
        panels.name_references(panel, ends, size=7)
        axis = section.judge.axis(metric)
        title = axis if len(board.sections) == 1 else section.setting
        panel.set_title(textwrap.fill(title, panels.TITLE), loc="left")
        panel.set_xlabel(key)
        if len(board.sections) > 1:
            panel.set_ylabel(axis)
    panels.legend(drawing, grid)
    return drawing


def _widen(panel: axes.Axes) -> None:
    """A logarithmic axis for numbers that double, such as lengths."""
    numbers = sorted({float(x) for line in panel.lines for x in line.get_xdata()})
    if numbers and numbers[0] > 0 and all(b == 2 * a for a, b in itertools.pairwise(numbers)):
        panel.set_xscale("log", base=2)
        shown = numbers[:: -2 if len(numbers) > 6 else -1]  # the last one always
        panel.set_xticks(shown, [f"{number:g}" for number in shown])
        panel.xaxis.set_minor_locator(ticker.NullLocator())


def _panels(board: Leaderboard) -> list[tuple[Section, str, str]]:
    """(section, key, metric): each metric of a single section, else the first of each section."""
    most = None if len(board.sections) == 1 else 1
    return [(s, key, metric) for s in board.sections for key, metric in _metrics(s)[:most]]


def _metrics(section: Section) -> list[tuple[str, str]]:
    """(key, metric) for each metric with slices "key=number", the primary one first."""
    found: dict[tuple[str, str], set[float]] = {}
    for piece in itertools.chain(*(row.metrics for row in section.rows)):
        if (point := _point(piece)) is not None:
            key, number = point
            found.setdefault((key, piece.metric), set()).add(number)
    curves = [pair for pair, numbers in found.items() if len(numbers) >= _FEWEST]
    return sorted(curves, key=lambda pair: (pair[1] != section.metric.name, pair))


def _curve(values: dict[Slice, float], metric: str, key: str) -> _Curve:
    """The points of one metric in ascending order."""
    found = []
    for piece, value in values.items():
        point = _point(piece)
        if point is not None and (piece.metric, point[0]) == (metric, key) and math.isfinite(value):
            found.append((point[1], value))
    return sorted(found)


def _point(piece: Slice) -> tuple[str, float] | None:
    """The key and number of a slice that has no more than these."""
    match piece.values:
        case ((str(key), int() | float() as number),):
            return key, number
    return None
