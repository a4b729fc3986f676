"""Fits the complexity class (O(T), O(T log T), O(T √T), O(T²)) to FLOP counts.

Counts, unlike times, are the same on every machine.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

# Powers of 4, so that blocks of √T tokens are whole.
LENGTHS = tuple(4**exponent for exponent in range(5, 9))

# Leading terms, beside log T and T, which every count may have.
_LEADING: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "T log T": lambda T: T * np.log2(T),
    "T √T": lambda T: T**1.5,
    "T²": lambda T: T**2,
}
# Constant terms, and chunks cut short at the start, are 3e-4 of a count at most (Titans). A leading
# term is 6e-3 at least (the FFTs of Orchid).
_ROUNDING = 1e-3


def of_sequence(counts: Sequence[float], lengths: Sequence[int] = LENGTHS) -> str:
    """The complexity class of a whole sequence: "T", "T log T", "T √T" or "T²".

    A least-squares fit, a log T + b T + c φ(T), relative to the counts, for each φ. Near a length
    of 10⁴ the exponents of T and T log T differ by less than 0.1; the residuals of the fits
    differ by a factor of ten and more.
    """
    T, counts = np.asarray(lengths, np.float64), np.asarray(counts, np.float64)
    common = [np.log2(T), T]
    if _misfit(common, counts) < _ROUNDING:
        return "T"
    return min(_LEADING, key=lambda name: _misfit([*common, _LEADING[name](T)], counts))


def of_token(counts: Sequence[float], lengths: Sequence[int] = LENGTHS) -> str:
    """The class of one token's cost, or state, after T others: "1", "log T", "√T" or "T"."""
    whole = np.multiply(counts, lengths, dtype=np.float64)  # as if every token cost as much
    found = {"T": "1", "T log T": "log T", "T √T": "√T", "T²": "T"}
    return found[of_sequence(whole, lengths)]


def _misfit(terms: Sequence[np.ndarray], counts: np.ndarray) -> float:
    """Largest relative deviation of the best sum of the terms."""
    matrix = np.stack(terms, axis=1) / counts[:, None]
    scale = np.abs(matrix).max(axis=0)
    weights = np.linalg.lstsq(matrix / scale, np.ones_like(counts))[0]
    return float(np.abs(matrix / scale @ weights - 1).max())
