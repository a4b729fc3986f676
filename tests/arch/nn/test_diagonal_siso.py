"""The sums and the initial spectra of the diagonal state space, in float64."""

import numpy as np
import pytest

from arch.nn.diagonal_siso import INITS, moments

B, D, N = 2, 8, 16


@pytest.mark.parametrize("length", [1, 2, 7, 64, 101])
def test_moments_equal_the_recurrence(length):
    rng = np.random.default_rng(0)
    u = rng.normal(size=(B, length, D))
    log_A = -rng.uniform(0.01, 0.5, (D, N)) + 1j * rng.normal(size=(D, N))
    h = np.zeros((B, D, N), complex)
    for t in range(length):
        h = np.exp(log_A) * h + u[:, t, :, None]
    actual = moments(u.astype(np.float32), log_A.astype(np.complex64))
    # The exponent's rounding times l, with |log Ā| < 4 but decay so fast that l < 100 matters.
    np.testing.assert_allclose(actual, h, atol=1e-4 * np.abs(h).max())


@pytest.mark.parametrize("init", sorted(INITS))
def test_initial_spectrum(init):
    """Against numbers worked out by hand for N = 4; LegS by the eigenvalues of the full matrix."""
    n = np.arange(4)
    legs = -0.5 * np.eye(4) - 0.5 * np.sqrt(np.outer(2 * n + 1, 2 * n + 1)) * np.sign(
        n[:, None] - n
    )
    expected = {
        "lin": [-0.5, -0.5 + 1j * np.pi],
        "inv": [-0.5 + 12j / np.pi, -0.5 + 4j / np.pi / 3],
        "legs": sorted((a for a in np.linalg.eigvals(legs) if a.imag > 0), key=lambda a: a.imag),
        "real": [-1, -2],
    }[init]
    np.testing.assert_allclose(INITS[init](4), expected, rtol=1e-12)
