"""Dashed lines drawn on many small grey images at once.

A stroke is what a round pen leaves along a segment. A pixel is as bright as it is covered, to first
order: 1 well inside, 0 outside, and falling linearly over the one pixel in between.
Lengths are in pixels, (0, 0) is a corner. Letters: M images, S strokes on each, P points.
"""

from collections.abc import Iterable

import numpy as np


def dashed(curves: np.ndarray, count: int, dash: float, gap: float, thickness: float) -> np.ndarray:
    """The segments that the middle of a pen follows to draw `count` dashes along each curve.

    Args:
      curves: [..., P, 2], at equal steps of their length, which is that of the dashes and the gaps.
      count: of dashes.
      dash: length of each as it is seen, that is, with the pen's round ends.
      gap: between two.
      thickness: of the pen.

    Returns:
      [..., count, (from, to), (x, y)].
    """
    begin = (dash + gap) * np.arange(count)
    along = np.stack([begin + thickness / 2, begin + dash - thickness / 2], -1)
    steps = curves.shape[-2] - 1
    at = along / (count * (dash + gap) - gap) * steps
    before = np.minimum(at.astype(int), steps - 1)
    share = (at - before)[..., None]
    return (1 - share) * curves[..., before, :] + share * curves[..., before + 1, :]


def drawn(size: int, layers: Iterable[tuple[np.ndarray, float]]) -> np.ndarray:
    """Images [M, size, size] uint8 of strokes; where two meet, the brighter counts.

    layers: segments [M, S, (from, to), (x, y)] within the image, and the thickness of the pen; a
      segment without length is a disc.
    """
    layers = list(layers)
    reach = max(_reach(segments, thickness) for segments, thickness in layers)
    # A border keeps every stroke's window on the canvas.
    side = size + 2 * reach
    canvas = np.zeros((len(layers[0][0]), side * side))
    for segments, thickness in layers:
        _draw(canvas, side, reach, segments, thickness)
    inner = canvas.reshape(-1, side, side)[:, reach : reach + size, reach : reach + size]
    return np.rint(255 * inner).astype(np.uint8)


def _reach(segments: np.ndarray, thickness: float) -> int:
    """Largest distance from the pixel of its middle at which a stroke is seen, in pixels."""
    longest = np.hypot(*np.moveaxis(segments[..., 1, :] - segments[..., 0, :], -1, 0)).max(
        initial=0
    )
    return int(np.ceil((longest + thickness) / 2 + 1))


def _draw(
    canvas: np.ndarray, side: int, border: int, segments: np.ndarray, thickness: float
) -> None:
    reach = _reach(segments, thickness)
    offsets = np.arange(-reach, reach + 1)
    down, right = (o.ravel() for o in np.meshgrid(offsets, offsets, indexing="ij"))
    row = np.arange(len(canvas))[:, None]
    for start, end in np.moveaxis(segments, (1, 2), (0, 1)):  # of one stroke on every image
        along = end - start
        middle = np.floor((start + end) / 2)
        # From the start to the centres of the pixels around the middle.
        x = middle[:, :1] + right + 0.5 - start[:, :1]
        y = middle[:, 1:] + down + 0.5 - start[:, 1:]
        squared = (along**2).sum(-1)[:, None]
        share = (x * along[:, :1] + y * along[:, 1:]) / np.where(squared > 0, squared, 1)
        share = np.clip(share, 0, 1)
        distance = np.hypot(x - share * along[:, :1], y - share * along[:, 1:])
        covered = np.clip(thickness / 2 + 0.5 - distance, 0, 1)
        pixel = (middle[:, 1:].astype(int) + down + border) * side
        pixel += middle[:, :1].astype(int) + right + border
        canvas[row, pixel] = np.maximum(canvas[row, pixel], covered)
