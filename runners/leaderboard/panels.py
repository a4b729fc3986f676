"""Parts that the plots of a leaderboard share: panels, limits, reference lines, legend."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import axes, figure, ticker

from runners.core import figures
from runners.core.format import to_bytes
from runners.leaderboard.rows import LeaderboardRow, Section
from runners.leaderboard.tables import Leaderboard

_NAME = 20  # letters in a line of a name in the margin
_Y_LABEL = 50  # letters in a line beside a panel
_PALE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
TITLE = 36  # letters in a line above a panel

_Look = dict[str, tuple[str, str]]


def look(board: Leaderboard) -> _Look:
    """Colour and marker by architecture, failed ones too: no colour changes when one fails."""
    mixers = sorted({row.mixer for row in board.rows})
    return {mixer: figures.style(i) for i, mixer in enumerate(mixers)}


def best_rows(section: Section) -> list[LeaderboardRow]:
    """The best row of each architecture, the first: rows are sorted."""
    found: dict[str, LeaderboardRow] = {}
    for row in section.rows:
        if row.metrics:
            found.setdefault(row.label, row)
    return list(found.values())


def panels(
    sections: Sequence[Section], board: Leaderboard, share_x: bool = False, height: float = 4.2
) -> tuple[figure.Figure, list[axes.Axes]]:
    """One panel for each section, at most three in a row; a single one is wide, `height` inches.

    Scores of one task have one axis; what is good in one task says nothing in another.
    """
    one_task = len({section.task["name"] for section in sections}) == 1
    across = min(len(sections), 2 if len(sections) in (2, 4) else 3)
    down = -(-len(sections) // across)
    size = (7.2, height) if len(sections) == 1 else None
    drawing, panels = figures.grid(
        across, down, len(sections), size, sharex=share_x, sharey=one_task
    )
    for panel, section in zip(panels, sections, strict=True):
        if len(board.sections) > 1:
            panel.set_title(textwrap.fill(section.setting, TITLE), loc="left")
    return drawing, panels


def label_axes(
    drawing: figure.Figure,
    panels: Sequence[axes.Axes],
    sections: Sequence[Section],
    x_label: str,
    y_label: str,
) -> None:
    """Names the axes once, at the panel if there is one, else at the figure.

    y_label: with {metric} in the place of the metric; where the sections have several metrics, the
      figure has it without, and each panel its own metric.
    """
    metrics = [section.metric.axis for section in sections]
    if len(panels) == 1:
        y_text = _wrap(y_label.format(metric=metrics[0]))
        panels[0].set(xlabel=x_label, ylabel=y_text)
        return
    one = len(set(metrics)) == 1
    drawing.supxlabel(x_label, fontsize=10)
    y_text = y_label.format(metric=metrics[0] if one else "score")
    drawing.supylabel(_wrap(y_text), fontsize=10)
    for panel, metric in zip(panels, metrics, strict=True):
        if not one:
            panel.set_ylabel(metric)


def _wrap(label: str) -> str:
    """The label of a y axis, with what stands in brackets on a line of its own if it is long."""
    return label if len(label) <= _Y_LABEL else label.replace(" (", "\n(", 1)


def legend(drawing: figure.Figure, panels: Sequence[axes.Axes]) -> None:
    """One legend for all panels, beside them: over the curves it would hide what it explains."""
    handles = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    drawing.legend(handles.values(), handles.keys(), loc="outside right upper")


def name_ends(panel: axes.Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names curves at their right ends, (last value, name, colour) each: many more than a legend.

    The names stand one below the other in the order of the values, joined to them by thin lines.
    """
    low, high = panel.get_ylim()
    places = np.linspace(1.0, 0.0, len(ends))
    for place, (value, name, colour) in zip(places, sorted(ends, reverse=True), strict=True):
        end = (np.clip(value, low, high) - low) / (high - low)
        panel.plot(
            [1, 1.07, 1.09],
            [end, place, place],
            transform=panel.transAxes,
            color=colour,
            lw=0.6,
            clip_on=False,
        )
        panel.text(
            1.095,
            place,
            name,
            transform=panel.transAxes,
            color=figures.dark(colour),
            va="center",
            size=9,
        )


