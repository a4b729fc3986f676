"""The pictures of a probe: what every head's weight falls on, and where the best of them look."""

from collections.abc import Sequence

import matplotlib
import numpy as np

from runners.core import figures
from runners.probe.heads import Head

_LONGEST = 48  # tokens of an example that can still be read


def scores(heads: Sequence[Head]) -> bytes:
    """A row for each head, a column for each order: the weight in colour and in figures."""
    names = [_name(head) for head in heads]
    values = np.array([head.weight for head in heads])
    with matplotlib.rc_context(figures.STYLE):
        width = 0.075 * max(map(len, names)) + 0.85 * values.shape[1] + 1.2  # inches
        drawing, (panel,) = figures.grid(1, 1, 1, (width, 0.26 * len(heads) + 1.1))
        image = panel.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            uniform = heads[row].uniform[column]
            panel.text(
                column,
                row,
                f"{value:.2f} ({uniform:.2f})",
                ha="center",
                va="center",
                fontsize=8,
                color="black" if value > 0.6 else "white",
            )
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.set_xticks(range(values.shape[1]), [f"{n + 1}-gram" for n in range(values.shape[1])])
        panel.tick_params(length=0)
        panel.grid(visible=False)
        drawing.colorbar(image, label="share of the weight (of a uniform head)")
        return figures.render(drawing)


def examples(heads: Sequence[Head]) -> bytes:
    """The mixing matrix of each model's head that looks most where 2-grams stood before."""
    best: dict[str, Head] = {}
    for head in heads:
        if head.model not in best or head.weight[1] > best[head.model].weight[1]:
            best[head.model] = head
    across = min(3, len(best))
    down = -(-len(best) // across)
    with matplotlib.rc_context(figures.STYLE):
        size = 3.8 * across, 4.4 * down
        drawing, axes = figures.grid(across, down, len(best), size)
        for panel, head in zip(axes, best.values(), strict=True):
            text = list(map(str, head.tokens[:_LONGEST]))
            count = len(text)
            panel.imshow(head.example[:count, :count], cmap="Greys", vmin=0, vmax=1)
            panel.set_title(f"{_name(head)}: {head.weight[1]:.2f}", loc="left", fontsize=8)
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_ticks(range(count), text, fontsize=5)
            panel.tick_params(length=0)
            panel.grid(visible=False)
        drawing.supxlabel("token that is looked at", fontsize=10)
        drawing.supylabel("token at which", fontsize=10)
        return figures.render(drawing)


def _name(head: Head) -> str:
    return f"{head.model}, layer {head.layer} ({head.mixer}), head {head.head}"
