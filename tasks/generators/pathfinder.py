"""Pathfinder (Linsley et al. 2018, arXiv 1805.08315) as in the Long Range Arena (Tay et al. 2020,
arXiv 2011.04006): two long dashed curves among short ones, two dots, and the question whether one
curve joins them.

What is around the dots must not give the answer away, so scenes come in twins. Four ends are drawn,
each a place and a direction; ends 0 and 1 have dots. In one twin curves join ends 0–1 and 2–3, in
the other 0–2 and 1–3; all four curves are drawn by the same rule and are of one length, and ends
for which not both twins can be drawn are thrown away. Ends 1 and 2 have changed places with
probability a half, and a coin decides which twin is seen. Hence, exactly:

- given the four ends, the dots among them, either answer has probability a half;
- given the two curves and the distractors without the dots, too.

Only one of the twins becomes an image: no image of a test set has its twin in the training set.

Lengths are in pixels, (0, 0) is a corner of the image. Letters: M scenes, P points along a curve,
D distractors, Q points along each.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from tasks.generators import clutter, curves, strokes
from tasks.options import number, whole

RELEASED_SIZES = (32, 64, 128, 256)  # of the Long Range Arena's own images
_PAIRINGS = np.array([[[0, 1], [2, 3]], [[0, 2], [1, 3]]])  # the ends joined, in either twin
_PROPOSALS = 1500  # curves drawn at once to propose ends
_PARTNERS = 8  # that each of them is tried with
_ATTEMPTS = 24  # at each curve between two ends
_IN_VAIN = 30  # batches without an image before giving up


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """Parameters of an image; the values are those for 32 × 32.

    Linsley et al. draw at 300 × 300: dashes of 5 with gaps of 3, 2 thick, dots of radius 5; curves
    of 6, 9 or 14 dashes (the release calls them `curv_baseline` and `curv_contour_length_9` and
    `_14`; the Long Range Arena trains on 14) and 15 distractors of a third as many. The smaller the
    image, the larger all this must be in comparison to be seen.

    Attributes:
      size: width and height.
      contour_length: dashes of each of the two long curves.
      dash, gap: length of a dash and of the gap after it.
      thickness: of a dash.
      dot_radius: of the dots.
      distractors: short curves.
      distractor_length: dashes of each.
      margin: least distance between two curves, from the middle of one to the middle of the other;
        must leave more room between curves than there is between the dashes of one.
      ends_apart: least distance between two ends of the long curves, in margins.
      radius: least radius of curvature.
    """

    size: int = 32
    contour_length: int = 14
    dash: float = 1.3
    gap: float = 0.9
    thickness: float = 0.8
    dot_radius: float = 1.2
    distractors: int = 4
    distractor_length: int = 4
    margin: float = 2.6
    ends_apart: float = 2.0
    radius: float = 2.0

    def __post_init__(self):
        for name in ("size", "contour_length", "distractor_length"):
            whole(name, getattr(self, name))
        whole("distractors", self.distractors, 0)
        for name in ("dash", "gap", "thickness", "dot_radius", "margin", "ends_apart", "radius"):
            if number(name, getattr(self, name)) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 0")
        if self.radius <= 0:
            raise ValueError(f"radius={self.radius}: expected a radius above 0")
        if not 0 < self.thickness <= self.dash:
            raise ValueError(
                f"thickness={self.thickness}, dash={self.dash}: expected a dash that is at least "
                "as long as it is thick"
            )
        if not self.gap < self.margin - self.thickness:
            raise ValueError(
                f"gap={self.gap}, margin={self.margin}, thickness={self.thickness}: expected a gap "
                "between dashes below margin - thickness, the one between curves; otherwise "
                "nobody can tell which dashes belong together"
            )
        if self.dot_radius + self.thickness / 2 >= self.margin:
            raise ValueError(
                f"dot_radius={self.dot_radius}, margin={self.margin}, thickness={self.thickness}: "
                "expected dot_radius + thickness / 2 below margin; otherwise a dot covers what is "
                "not its curve's"
            )
        if self.ends_apart < 1 or self.ends_apart * self.margin <= 2 * self.dot_radius:
            raise ValueError(
                f"ends_apart={self.ends_apart}, margin={self.margin}, dot_radius="
                f"{self.dot_radius}: expected ends_apart of at least 1, and ends_apart * margin "
                "above 2 * dot_radius; otherwise dots overlap"
            )

    def examples(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, int]]:
        """Images without end: (grey values [size, size] uint8, 1 if a curve joins the dots or 0).

        Raises:
          ValueError: a long time has passed without one; the curves hardly fit the image.
        """
        in_vain = 0
        while in_vain < _IN_VAIN:
            *shapes, joined = scenes(rng, self)
            in_vain = 0 if len(joined) else in_vain + 1
            yield from zip(drawn(self, *shapes), joined.astype(int).tolist(), strict=True)
        raise ValueError(
            f"contour_length={self.contour_length}, distractors={self.distractors}, size="
            f"{self.size}: in {_IN_VAIN} times {_PROPOSALS:,} tries nothing fitted the image; take "
            "shorter curves, fewer distractors, a smaller margin or a larger image"
        )

    def kind(self, dashes: int) -> curves.Kind:
        """Curves of so many dashes, of which the first begins them and the last ends them."""
        return curves.Kind(
            length=self.length(dashes),
            points=max(2 * dashes, 4),
            size=self.size,
            border=self.dot_radius + 0.5,  # a dot and its soft edge are seen whole
            margin=self.margin,
            radius=self.radius,
            whole=max(self.length(dashes), self.length(self.contour_length)),
        )

    def length(self, dashes: int) -> float:
        """Of a curve of so many dashes, with the gaps between them."""
        return dashes * (self.dash + self.gap) - self.gap


def scenes(
    rng: np.random.Generator, difficulty: Difficulty
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Some number of scenes, each one of a pair of twins.

    Returns:
      dots [M, 2, (x, y)], contours [M, 2, P, 2], distractors [M, D, Q, 2], and whether one contour
      joins the dots [M].
    """
    ends = _proposed(rng, difficulty)
    swapped = rng.random(len(ends)) < 0.5
    ends = np.where(swapped[:, None, None], ends[:, [0, 2, 1, 3]], ends)
    contours, fine = _contours(rng, difficulty, ends)
    ends, contours = ends[fine], contours[fine]
    points = contours.shape[3]
    distractors, fine = clutter.strewn(
        rng,
        difficulty.kind(difficulty.distractor_length),
        difficulty.distractors,
        contours.reshape(2 * len(ends), 2 * points, 2),
    )
    distractors = distractors.reshape(len(ends), 2, *distractors.shape[1:])
    # Scenes that are too full for one twin's distractors are not kept for the other's sake: that
    # would make what is kept depend on the answer.
    row = np.flatnonzero(fine.reshape(len(ends), 2).all(1))
    joined = rng.random(len(row)) < 0.5
    twin = np.where(joined, 0, 1)
    return ends[row, :2, :2], contours[row, twin], distractors[row, twin], joined


