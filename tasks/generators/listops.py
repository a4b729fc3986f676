"""ListOps expressions (Nangia & Bowman 2018, arXiv 1804.06028) as long as the Long Range Arena has
them (Tay et al. 2020, arXiv 2011.04006).

    [MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]   →   5

An expression is a tree. Trees are drawn a level at a time, many at once: the k-th level of all of
them is one row of arrays, in which the children of a node are neighbours.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from tasks.options import bounds, number, whole

_OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")  # the last is the sum modulo 10
_END = "]"
TOKENS = (*"0123456789", *_OPERATORS, _END)  # a token's id is its place here
NUM_CLASSES = 10

_MIN, _MAX, _MED, _SM = (TOKENS.index(name) for name in _OPERATORS)
_END = TOKENS.index(_END)
_FOREST = 20_000  # trees drawn at once; most are too short


@dataclasses.dataclass(frozen=True)
class Grammar:
    """Growth of random trees; the values are those of the Long Range Arena.

    Attributes:
      max_depth: levels; on the last there are only digits.
      max_arguments: an operator has 2 … max_arguments, uniformly.
      operator_share: the probability that a node above the last level is an operator.
      length: fewest and most tokens of an expression, brackets and operators being tokens; others
        are thrown away.
    """

    max_depth: int = 10
    max_arguments: int = 10
    operator_share: float = 0.25
    length: tuple[int, int] = (501, 1999)

    def __post_init__(self):
        object.__setattr__(self, "length", bounds("length", self.length))
        whole("max_depth", self.max_depth)
        whole("max_arguments", self.max_arguments, 2)
        if not 0 < number("operator_share", self.operator_share) <= 1:
            raise ValueError(
                f"operator_share={self.operator_share}: expected a probability above zero"
            )

    def expressions(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, int]]:
        """Random expressions without end: (token ids [length] uint8, value 0 … 9).

        Raises:
          ValueError: in two million trees there is none of this length.
        """
        in_vain = 0
        while in_vain < 100:
            levels, lengths = self._grow(rng)
            in_vain = 0 if len(lengths) else in_vain + 1
            yield from _written(levels, lengths)
        raise ValueError(
            f"length={self.length}: none of {in_vain * _FOREST:,} trees with max_depth="
            f"{self.max_depth}, max_arguments={self.max_arguments} has it: allow for more lengths"
        )

    def _grow(self, rng: np.random.Generator) -> tuple[list["_Level"], np.ndarray]:
        """The levels of those of _FOREST random trees that are of the right length."""
        low, high = self.length
        tree, parent = np.arange(_FOREST), np.zeros(_FOREST, np.int64)
        lengths, levels = np.zeros(_FOREST, np.int64), []
        for depth in range(1, self.max_depth + 1):
            count = len(tree)
            is_operator = rng.random(count) < self.operator_share
            is_operator &= depth < self.max_depth
            digits = rng.integers(NUM_CLASSES, size=count)
            operators = rng.integers(_MIN, _SM + 1, size=count)
            arguments = rng.integers(2, self.max_arguments + 1, size=count) * is_operator
            levels.append(_Level(tree, parent, np.where(is_operator, operators, digits), arguments))
            lengths += np.bincount(tree, 1 + is_operator, _FOREST).astype(np.int64)
            # What is too long already need not grow on.
            arguments = np.where(lengths[tree] > high, 0, arguments)
            tree, parent = np.repeat(tree, arguments), np.repeat(np.arange(count), arguments)
        chosen = (low <= lengths) & (lengths <= high)
        number = np.cumsum(chosen) - 1
        kept, place = [], np.zeros(_FOREST, np.int64)
        for level in levels:
            mine = chosen[level.tree]
            kept.append(
                _Level(
                    number[level.tree[mine]],
                    place[level.parent[mine]],
                    level.token[mine],
                    level.arguments[mine],
                )
            )
            place = np.cumsum(mine) - 1
        return kept, lengths[chosen]


@dataclasses.dataclass(frozen=True)
class _Level:
    """The nodes of one depth, tree by tree, and the children of a node side by side; each [nodes].

    Attributes:
      tree: which tree; never falls.
      parent: place in the level above; never falls.
      token: the digit or the operator.
      arguments: how many; 0 for a digit.
    """

    tree: np.ndarray
    parent: np.ndarray
    token: np.ndarray
    arguments: np.ndarray


def _written(levels: list[_Level], lengths: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """The trees as token ids, each with its value."""
    if not len(lengths):
        return
    values, sizes = _summed_up(levels)
    ends = np.cumsum(lengths)
    flat = np.empty(lengths.sum(), np.uint8)
    start = (ends - lengths)[levels[0].tree]
    for depth, level in enumerate(levels):
        if depth:
            above = levels[depth - 1]
            # After its parent's operator and what stands between that and it.
            before = np.cumsum(sizes[depth]) - sizes[depth]
            first = np.cumsum(above.arguments) - above.arguments
            start = start[level.parent] + 1 + before - before[first[level.parent]]
        flat[start] = level.token
        is_operator = level.arguments > 0
        flat[(start + sizes[depth] - 1)[is_operator]] = _END
    for tree, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        yield flat[end - length : end], int(values[tree])


def _summed_up(levels: list[_Level]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The values of the roots, and per level the tokens of each node's subtree."""
    values, sizes = np.zeros(0, np.int64), []
    for depth, level in reversed(list(enumerate(levels))):
        mine, size = level.token.copy(), np.ones(len(level.token), np.int64)
        is_operator = level.arguments > 0
        if is_operator.any():
            below, arguments = levels[depth + 1], level.arguments[is_operator]
            first = np.cumsum(arguments) - arguments
            mine[is_operator] = _applied(
                level.token[is_operator], values, below.parent, first, arguments
            )
            size[is_operator] = 2 + np.add.reduceat(sizes[0], first)
        values = mine
        sizes.insert(0, size)
    return values, sizes


def _applied(
    operator: np.ndarray,
    values: np.ndarray,
    parent: np.ndarray,
    first: np.ndarray,
    arguments: np.ndarray,
) -> np.ndarray:
    """Each operator on its run of `arguments` values from `first` on."""
    # In order within each run, for the parents rise.
    ordered = np.sort(parent * NUM_CLASSES + values) % NUM_CLASSES
    middle = ordered[first + (arguments - 1) // 2] + ordered[first + arguments // 2]
    choices = {
        _MIN: ordered[first],
        _MAX: ordered[first + arguments - 1],
        _MED: middle // 2,  # of an even number the mean of the two in the middle, rounded down
        _SM: np.add.reduceat(values, first) % NUM_CLASSES,
    }
    return np.select([operator == name for name in choices], list(choices.values()))
