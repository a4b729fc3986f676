"""Checks of a task's options: each returns the value, or says what was expected."""

import numbers
import sys
from typing import Any


def whole(name: str, value: Any, low: int = 1) -> int:
    """An integer of at least `low`; raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
        raise ValueError(f"{name}={value!r}: expected an integer of at least {low}")
    return int(value)


def number(name: str, value: Any) -> float:
    """A finite number; raises ValueError for anything else."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    # In double precision: an integer may be beyond it.
    if not (real and abs(value) <= sys.float_info.max):
        raise ValueError(f"{name}={value!r}: expected a finite number")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """True or False; raises ValueError for anything else."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: expected True or False")
    return value


def bounds(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """The fewest and the most of something, least ≤ fewest ≤ most; raises ValueError otherwise."""
    try:
        low, high = value
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r}: expected two integers, fewest and most") from None
    low, high = whole(name, low, least), whole(name, high, least)
    if low > high:
        raise ValueError(f"{name}=({low}, {high}): expected the fewest before the most")
    return low, high
