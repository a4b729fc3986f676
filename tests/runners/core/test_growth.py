"""Complexity classes fitted to counts."""

import numpy as np
import pytest

from runners.core import growth

T = np.array(growth.LENGTHS, np.float64)
PARTS = {"T": T, "T log T": T * np.log2(T), "T √T": T**1.5, "T²": T**2}


# Of 16,384 operations a token and more, those that grow are at least an FFT's.
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("share", [20, 2000])
def test_the_leading_term_is_found(name, share):
    counts = 1e5 * np.log2(T) + 16384 * T + share * PARTS[name]
    assert growth.of_sequence(counts) == name


def test_a_constant_is_no_growth():
    assert growth.of_sequence(1e6 + 1e6 * T) == "T"


@pytest.mark.parametrize(
    ("counts", "name"),
    [(7 + 0 * T, "1"), (7 + 3 * T, "T"), (7 + 3 * np.sqrt(T), "√T"), (7 + np.log2(T), "log T")],
)
def test_of_one_token(counts, name):
    assert growth.of_token(counts) == name
