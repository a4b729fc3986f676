"""Time against length: one panel an operator, the exponent of growth beside each name."""

import collections
import io
from collections.abc import Sequence

import matplotlib
from matplotlib import axes, figure, ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg

from runners.benchmark import timing
from runners.benchmark.operators import PASSES, Row
from runners.core import figures

_LINE = 0.055  # of a legend, in panel heights
_MAIN = "typical"  # of other shapes only the default is drawn


def draw(rows: Sequence[Row]) -> bytes:
    """The picture as PNG."""
    curves = _curves(rows)
    operators = list(curves) or [""]
    across = min(3, len(operators))
    down = -(-len(operators) // across)
    with matplotlib.rc_context(figures.STYLE):
        drawing = figure.Figure(figsize=(4.6 * across, 3.9 * down), layout="constrained")
        FigureCanvasAgg(drawing)
        grid = list(drawing.subplots(down, across, squeeze=False).flat)
        for panel, operator in zip(grid, operators, strict=False):
            _panel(panel, operator, curves.get(operator, {}))
        for unused in grid[len(operators) :]:
            unused.remove()
        file = io.BytesIO()
        drawing.savefig(file, format="png", dpi=130, metadata={"Software": None})
    return file.getvalue()


def _curves(rows: Sequence[Row]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """operator -> name of the curve -> (length, seconds), lengths rising; at least two points."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    dtypes = {}
    for row in rows:
        if row.direction != PASSES[1] or row.seconds is None:
            continue
        if row.dtype != dtypes.setdefault(row.operator, row.dtype):
            continue  # lengths are measured in one dtype
        if row.shape != _MAIN and not row.is_default:
            continue
        name = row.candidate if row.shape == _MAIN else f"{row.candidate}, {row.shape}"
        curves = found.setdefault(row.operator, collections.defaultdict(list))
        curves[name].append((row.sizes["T"], row.seconds))
    return {
        operator: {name: sorted(points) for name, points in curves.items() if _grows(points)}
        for operator, curves in found.items()
        if any(_grows(points) for points in curves.values())
    }


def _grows(points: Sequence[tuple[int, float]]) -> bool:
    return len({length for length, _ in points}) > 1


def _panel(panel: axes.Axes, operator: str, curves: dict[str, list[tuple[int, float]]]) -> None:
    for i, (name, points) in enumerate(curves.items()):
        lengths, seconds = zip(*points, strict=True)
        colour, marker = figures.style(i)
        panel.plot(
            lengths,
            [1e3 * s for s in seconds],
            color=colour,
            marker=marker,
            label=f"{name}: T^{timing.slope(lengths, seconds):.2f}",
        )
    panel.set_title(operator, loc="left")
    panel.set(xlabel="length T", ylabel="forward and backward, ms")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:.0f}"))
    if curves:
        # Room for the names above the curves, which run to the upper right corner.
        low, high = panel.get_ylim()
        room = min(0.5, _LINE * (len(curves) + 1))
        panel.set_ylim(low, low * (high / low) ** (1 / (1 - room)))
        panel.legend(fontsize=8, loc="upper left")
