"""Labels beside points that cover neither points nor each other."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib import axes, transforms

# Where a label may stand around its point, the most legible place first: (horizontal, vertical)
# direction.
_PLACES = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (9, 17, 27, 40)  # typographic points
_RADIUS = 5  # of a marker, likewise


def place_labels(
    panel: axes.Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[tuple[int, str, str | tuple[float, ...]]],
) -> None:
    """Writes labels greedily, each at the nearest free place around its point.

    Args:
      panel: axes whose limits, layout and lines (error bars among them) are final.
      points: data coordinates of every marker.
      labels: (index of the point, text, colour).
    """
    renderer = panel.figure.canvas.get_renderer()
    scale = panel.figure.dpi / 72
    taken = [_square(x, y, _RADIUS * scale) for x, y in panel.transData.transform(points)]
    taken += [_square(x, y, scale) for x, y in _along_lines(panel, 2 * scale)]
    frame = panel.get_window_extent(renderer)
    for index, name, colour in labels:
        best = None
        for distance in _DISTANCES:
            for horizontal, vertical in _PLACES:
                note = panel.annotate(
                    name,
                    points[index],
                    xytext=(distance * horizontal, distance * vertical),
                    textcoords="offset points",
                    ha=("center", "left", "right")[horizontal],
                    va=("center", "bottom", "top")[vertical],
                    color=colour,
                    fontsize=9,
                    annotation_clip=False,
                )
                box = note.get_window_extent(renderer)
                cost = _overlap(box, taken) + box.width * box.height - _common(box, frame)
                if best is None or cost < best[0]:
                    if best:
                        best[1].remove()
                    best = cost, note, box, distance
                else:
                    note.remove()
            if best[0] < 1:
                break
        _, note, box, distance = best
        if distance > _DISTANCES[0]:  # far away, a label could be another point's
            start = _nearest(box, panel.transData.transform(points[index]))
            panel.annotate(
                "",
                points[index],
                xytext=panel.transData.inverted().transform(start),  # pixels are the renderer's
                arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkB": 3},
                annotation_clip=False,
            )
        taken.append(box)


def _nearest(box: transforms.Bbox, point: tuple[float, float]) -> tuple[float, float]:
    """The place of a box that is nearest to a point."""
    return tuple(np.clip(point, box.min, box.max))


def _along_lines(panel: axes.Axes, spacing: float) -> Iterator[tuple[float, float]]:
    """Pixels at most `spacing` apart on everything drawn as a line."""
    paths = [line.get_transform().transform(line.get_xydata()) for line in panel.lines]
    for collection in panel.collections:
        transform = collection.get_transform()
        paths += [transform.transform(path.vertices) for path in collection.get_paths()]
    for path in paths:
        for start, end in itertools.pairwise(path):
            count = int(np.hypot(*(end - start)) / spacing) + 2
            yield from np.linspace(start, end, count)


def _square(x: float, y: float, radius: float) -> transforms.Bbox:
    return transforms.Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def _overlap(box: transforms.Bbox, others: Sequence[transforms.Bbox]) -> float:
    return sum(_common(box, other) for other in others)


def _common(a: transforms.Bbox, b: transforms.Bbox) -> float:
    """The area that two boxes share, in square pixels."""
    both = transforms.Bbox.intersection(a, b)
    return 0.0 if both is None else both.width * both.height
