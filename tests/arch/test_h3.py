"""H3 token by token in float64."""

import jax
import numpy as np
import pytest

import arch

B, T, D, N = 2, 41, 8, 16


def reference(mixer, x, num_heads):
    """Section 3.1 with the dense shift matrix, one entry of one head's kᵀ v at a time."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)
    q, k, v = (x @ y.kernel[...] + y.bias[...] for y in (p.query, p.key, p.value))

    shift, e_1 = np.eye(N, k=-1), np.eye(N)[0]
    h, shifted = np.zeros((B, D, N)), np.zeros_like(k)
    for t in range(T):
        h = h @ shift.T + k[:, t, :, None] * e_1
        shifted[:, t] = np.sum(p.shift.C[...] * h, -1) + p.shift.D[...] * k[:, t]

    ssm, width, o = p.diagonal, D // num_heads, np.zeros_like(k)
    A = -np.exp(ssm.decay[...]) + 1j * ssm.frequency[...]
    b, c = (pair[..., 0] + 1j * pair[..., 1] for pair in (ssm.B[...], ssm.C[...]))
    step = np.exp(ssm.log_step[...])[:, None]
    A_bar, B_bar = (1 + step * A / 2) / (1 - step * A / 2), step * b / (1 - step * A / 2)
    for head in range(num_heads):
        for i in range(head * width, (head + 1) * width):
            for j in range(head * width, (head + 1) * width):
                state = np.zeros((B, N // 2), complex)
                for t in range(T):
                    u = shifted[:, t, i] * v[:, t, j]
                    state = A_bar[head] * state + B_bar[head] * u[:, None]
                    y = 2 * np.sum(c[head] * state, -1).real + ssm.D[...][head] * u
                    o[:, t, j] += q[:, t, i] * y
    return o @ p.out.kernel[...] + p.out.bias[...]


@pytest.mark.parametrize("num_heads", [D, 2])
def test_equals_the_recurrence(build, num_heads):
    mixer = build("h3", D, d_state=N, num_heads=None if num_heads == D else num_heads)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    expected = reference(mixer, x.astype(np.float64), num_heads)
    actual = jax.jit(lambda m, x: m(x))(mixer, x)
    # The kernel's exponents reach T π ≈ 130, rounded to 130 · 6e-8 = 8e-6 of a term; the sums over
    # state and time average over hundreds of such errors.
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


def test_the_state_is_fixed(build):
    for num_heads, width in ((None, 1), (2, D // 2)):
        mixer = build("h3", D, d_state=N, num_heads=num_heads)
        complex_numbers = width**2 * (D // width) * N // 2
        expected = 4 * (N - 1) * D + 8 * complex_numbers
        assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == expected
