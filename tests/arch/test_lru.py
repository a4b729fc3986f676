"""The LRU token by token in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch

B, T, D, N = 2, 50, 16, 24


def gelu(y):
    return 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))


def reference(mixer, x, segment_ids=None):
    """Equation 7 and the block of figure 1, one token after the other."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)
    λ = np.exp(-np.exp(p.nu[...]) + 1j * np.exp(p.theta[...]))
    B_in, C = (pair[...][0] + 1j * pair[...][1] for pair in (p.B, p.C))
    h, ys = np.zeros((B, N), complex), []
    for t in range(T):
        if segment_ids is not None and t and segment_ids[t] != segment_ids[t - 1]:
            h = 0 * h
        h = λ * h + np.exp(p.gamma_log[...]) * (x[:, t] @ B_in)
        y = gelu((h @ C).real + p.D[...] * x[:, t])
        inner = y @ p.out.kernel[...] + p.out.bias[...]
        value, gate = np.split(inner, 2, -1) if inner.shape[1] == 2 * D else (y, inner)
        ys.append(value / (1 + np.exp(-gate)))
    return np.stack(ys, 1)


@pytest.mark.parametrize(("packed", "output"), [(False, "glu"), (True, "glu"), (False, "gate")])
def test_equals_the_recurrence(build, packed, output):
    mixer = build("lru", D, d_state=N, output=output)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    ids = np.repeat([1, 2, 1], [7, 30, 13]) if packed else None
    context = arch.Context(segment_ids=jnp.broadcast_to(ids, (B, T))) if packed else None
    expected = reference(mixer, x.astype(np.float64), ids)
    actual = jax.jit(lambda m, x, c: m(x, c))(mixer, x, context)
    # λ_n carries an error of about eps (1 + |log λ_n|) < 8 eps (a phase is at most 2π), and at most
    # T of them are multiplied: 50 · 8 · 6e-8 = 2.4e-5 of a term whose |λ|^T is still 1.
    np.testing.assert_allclose(actual, expected, atol=3e-5 * np.abs(expected).max())


def test_the_ring():
    """|λ|² and the phase are uniform, and γ makes the response to white noise of unit variance."""
    options = {"d_state": 4096, "r_min": 0.5, "r_max": 0.9, "max_phase": 0.3}
    mixer = arch.build("lru", D, rngs=nnx.Rngs(0), **options)
    radius, phase = np.exp(-np.exp(mixer.nu[...])), np.exp(mixer.theta[...])
    for values, low, high in ((radius**2, 0.25, 0.81), (phase, 0, 0.3)):
        assert low <= values.min()
        assert values.max() <= high
        # Mean and its standard deviation, (high − low) / √(12 · 4096), five times over.
        assert abs(values.mean() - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * 4096)
    # Var h = γ² Σ |λ|^{2t} = γ² / (1 − |λ|²) of the variance of B u.
    gamma = np.exp(mixer.gamma_log[...])
    np.testing.assert_allclose(gamma**2 / (1 - radius**2), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "d_state is 0, expected at least 1"),
        ({"r_min": 0.9, "r_max": 0.5}, "expected 0 <= r_min < r_max <= 1"),
        ({"max_phase": 0.0}, "expected a positive angle"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        arch.build("lru", D, rngs=nnx.Rngs(0), **options)


def test_the_state_is_fixed():
    mixer = arch.build("lru", D, rngs=nnx.Rngs(0), d_state=N)
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == 8 * N + 4
