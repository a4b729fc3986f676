"""The pictures of a study: score against state, score against width, learning curves.

Panels show one task each. An architecture keeps its colour and marker through all of them; colours
are those of Okabe & Ito, which people with any common colour blindness can tell apart, and markers
say the same again.
"""

import collections
import io
import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib import axes, colors, figure, ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg

from runners.placement import place_labels
from runners.selection import Row, Section
from runners.tables import Leaderboard, to_bytes

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p")
_STYLE = {
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
_GREY = "#777777"
_FEW = 12  # points of a panel that can all carry a label

_STATE, _WIDTH, _CURVES = "plots/state.png", "plots/width.png", "plots/curves.png"

Look = dict[str, tuple[str, str]]


def captions(board: Leaderboard) -> dict[str, str]:
    """Every picture this study has, by its path in the study's folder, with its caption."""
    metric = " or ".join(sorted({section.metric for section in board.sections}))
    average = _average(board.rows)
    found = {}
    if any(_with_state(section) for section in board.sections):
        found[_STATE] = (
            f"Test {metric} against state size ({average}). The grey line is the best score that a "
            "state of at most this size reaches."
        )
    if any(_with_widths(section) for section in board.sections):
        found[_WIDTH] = f"Test {metric} against model width ({average})."
    if any(_curves(section) for section in board.sections):
        found[_CURVES] = (
            f"Validation {metric} while training, each architecture at its best (width, "
            "options, learning rate): mean over seeds, band from the worst to the best seed; a "
            "trial that stopped early is held at its last value."
        )
    return found


def figures(board: Leaderboard) -> dict[str, figure.Figure]:
    """Draws every picture of `captions`."""
    draw = {_STATE: _draw_state, _WIDTH: _draw_width, _CURVES: _draw_curves}
    with matplotlib.rc_context(_STYLE):
        return {name: draw[name](board) for name in captions(board)}


def render(drawing: figure.Figure) -> bytes:
    """The picture as PNG, without the date and version that would change its bytes."""
    file = io.BytesIO()
    drawing.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


def _draw_state(board: Leaderboard) -> figure.Figure:
    sections = [section for section in board.sections if _with_state(section)]
    drawing, panels = _panels(sections, board, share_x=True)
    look = _look(board)
    extent = _state_axis(panels, [row for section in sections for row in _with_state(section)])
    for panel, section in zip(panels, sections, strict=True):
        rows = _with_state(section)
        steps = _stairs(pareto([(row.state_bytes, row.mean) for row in rows]), extent[1])
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
        _scale(panel, section, rows)
    _draw_anchors(panels, sections)
    drawing.legend(handles=[front], loc="outside upper right", fontsize=9)
    drawing.supxlabel("recurrent state after the longest sequence (bytes, log scale)", fontsize=10)
    drawing.supylabel(f"test {sections[0].metric} ({_average(board.rows)})", fontsize=10)
    drawing.draw_without_rendering()  # labels need the final layout
    for panel, section in zip(panels, sections, strict=True):
        rows = _with_state(section)
        place_labels(
            panel,
            [(row.state_bytes, row.mean) for row in rows],
            [(i, name, _dark(look[rows[i].mixer][0])) for i, name in _point_labels(rows)],
        )
    return drawing


def _draw_width(board: Leaderboard) -> figure.Figure:
    sections = [section for section in board.sections if _with_widths(section)]
    drawing, panels = _panels(sections, board)
    look = _look(board)
    for panel, section in zip(panels, sections, strict=True):
        widths = sorted({row.d_model for row in section.rows})
        _scale(panel, section, section.rows)
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
    _draw_anchors(panels, sections)
    _legend(drawing, panels)
    drawing.supxlabel("model width (log scale)", fontsize=10)
    drawing.supylabel(f"test {sections[0].metric} ({_average(board.rows)})", fontsize=10)
    return drawing


def _draw_curves(board: Leaderboard) -> figure.Figure:
    sections = [section for section in board.sections if _curves(section)]
    drawing, panels = _panels(sections, board)
    look = _look(board)
    for panel, section in zip(panels, sections, strict=True):
        _scale(panel, section, ())
        lines = _curves(section)
        for row, curves in lines:
            colour, marker = look[row.mixer]
            steps, values = _align(curves)
            panel.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.18, lw=0)
            panel.plot(
                steps,
                values.mean(0),
                color=colour,
                marker=marker,
                markersize=5,
                markevery=max(1, len(steps) // 8),
                label=row.label if len(sections) == 1 else row.mixer,
            )
        panel.set_xlim(0, max(s[-1] for _, curves in lines for s, _ in curves))
    _draw_anchors(panels, sections)
    _legend(drawing, panels)
    drawing.supxlabel("training step", fontsize=10)
    drawing.supylabel(f"validation {sections[0].metric} (mean and range over seeds)", fontsize=10)
    return drawing


def pareto(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats with less or equal x and more or equal y, from left to right."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def _with_state(section: Section) -> list[Row]:
    return [row for row in section.rows if row.mean is not None and row.state_bytes]


def _with_widths(section: Section) -> bool:
    groups = _by((r for r in section.rows if r.mean is not None), lambda row: row.label)
    return any(len({row.d_model for row in group}) > 1 for group in groups.values())


def _curves(section: Section) -> list[tuple[Row, list[tuple[np.ndarray, np.ndarray]]]]:
    """For each architecture its best row, with (steps, values) of every seed; rows are sorted, so
    the first is the best.
    """
    name = f"validation/{section.metric}"
    found: dict[str, tuple[Row, list]] = {}
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
    """All seeds on the union of their steps, [S] and [seeds, S]; past its end a curve keeps its
    last value.
    """
    steps = np.unique(np.concatenate([s for s, _ in curves]))
    return steps, np.stack([np.interp(steps, s, values) for s, values in curves])


def _by(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _look(board: Leaderboard) -> Look:
    """Colour and marker of every architecture, also of those without a score, so that none changes
    when one fails.
    """
    mixers = sorted({row.mixer for row in board.rows})
    return {
        mixer: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)])
        for i, mixer in enumerate(mixers)
    }


