"""Pictures of recall against the length of the context and the depth of the fact."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib import axes, ticker

from runners.core import figures
from runners.evaluate.record import Entry

_METRICS = {
    "exact_match": "exact match",
    "token_accuracy": "token accuracy",
    "bits_saved": "bits saved\nper byte of the answer",
}

_Found = Mapping[str, Mapping[str, Entry]]  # by probe and the model's name


def against_length(found: _Found) -> bytes:
    """Scores against length over all depths as PNG: a column a probe, a curve a model.

    Bars are 95% intervals; dashed in grey a guess: any answer, which saves no bits.
    """
    names = _models(found)
    with matplotlib.rc_context(figures.STYLE):
        drawing, grid = figures.grid(len(found), len(_METRICS), len(found) * len(_METRICS))
        panels = iter(grid)
        for metric, label in _METRICS.items():
            for i, (probe, entries) in enumerate(found.items()):
                panel = next(panels)
                panel.set_title(probe if metric == "exact_match" else "", loc="left")
                panel.set_ylabel("" if i else label)
                panel.set_xlabel("length, tokens" if metric == "bits_saved" else "")
                floor = 0.0
                for number, name in enumerate(names):
                    # Lengths a little apart, so that bars do not hide each other.
                    shift = 2 ** (0.3 * ((number + 0.5) / len(names) - 0.5))
                    look = figures.style(number)
                    floor = max(floor, _curve(panel, entries[name], metric, shift, look, name))
                style = {"color": figures.GREY, "lw": 1, "ls": (0, (5, 3)), "label": "guess"}
                panel.axhline(floor, zorder=0.9, **style)
                if metric != "bits_saved":
                    panel.set_ylim(-0.05, 1.05)
                lengths = [cell.length for entry in entries.values() for cell in entry.cells]
                panel.set_xscale("log", base=2)
                panel.set_xlim(min(lengths) / 1.3, max(lengths) * 1.3)
                panel.xaxis.set_minor_locator(ticker.NullLocator())
                panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
        drawing.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
        return figures.render(drawing)


def _curve(
    panel: axes.Axes, entry: Entry, metric: str, shift: float, look: tuple[str, str], name: str
) -> float:
    """Draws one model in a colour and marker; returns the guess that it is to be compared with."""
    colour, marker = look
    cells = [cell for cell in entry.cells if cell.depth is None and cell.failure is None]
    x = [cell.length * shift for cell in cells]
    y, low, high = np.array([cell.scores[metric] for cell in cells], float).reshape(-1, 3).T
    panel.plot(x, y, color=colour, marker=marker, markersize=4, lw=1.3, label=name)
    panel.vlines(x, low, high, color=colour, lw=0.8)
    return max((cell.guesses["any answer"].get(metric, 0.0) for cell in cells), default=0.0)


def against_depth(found: _Found) -> bytes | None:
    """Bits saved by length and depth as PNG: a row a probe, a column a model; None without any.

    Lengths that a model cannot have are grey.
    """
    saved = {
        (probe, name, cell.depth, cell.length): cell.scores["bits_saved"][0]
        for probe, entries in found.items()
        for name, entry in entries.items()
        for cell in entry.cells
        if cell.depth is not None
    }
    if not saved:
        return None
    probes = list(dict.fromkeys(probe for probe, *_ in saved))
    names, depths, lengths = _models(found), *(sorted({key[i] for key in saved}) for i in (2, 3))
    limit = max(map(abs, saved.values()))
    with matplotlib.rc_context(figures.STYLE | {"axes.grid": False}):
        size = (1.8 * len(names) + 1.6, (0.8 + 0.25 * len(depths)) * len(probes) + 0.8)
        count = len(names) * len(probes)
        share = {"sharex": True, "sharey": True}
        drawing, grid = figures.grid(len(names), len(probes), count, size, **share)
        for i, panel in enumerate(grid):
            row, column = divmod(i, len(names))
            key = probes[row], names[column]
            values = [[saved.get((*key, d, length), np.nan) for length in lengths] for d in depths]
            image = panel.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
            panel.set_facecolor("#CCCCCC")
            panel.set_title("" if row else names[column], loc="left", fontsize=9)
            panel.set_ylabel("" if column else f"{probes[row]}\ndepth")
            panel.set_xlabel("length, tokens" if row == len(probes) - 1 else "")
            panel.set_xticks(range(len(lengths)), lengths, rotation=90, fontsize=8)
            panel.set_yticks(range(len(depths)), [f"{depth:g}" for depth in depths], fontsize=8)
        drawing.colorbar(image, ax=grid, label="bits saved per byte")
        return figures.render(drawing)


def _models(found: _Found) -> list[str]:
    return list(dict.fromkeys(name for entries in found.values() for name in entries))
