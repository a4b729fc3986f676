"""The pictures of a study: score against state, score against width, learning curves.

Each panel shows one task; an architecture keeps its colour and marker through all pictures.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib import figure, ticker

from runners.core import figures, naming
from runners.leaderboard import panels, slice_plot, word_slice_plot
from runners.leaderboard.label_placement import place_labels
from runners.leaderboard.rows import LeaderboardRow, Section
from runners.leaderboard.tables import Leaderboard
from tasks import Metric

_FEW = 12  # points of a panel that can all carry a label

_STATE, _WIDTH, _CURVES = "plots/state.png", "plots/width.png", "plots/curves.png"


def captions(board: Leaderboard) -> dict[str, str]:
    """Every picture this study has, by its path in the study's folder, with its caption."""
    metric = " or ".join(sorted({section.metric.name for section in board.sections}))
    average = _average(board.rows)
    start = naming.shared_start({row.mixer for row in board.rows})
    names = f" Names are without the {start!r} that they share." if start else ""
    found = {}
    if any(_with_state(section) for section in board.sections):
        found[_STATE] = (
            f"Test {metric} against state size ({average}). The grey line is the best score that a "
            f"state of at most this size reaches.{names}"
        )
    if any(_with_widths(section) for section in board.sections):
        found[_WIDTH] = f"Test {metric} against model width ({average})."
    if any(_curves(section) for section in board.sections):
        found[_CURVES] = (
            f"Validation {metric} while training, each architecture at its best (width, "
            "options, learning rate): mean over seeds, band from the worst to the best seed; a "
            f"trial that stopped early is held at its last value.{names}"
        )
    for plot in (slice_plot, word_slice_plot):
        if (text := plot.caption(board)) is not None:
            found[plot.NAME] = text
    return found


def draw_all(board: Leaderboard) -> dict[str, figure.Figure]:
    """Draws every picture of `captions`."""
    draw = {
        _STATE: _draw_state,
        _WIDTH: _draw_width,
        _CURVES: _draw_curves,
        slice_plot.NAME: slice_plot.draw,
        word_slice_plot.NAME: word_slice_plot.draw,
    }
    with matplotlib.rc_context(figures.STYLE):
        return {name: draw[name](board) for name in captions(board)}


def _draw_state(board: Leaderboard) -> figure.Figure:
    sections = [section for section in board.sections if _with_state(section)]
    drawing, axes = panels.panels(sections, board, share_x=True, height=_height(board))
    look = panels.look(board)
    start = naming.shared_start(look)
    extent = panels.state_axis(axes, [row for section in sections for row in _with_state(section)])
    for panel, section in zip(axes, sections, strict=True):
        rows = _with_state(section)
        steps = _stairs(
            pareto([(row.state_bytes, row.mean) for row in rows], section.metric), extent[1]
        )
        (front,) = panel.plot(*steps.T, color="#B0B0B0", lw=2, label="Pareto front", zorder=1)
        for group in _by(rows, lambda row: row.mixer).values():
            group = sorted(group, key=lambda row: (row.state_bytes, row.mean))
            colour, marker = look[group[0].mixer]
            panel.errorbar(
                [row.state_bytes for row in group],
                [row.mean for row in group],
                yerr=[row.half_width or 0.0 for row in group],
                color=colour,
                marker=marker,
                ls=":" if len(group) > 1 else "",
                lw=1,
                elinewidth=1.2,
                capsize=3,
                zorder=3,
            )
        panels.scale(panel, section, rows)
    panels.draw_references(axes, sections)
    drawing.legend(handles=[front], loc="outside upper right", fontsize=9)
    panels.label_axes(
        drawing,
        axes,
        sections,
        "recurrent state after the longest sequence (bytes, log scale)",
        f"test {{metric}} ({_average(board.rows)})",
    )
    drawing.draw_without_rendering()  # labels need the final layout
    for panel, section in zip(axes, sections, strict=True):
        rows = _with_state(section)
        place_labels(
            panel,
            [(row.state_bytes, row.mean) for row in rows],
            [
                (i, name.removeprefix(start), figures.dark(look[rows[i].mixer][0]))
                for i, name in _point_labels(rows)
            ],
        )
    return drawing


def _draw_width(board: Leaderboard) -> figure.Figure:
    sections = [section for section in board.sections if _with_widths(section)]
    drawing, axes = panels.panels(sections, board)
    look = panels.look(board)
    for panel, section in zip(axes, sections, strict=True):
        widths = sorted({row.d_model for row in section.rows})
        panels.scale(panel, section, section.rows)
        groups = _by((r for r in section.rows if r.mean is not None), lambda row: row.label)
        for label, group in sorted(groups.items()):
            group = sorted(group, key=lambda row: row.d_model)
            colour, marker = look[group[0].mixer]
            panel.errorbar(
                [row.d_model for row in group],
                [row.mean for row in group],
                yerr=[row.half_width or 0.0 for row in group],
                color=colour,
                marker=marker,
                capsize=3,
                elinewidth=1.2,
                label=label,
                clip_on=False,
            )
        panel.set_xscale("log", base=2)
        panel.set_xticks(widths, list(map(str, widths)))
        panel.xaxis.set_minor_locator(ticker.NullLocator())
        panel.margins(x=0.08)
    panels.draw_references(axes, sections)
    panels.legend(drawing, axes)
    panels.label_axes(
        drawing,
        axes,
        sections,
        "model width (log scale)",
        f"test {{metric}} ({_average(board.rows)})",
    )
    return drawing