def _average(rows: Iterable[Row]) -> str:
    counts = {len(row.scores) for row in rows if row.scores}
    if counts == {1}:
        return "one seed"
    return (
        f"mean of {counts.pop()} seeds, 95% interval"
        if len(counts) == 1
        else "mean over seeds, 95% interval"
    )


def _panels(
    sections: Sequence[Section], board: Leaderboard, share_x: bool = False
) -> tuple[figure.Figure, list[axes.Axes]]:
    """One panel for each section, at most three in a row; single pictures are wide."""
    across = min(len(sections), 2 if len(sections) in (2, 4) else 3)
    down = -(-len(sections) // across)
    size = (7.2, 4.2) if len(sections) == 1 else (3.1 * across + 1.0, 2.7 * down + 0.9)
    drawing = figure.Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(drawing)  # attaches itself: no display, and no global state as pyplot has it
    grid = drawing.subplots(down, across, sharex=share_x, sharey=True, squeeze=False).flat
    panels = list(grid)[: len(sections)]
    for unused in list(grid)[len(sections) :]:
        unused.remove()
    for panel, section in zip(panels, sections, strict=True):
        if len(board.sections) > 1:
            panel.set_title(section.setting, loc="left")
    return drawing, panels


def _legend(drawing: figure.Figure, panels: Sequence[axes.Axes]) -> None:
    """One legend for all panels, beside them: over the curves it would hide what it explains."""
    handles = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    drawing.legend(handles.values(), handles.keys(), loc="outside right upper")


def _scale(panel: axes.Axes, section: Section, rows: Iterable[Row]) -> None:
    """From floor to ceiling, so that heights compare between studies; wide intervals are cut at the
    frame.
    """
    known = [*section.anchors.values(), *(row.mean for row in rows if row.mean is not None)]
    if known and max(known) > min(known):
        pad = 0.06 * (max(known) - min(known))
        panel.set_ylim(min(known) - pad, max(known) + pad)


def _draw_anchors(panels: Sequence[axes.Axes], sections: Sequence[Section]) -> None:
    """Dashed lines for floor and ceiling, named in the margin: at every panel only if panels
    differ.
    """
    alike = all(section.anchors == sections[0].anchors for section in sections)
    for panel, section in zip(panels, sections, strict=True):
        for name, value in section.anchors.items():
            panel.axhline(value, color=_GREY, lw=1, ls=(0, (5, 3)), zorder=0.5)
            if not alike or panel.get_subplotspec().is_last_col() or panel is panels[-1]:
                panel.annotate(
                    name,
                    (1, value),
                    xycoords=("axes fraction", "data"),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    color=_GREY,
                    fontsize=9,
                )


def _state_axis(panels: Sequence[axes.Axes], rows: Sequence[Row]) -> tuple[float, float]:
    """One logarithmic axis of bytes for all panels, with few enough ticks that they can be read;
    returns its ends.
    """
    exponents = np.log2([row.state_bytes for row in rows])
    low, high = exponents.min() - 0.6, exponents.max() + 0.6
    stride = math.ceil((high - low) / (7 if len(panels) == 1 else 4))
    ticks = [2**e for e in range(math.ceil(low), math.floor(high) + 1) if e % stride == 0]
    for panel in panels:
        panel.set_xscale("log", base=2)
        panel.set_xlim(2**low, 2**high)
        panel.set_xticks(ticks, [to_bytes(tick).replace(".0", "") for tick in ticks])
        panel.xaxis.set_minor_locator(ticker.NullLocator())
    return 2**low, 2**high


def _stairs(front: Sequence[tuple[float, float]], end: float) -> np.ndarray:
    """The best score that a state of at most x bytes reaches, as the corners of a line, [points,
    2].
    """
    corners = [front[0]]
    for (_, y), (next_x, next_y) in itertools.pairwise(front):
        corners += [(next_x, y), (next_x, next_y)]
    return np.array([*corners, (end, front[-1][1])])


def _dark(colour: str) -> tuple[float, ...]:
    """The colour as text needs it: a marker's light blue is too faint for letters."""
    return tuple(0.75 * part for part in colors.to_rgb(colour))


def _point_labels(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Which points carry a label: all if they are few, else the best of each architecture."""
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
