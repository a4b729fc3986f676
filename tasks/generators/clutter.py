"""Short curves strewn where there is room: Pathfinder's distractors.

Room is kept as a grid per scene, whose cells are a sixth of the margin wide. A cell is taken if
its middle is within margin + half a cell's diagonal of something, so that whatever lies in a free
cell is at least the margin away.
Letters: M scenes, D curves in each, Q points along a curve.
"""

import numpy as np

from tasks.generators import curves

_CELLS = 6  # to a margin
_ROUNDS, _CANDIDATES = 4, 24  # places tried for each curve: so many at once, so many times


def strewn(
    rng: np.random.Generator, kind: curves.Kind, count: int, taken: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Free curves, `count` in each scene, clear of what is there and of each other.

    Args:
      rng: of the curves.
      kind: of the curves; its margin is what they keep from everything else.
      count: D.
      taken: [M, points, 2], what is there.

    Returns:
      Curves [M, D, Q, 2], and where there was room for all of them [M].
    """
    room = _Room(kind, len(taken))
    room.take(np.arange(len(taken)), taken)
    placed = np.zeros((len(taken), count, kind.points, 2))
    fine = np.ones(len(taken), bool)
    for i in range(count):
        missing = fine.copy()
        for _ in range(_ROUNDS):
            scene = np.flatnonzero(missing)
            some = curves.free(rng, kind, _CANDIDATES * len(scene))
            share = len(some) // max(len(scene), 1)
            if not share:
                break
            some = some[: share * len(scene)].reshape(len(scene), share, kind.points, 2)
            clear = room.has(scene, some)
            done = clear.any(1)
            scene = scene[done]
            placed[scene, i] = some[done, clear[done].argmax(1)]
            room.take(scene, placed[scene, i])
            missing[scene] = False
        fine &= ~missing
    return placed, fine


class _Room:
    """Grid of the taken cells of M scenes."""

    def __init__(self, kind: curves.Kind, scenes: int):
        self._cell = kind.margin / _CELLS
        reach = _CELLS + 1
        offsets = np.arange(-reach, reach + 1)
        right, down = np.meshgrid(offsets, offsets)
        # A point is within half a diagonal of its cell's middle, like what is tested later.
        near = np.hypot(right, down) <= _CELLS + np.sqrt(2)
        self._border = reach
        self._side = int(np.ceil(kind.size / self._cell)) + 2 * reach
        self._near = (right + down * self._side)[near]
        self._taken = np.zeros((scenes, self._side**2), bool)

    def take(self, scene: np.ndarray, points: np.ndarray) -> None:
        """Around points [scenes, points, 2]."""
        cells = self._cells(points)[..., None] + self._near
        self._taken[scene[:, None, None], cells] = True

    def has(self, scene: np.ndarray, some: np.ndarray) -> np.ndarray:
        """Returns True for each of some curves [scenes, curves, Q, 2] that there is room for."""
        return ~self._taken[scene[:, None, None], self._cells(some)].any(-1)

    def _cells(self, points: np.ndarray) -> np.ndarray:
        x, y = np.moveaxis((points / self._cell).astype(np.int64) + self._border, -1, 0)
        return x + y * self._side