def drawn(
    difficulty: Difficulty, dots: np.ndarray, contours: np.ndarray, distractors: np.ndarray
) -> np.ndarray:
    """Images [M, size, size] uint8 of dots [M, 2, 2], contours [M, 2, P, 2] and distractors
    [M, D, Q, 2]."""
    pen = difficulty.dash, difficulty.gap, difficulty.thickness
    long = strokes.dashed(contours, difficulty.contour_length, *pen)
    short = strokes.dashed(distractors, difficulty.distractor_length, *pen)
    dashes = np.concatenate(
        [a.reshape(len(dots), a.shape[1] * a.shape[2], 2, 2) for a in (long, short)], 1
    )
    return strokes.drawn(
        difficulty.size,
        [
            (dashes, difficulty.thickness),
            (np.stack([dots, dots], -2), 2 * difficulty.dot_radius),
        ],
    )


def _proposed(rng: np.random.Generator, difficulty: Difficulty) -> np.ndarray:
    """Sets of four ends [M, 4, 3] that might do: those of two curves, clear of each other."""
    kind = difficulty.kind(difficulty.contour_length)
    some = curves.free(rng, kind, _PROPOSALS)
    first, second = np.split(some[: len(some) // 2 * 2], 2)
    found = [np.zeros((0, 4, 3))]
    for _ in range(_PARTNERS):
        ends = np.concatenate([curves.ends(first), curves.ends(second)], 1)
        fine = np.flatnonzero(_reachable(difficulty, ends))
        fine = fine[curves.apart(first[fine], second[fine], difficulty.margin)]
        found.append(ends[fine])
        # Each is used once: no two scenes share an end.
        first = np.delete(first, fine, 0)
        second = np.roll(np.delete(second, fine, 0), 1, 0)
    return np.concatenate(found)


def _reachable(difficulty: Difficulty, ends: np.ndarray) -> np.ndarray:
    """Returns True where the ends [M, 4, 3] are well apart, but not too far for a curve."""
    x, y = np.moveaxis(ends[:, :, None, :2] - ends[:, None, :, :2], -1, 0)
    distance = np.hypot(x, y)
    joined = distance[:, _PAIRINGS[..., 0], _PAIRINGS[..., 1]]
    distance[:, range(4), range(4)] = np.inf
    fine = (distance > difficulty.ends_apart * difficulty.margin).all((1, 2))
    return fine & (joined < difficulty.length(difficulty.contour_length)).all((1, 2))


def _contours(
    rng: np.random.Generator, difficulty: Difficulty, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both twins' curves [M, twin, 2, P, 2] between ends [M, 4, 3], and where they were found [M].

    Nothing here tells one twin from the other: each has the same number of attempts.
    """
    kind = difficulty.kind(difficulty.contour_length)
    found = np.zeros((len(ends), 2, 2, kind.points, 2))
    scene = np.arange(len(ends))
    for twin, pairing in enumerate(_PAIRINGS):
        made, which = [], []
        for pair in pairing:
            # What has failed already is not tried further.
            wanted = np.repeat(ends[scene[:, None], pair], _ATTEMPTS, 0)
            some, attempt = curves.bridges(rng, kind, wanted[:, 0], wanted[:, 1])
            made.append(some)
            which.append(scene[attempt // _ATTEMPTS])
            scene = np.unique(which[-1])
        one, other = _combined(*which)
        clear = curves.apart(made[0][one], made[1][other], difficulty.margin)
        one, other = one[clear], other[clear]
        scene, first = np.unique(which[0][one], return_index=True)
        found[scene, twin, 0] = made[0][one[first]]
        found[scene, twin, 1] = made[1][other[first]]
    fine = np.zeros(len(ends), bool)
    fine[scene] = True
    return found, fine


def _combined(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All (i, j) with a[i] = b[j], for a and b that never fall; i never falls."""
    first = np.searchsorted(b, a, "left")
    count = np.searchsorted(b, a, "right") - first
    i = np.repeat(np.arange(len(a)), count)
    return i, np.arange(len(i)) - (np.cumsum(count) - count - first)[i]


PATHFINDER = Difficulty()
PATH_X = Difficulty(
    size=128,
    dash=4.0,
    gap=2.0,
    thickness=1.3,
    dot_radius=3.0,
    distractors=15,
    distractor_length=5,
    margin=6.0,
    radius=5.0,
)
