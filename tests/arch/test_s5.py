"""S5 token by token in float64, and its initial state space against the real HiPPO matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch
from arch.nn import hippo

B, T, D, N, J = 2, 50, 16, 24, 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def float64(mixer):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)


def continuous(p):
    """(Λ, B, C, Δ) with B [D, N/2] and C [N/2, D]."""
    B_in, C = (pair[...][0] + 1j * pair[...][1] for pair in (p.B, p.C))
    return -np.exp(p.decay[...]) + 1j * p.frequency[...], B_in, C, np.exp(p.log_step[...])


def reference(mixer, x, segment_ids=None):
    """Equations 2 and 6 and the gated unit, one token after the other."""
    p = float64(mixer)
    Λ, B_in, C, step = continuous(p)
    h, ys = np.zeros((B, N // 2), complex), []
    for t in range(T):
        if segment_ids is not None and t and segment_ids[t] != segment_ids[t - 1]:
            h = 0 * h
        h = np.exp(Λ * step) * h + (np.exp(Λ * step) - 1) / Λ * (x[:, t] @ B_in)
        y = 2 * (h @ C).real + p.D[...] * x[:, t]
        g = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        ys.append(g * sigmoid(g @ p.out.kernel[...] + p.out.bias[...]))
    return np.stack(ys, 1)


@pytest.mark.parametrize("packed", [False, True])
def test_equals_the_recurrence(build, packed):
    mixer = build("s5", D, d_state=N, num_blocks=J)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    ids = np.repeat([1, 2, 1], [7, 30, 13]) if packed else None
    context = arch.Context(segment_ids=jnp.broadcast_to(ids, (B, T))) if packed else None
    expected = reference(mixer, x.astype(np.float64), ids)
    actual = jax.jit(lambda m, x, c: m(x, c))(mixer, x, context)
    # λ̄_n carries an error of about eps (1 + |Λ Δ|) < 3 eps, for |Λ| < 20 and Δ < 0.11, and at most
    # T of them are multiplied: 50 · 3 · 6e-8 = 9e-6 of a term.
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


def test_the_initial_state_space_is_that_of_the_real_matrix():
    """B and C are conjugate pairs: V* undone, B′ is real and the impulse response that of A⁽ᴺ⁾."""
    mixer = arch.build("s5", D, rngs=nnx.Rngs(0), d_state=N, num_blocks=J)
    Λ, B_in, C, _ = continuous(float64(mixer))
    size = N // J
    n = np.arange(size)
    root = np.sqrt(2 * n + 1)
    A = -0.5 * np.eye(size) - 0.5 * np.outer(root, root) * np.sign(n[:, None] - n)
    A = np.kron(np.eye(J), A)
    _, V = hippo.normal_legs(size)
    V = np.kron(np.eye(J), V)
    real_B, real_C = 2 * (B_in @ V.T).real, 2 * (C.T @ V.conj().T).real
    # One explicit step of h' = A h + B u, twice: the moments C A^k B of both must agree.
    power = np.eye(N)
    for k in range(4):
        expected = real_B @ power.T @ real_C.T
        actual = 2 * ((B_in * Λ**k) @ C).real
        # Parameters are rounded to float32; |Λ|^k multiplies k + 3 of them.
        np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())
        power = A @ power
    assert abs(np.var(real_B) * D - 1) < 5 * np.sqrt(2 / (D * N))
    assert abs(np.var(real_C) * N - 1) < 5 * np.sqrt(2 / (D * N))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_blocks": 7}, "num_blocks is 7, expected a divisor of d_state 256, such as 8"),
        ({"d_state": 24, "num_blocks": 8}, "d_state / num_blocks is 3, expected an even number"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        arch.build("s5", D, rngs=nnx.Rngs(0), **options)


def test_the_state_is_fixed():
    mixer = arch.build("s5", D, rngs=nnx.Rngs(0), d_state=N, num_blocks=J)
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == 8 * N // 2 + 4
