"""How what a program costs grows with the length of its input, found from its own operations.

Counted, not timed: the same on every machine.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

# Powers of 4: blocks of √T tokens are whole, and what has them grows evenly.
LENGTHS = tuple(4**exponent for exponent in range(5, 9))

# What may lead, beside the terms log T and T that every count may have.
_LEADING: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "T log T": lambda T: T * np.log2(T),
    "T √T": lambda T: T**1.5,
    "T²": lambda T: T**2,
}
# What does not grow, and chunks that the start cuts short, are 3e-4 of the whole at most (Titans),
# while FFTs, the smallest share that a leading term has, are 6e-3 of Orchid's operations.
_ROUNDING = 1e-3


def of_sequence(counts: Sequence[float], lengths: Sequence[int] = LENGTHS) -> str:
    """The growth of the cost of a whole sequence: "T", "T log T", "T √T" or "T²".

    A least-squares fit, a log T + b T + c φ(T), relative to the counts, for each φ. Near a length
    of 10⁴ the exponents of T and T log T differ by less than 0.1; the remainders of the fits
    differ by a factor of ten and more.
    """
    T, counts = np.asarray(lengths, np.float64), np.asarray(counts, np.float64)
    common = [np.log2(T), T]
    if _misfit(common, counts) < _ROUNDING:
        return "T"
    return min(_LEADING, key=lambda name: _misfit([*common, _LEADING[name](T)], counts))


def of_token(counts: Sequence[float], lengths: Sequence[int] = LENGTHS) -> str:
    """The growth of what one token costs, or keeps, after T others: "1", "log T", "√T" or "T"."""
    whole = np.multiply(counts, lengths, dtype=np.float64)  # as if every token cost as much
    found = {"T": "1", "T log T": "log T", "T √T": "√T", "T²": "T"}
    return found[of_sequence(whole, lengths)]


def _misfit(terms: Sequence[np.ndarray], counts: np.ndarray) -> float:
    """Largest relative deviation of the best sum of the terms."""
    matrix = np.stack(terms, axis=1) / counts[:, None]
    scale = np.abs(matrix).max(axis=0)
    weights = np.linalg.lstsq(matrix / scale, np.ones_like(counts))[0]
    return float(np.abs(matrix / scale @ weights - 1).max())