def _draw_curves(board: Leaderboard) -> figure.Figure:
    sections = [section for section in board.sections if _curves(section)]
    drawing, axes = panels.panels(sections, board, height=_height(board))
    look = panels.look(board)
    many, start = len(sections) == 1 and len(look) > _FEW, naming.shared_start(look)
    for panel, section in zip(axes, sections, strict=True):
        panels.scale(panel, section, ())
        lines, ends = _curves(section), []
        for row, curves in lines:
            colour, marker = look[row.mixer]
            steps, values = _align(curves)
            name = (row.label if len(sections) == 1 else row.mixer).removeprefix(start)
            shade = 0.07 if many else 0.18
            panel.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=shade, lw=0)
            panel.plot(
                steps,
                values.mean(0),
                color=colour,
                marker=marker,
                markersize=5,
                clip_on=False,
                markevery=max(1, len(steps) // 8),
                label=name,
            )
            ends.append((values.mean(0)[-1], name, colour))
        last = max(s[-1] for _, curves in lines for s, _ in curves)
        panel.set_xlim(0, last)
        if len(axes) > 1 and last >= 10_000:  # five digits stand too close in a small panel
            panel.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        panels.reach(panel, [value for line in panel.lines for value in line.get_ydata()])
        if many:
            panels.name_ends(panel, ends)
    panels.draw_references(axes, sections, inside=many)
    if not many:
        panels.legend(drawing, axes)
    panels.label_axes(
        drawing,
        axes,
        sections,
        "training step",
        "validation {metric} (mean and range over seeds)",
    )
    return drawing


def pareto(points: Iterable[tuple[float, float]], metric: Metric) -> list[tuple[float, float]]:
    """The points that no other beats with x as small and a score y as good, from left to right."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], metric.rank(point[1]))):
        if not front or metric.better(y, front[-1][1]):
            front.append((x, y))
    return front


def _height(board: Leaderboard) -> float:
    """Inches of a single panel: many names need room."""
    return 4.2 if len({row.mixer for row in board.rows}) <= _FEW else 6.0


def _with_state(section: Section) -> list[LeaderboardRow]:
    return [row for row in section.rows if row.mean is not None and row.state_bytes]


def _with_widths(section: Section) -> bool:
    groups = _by((r for r in section.rows if r.mean is not None), lambda row: row.label)
    return any(len({row.d_model for row in group}) > 1 for group in groups.values())


def _curves(section: Section) -> list[tuple[LeaderboardRow, list[tuple[np.ndarray, np.ndarray]]]]:
    """For each architecture its best row (they are sorted) and (steps, values) of every seed."""
    name = f"validation/{section.metric.name}"
    found: dict[str, tuple[LeaderboardRow, list]] = {}
    for row in section.rows:
        curves = []
        for curve in row.curves:
            pairs = zip(curve.get("step", ()), curve.get(name, ()), strict=False)
            known = np.array([(s, v) for s, v in pairs if v is not None], float)
            if len(known) > 1:
                curves.append((known[:, 0], known[:, 1]))
        if curves:
            found.setdefault(row.mixer, (row, curves))
    return [found[mixer] for mixer in sorted(found)]


def _align(curves: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The union of all steps [S] and values [seeds, S]; past its end a curve keeps its last."""
    steps = np.unique(np.concatenate([s for s, _ in curves]))
    return steps, np.stack([np.interp(steps, s, values) for s, values in curves])


def _by(
    rows: Iterable[LeaderboardRow], key: Callable[[LeaderboardRow], str]
) -> dict[str, list[LeaderboardRow]]:
    groups: dict[str, list[LeaderboardRow]] = collections.defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _average(rows: Iterable[LeaderboardRow]) -> str:
    counts = {len(row.scores) for row in rows if row.scores}
    if counts == {1}:
        return "one seed"
    return (
        f"mean of {counts.pop()} seeds, 95% interval"
        if len(counts) == 1
        else "mean over seeds, 95% interval"
    )


def _stairs(front: Sequence[tuple[float, float]], end: float) -> np.ndarray:
    """The best score that a state of at most x bytes reaches: corners of a line, [points, 2]."""
    corners = [front[0]]
    for (_, y), (next_x, next_y) in itertools.pairwise(front):
        corners += [(next_x, y), (next_x, next_y)]
    return np.array([*corners, (end, front[-1][1])])


def _point_labels(rows: Sequence[LeaderboardRow]) -> list[tuple[int, str]]:
    """Labels by the index of a point: of all if they are few, else of each architecture's best."""
    several = len({row.d_model for row in rows}) > 1
    if len(rows) <= _FEW:
        return [
            (i, f"{row.label}, {row.d_model} wide" if several else row.label)
            for i, row in enumerate(rows)
        ]
    first: dict[str, int] = {}
    for i, row in enumerate(rows):  # best first
        first.setdefault(row.mixer, i)
    return [(i, mixer) for mixer, i in first.items()]
