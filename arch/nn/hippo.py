"""HiPPO-LegS, the initial state matrix of S4, S4D and S5.

In ODE form (Gu et al. 2021, arXiv 2111.00396, eq. 2) h' = A h + B u with A_nk = −√(2n+1) √(2k+1)
for n > k, −(n+1) for n = k, 0 above, and B_n = √(2n+1). It is normal plus low rank (theorem 1):
A = A⁽ᴺ⁾ − P Pᵀ with P_n = √(n+½), where A⁽ᴺ⁾ = −½ I + S and S is skew-symmetric.
"""

import numpy as np


def legs_vectors(d_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (P, B), [N] each."""
    n = np.arange(d_state)
    return np.sqrt(n + 0.5), np.sqrt(2 * n + 1)


def normal_legs(d_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Diagonalise A⁽ᴺ⁾ = V Λ V*; returns one of each conjugate pair, (Λ [N/2], V [N, N/2]), by
    increasing frequency.

    Args:
      d_state: N, even.
    """
    # S_nk = ∓½ √((2n+1)(2k+1)) for n ≷ k. The eigenvalues of the Hermitian −i S are the
    # frequencies, in ascending order and symmetric about zero.
    root = np.sqrt(2 * np.arange(d_state) + 1)
    below = np.tril(np.outer(root, root) / 2, -1)
    frequency, V = np.linalg.eigh(1j * (below - below.T))
    return -0.5 + 1j * frequency[d_state // 2 :], V[:, d_state // 2 :]
