"""Smooth random curves in the plane: of a given arc length, free or between two given ends, that
bend gently and keep away from themselves and each other.

A curve is drawn by its heading. With u = s / length, the share of the way travelled,

    θ(u) = θ₀ + turn · u + Σ_k c_k sin(kπu),   (x, y)(u) = (x, y)₀ + length · ∫ (cos θ, sin θ) du,

so that its length is right whatever the coefficients, its directions at both ends are θ₀ and
θ₀ + turn, and c_1 and c_2 can be solved for to make it arrive at a given place. A short curve is a
part of a long one, and so bends alike.

Everything is in float64: what is kept depends on comparisons, and in float32 the last bits, which
differ between processors, would now and then decide one. Lengths are in pixels, angles in radians.
Letters: N curves, P points along each (at equal steps of arc length).
"""

import dataclasses

import numpy as np

_WAVES = np.arange(1, 6)  # k: half waves of the heading
_NEWTON_STEPS = 8
_ARRIVED = 1e-3  # pixels; Newton's method either is far below that by now or has not converged


@dataclasses.dataclass(frozen=True)
class Kind:
    """Properties that all curves of one kind share.

    Attributes:
      length: from end to end.
      points: P.
      size: of the square [0, size]² that they are in.
      border: least distance from its sides.
      margin: least distance between parts of a curve that are not neighbours.
      radius: least radius of curvature.
      whole: length of the curves of which these are parts; `length`, if they are whole.
    """

    length: float
    points: int
    size: int
    border: float
    margin: float
    radius: float
    whole: float

    @property
    def step(self) -> float:
        """Arc length between two points."""
        return self.length / (self.points - 1)


def ends(curves: np.ndarray) -> np.ndarray:
    """Both ends of curves [N, P, 2], as (x, y, the direction in which the curve leaves it):
    [N, 2, 3]."""
    steps = curves[:, [1, -2]] - curves[:, [0, -1]]
    directions = np.arctan2(steps[..., 1], steps[..., 0])
    return np.concatenate([curves[:, [0, -1]], directions[..., None]], -1)


def free(rng: np.random.Generator, kind: Kind, count: int) -> np.ndarray:
    """Curves anywhere in the square: those out of `count` drawn that are as they should be,
    [N, P, 2]."""
    u, phase = _basis(kind)
    begin = rng.random((count, 1)) * (1 - kind.length / kind.whole) * np.pi * _WAVES
    coefficients = _coefficients(rng, count)
    heading = rng.uniform(0, 2 * np.pi, (count, 1)) + rng.normal(0, np.pi / 2, (count, 1)) * u
    heading += (coefficients * np.cos(begin)) @ np.sin(phase)  # sin (begin + phase)
    heading += (coefficients * np.sin(begin)) @ np.cos(phase)
    place = rng.random((count, 2))
    fine = _gentle(kind, heading)
    curves, place = _travelled(kind, heading[fine]), place[fine]
    low, high = curves.min(1), curves.max(1)
    room = kind.size - 2 * kind.border - (high - low)
    curves += (kind.border - low + place * room)[:, None]
    curves = curves[(room > 0).all(1)]
    return curves[_open(kind, curves)]


def bridges(
    rng: np.random.Generator, kind: Kind, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One attempt each at a curve that leaves `start` in its direction and, run backwards, `end`.

    Args:
      rng: of coefficients c_3 … and of the number of whole turns; c_1 and c_2 start at random, too,
        so that another attempt can find another solution.
      kind: of the curves.
      start: [N, (x, y, direction)].
      end: likewise.

    Returns:
      The curves of the attempts that succeeded [fewer, P, 2], and which those are, rising [fewer].
    """
    u, phase = _basis(kind)
    sines = np.sin(phase)
    turn = np.mod(end[:, 2] - start[:, 2], 2 * np.pi) - np.pi  # the curve arrives facing the end
    turn += 2 * np.pi * rng.integers(-1, 2, len(start))
    coefficients = _coefficients(rng, len(start))
    others = start[:, 2:] + turn[:, None] * u + coefficients[:, 2:] @ sines[2:]
    solved, slopes = coefficients[:, :2], kind.step * sines[:2].T
    wanted = (end - start)[:, :2] / kind.step
    for _ in range(_NEWTON_STEPS):
        heading = others + solved @ sines[:2]
        cos, sin = np.cos(heading), np.sin(heading)
        missing = kind.step * (wanted - np.stack([cos.sum(1), sin.sum(1)], -1))
        (x1, x2), (y1, y2) = -(sin @ slopes).T, (cos @ slopes).T  # ∂(x, y) / ∂(c_1, c_2)
        determinant = x1 * y2 - x2 * y1
        determinant = np.where(np.abs(determinant) < 1e-3, 1e-3, determinant)
        dx, dy = missing.T
        change = np.stack([y2 * dx - x2 * dy, x1 * dy - y1 * dx], -1) / determinant[:, None]
        solved = solved + np.clip(change, -1, 1)
    heading = others + solved @ sines[:2]
    chosen = np.flatnonzero(_gentle(kind, heading))
    curves = _travelled(kind, heading[chosen]) + start[chosen, None, :2]
    fine = np.hypot(*(curves[:, -1] - end[chosen, :2]).T) < _ARRIVED
    inside = (curves > kind.border) & (curves < kind.size - kind.border)
    fine &= inside.all((1, 2))
    curves, chosen = curves[fine], chosen[fine]
    fine = _open(kind, curves)
    return curves[fine], chosen[fine]


def apart(a: np.ndarray, b: np.ndarray, distance: float) -> np.ndarray:
    """True where all points a [..., P, 2] are at least `distance` from all of b [..., Q, 2]."""
    squared = (a[..., :, None, 0] - b[..., None, :, 0]) ** 2
    squared += (a[..., :, None, 1] - b[..., None, :, 1]) ** 2
    return squared.min((-2, -1)) >= distance**2


def _basis(kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """u between neighbouring points [P − 1], and kπu [modes, P − 1]."""
    u = (np.arange(kind.points - 1) + 0.5) * kind.step / kind.whole
    return u, np.pi * _WAVES[:, None] * u


def _coefficients(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(size=(count, len(_WAVES))) / _WAVES


def _travelled(kind: Kind, heading: np.ndarray) -> np.ndarray:
    """The points on the way from (0, 0) with headings [N, P − 1]."""
    curves = np.zeros((len(heading), kind.points, 2))
    np.cumsum(kind.step * np.cos(heading), 1, out=curves[:, 1:, 0])
    np.cumsum(kind.step * np.sin(heading), 1, out=curves[:, 1:, 1])
    return curves


def _gentle(kind: Kind, heading: np.ndarray) -> np.ndarray:
    """Returns True where the curvature, dθ / ds, is nowhere above 1 / radius."""
    return np.abs(np.diff(heading, axis=1)).max(1) <= kind.step / kind.radius


def _open(kind: Kind, curves: np.ndarray) -> np.ndarray:
    """Returns True where a curve does not come near itself.

    Along a half circle of the least radius r two points are πr apart on the curve and 2r in space:
    what is nearer than that along the curve, for the larger of r and margin, is a neighbour.
    """
    fine = np.ones(len(curves), bool)
    neighbours = int(np.ceil(np.pi * max(kind.margin, kind.radius) / kind.step))
    for lag in range(neighbours, kind.points):
        x, y = np.moveaxis(curves[:, lag:] - curves[:, :-lag], -1, 0)
        fine &= (x * x + y * y).min(1) >= kind.margin**2
    return fine