def near_references(section: Section, rows: Iterable[LeaderboardRow]) -> dict[str, float]:
    """Reference scores for the axis of a plot of these rows.

    Of losses only one that is worse than all rows: a predictor that knows nothing may be so far
    off that the rows would be one line.
    """
    metric, scores = section.metric, section.judge.reference_scores
    means = [row.mean for row in rows if row.mean is not None]
    if metric.higher_is_better or not means:
        return scores
    above = [score for score in scores.values() if score > max(means)]
    return {name: s for name, s in scores.items() if s <= min(above, default=math.inf)}


def scale(panel: axes.Axes, section: Section, rows: Sequence[LeaderboardRow]) -> None:
    """From the worst to the best reference score and row, so that studies compare.

    Wide intervals are cut at the frame.
    """
    means = [row.mean for row in rows if row.mean is not None]
    known = [*near_references(section, rows).values(), *means]
    if known and max(known) > min(known):
        pad = 0.06 * (max(known) - min(known))
        panel.set_ylim(min(known) - pad, max(known) + pad)


def reach(panel: axes.Axes, values: Sequence[float]) -> None:
    """Shows values beyond the reference scores too.

    What is untrained may be worse than chance, and not every task knows its optimum.
    """
    low, high = panel.get_ylim()
    lowest, highest = min(low, *values), max(high, *values)
    pad = 0.06 * (highest - lowest)
    if lowest < low:
        panel.set_ylim(bottom=lowest - pad)
    if highest > high:
        panel.set_ylim(top=highest + pad)


def draw_references(
    panels: Sequence[axes.Axes], sections: Sequence[Section], inside: bool = False
) -> None:
    """Dashed lines for reference scores, named in the margin (of every panel if they differ).

    Where the margin has other names, `inside` the panel.
    """
    references = [section.judge.reference_scores for section in sections]
    alike = all(scores == references[0] for scores in references)
    for panel, scores in zip(panels, references, strict=True):
        for value in scores.values():
            panel.axhline(value, color=figures.GREY, lw=1, ls=(0, (5, 3)), zorder=0.9)
        if not alike or panel.get_subplotspec().is_last_col() or panel is panels[-1]:
            name_references(panel, scores, inside=inside)


def name_references(
    panel: axes.Axes, values: Mapping[str, float], size: int = 9, inside: bool = False
) -> None:
    """Names beside values at the right end of a panel, raised where they would overlap."""
    low, high = panel.get_ylim()
    values = {name: value for name, value in values.items() if low <= value <= high}
    points = panel.get_window_extent().height * 72 / panel.get_figure().dpi
    line = size + 1
    lowest = -math.inf  # where the next name may begin, in points above the frame's foot
    for name, value in sorted(values.items(), key=lambda item: (item[1], item[0])):
        text = name if inside else textwrap.fill(name, _NAME)
        below = 0 if inside else line * (1 + text.count("\n")) / 2  # in the margin it is centred
        place = (value - low) / (high - low) * points
        raised = max(place, lowest + below) - place
        lowest = place + raised + (below or line)
        panel.annotate(
            text,
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-4, raised + 2) if inside else (4, raised),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="bottom" if inside else "center",
            color=figures.GREY,
            fontsize=size,
            bbox=_PALE if inside else None,
        )


def state_axis(panels: Sequence[axes.Axes], rows: Sequence[LeaderboardRow]) -> tuple[float, float]:
    """One log axis of bytes for all panels, with few ticks; returns its ends."""
    exponents = np.log2([row.state_bytes for row in rows])
    margin = max(0.6, 0.17 * np.ptp(exponents))  # room for a label
    low, high = exponents.min() - margin, exponents.max() + margin
    stride = math.ceil((high - low) / (7 if len(panels) == 1 else 4))
    ticks = [2**e for e in range(math.ceil(low), math.floor(high) + 1) if e % stride == 0]
    for panel in panels:
        panel.set_xscale("log", base=2)
        panel.set_xlim(2**low, 2**high)
        panel.set_xticks(ticks, [to_bytes(tick).replace(".0", "") for tick in ticks])
        panel.xaxis.set_minor_locator(ticker.NullLocator())
    return 2**low, 2**high
