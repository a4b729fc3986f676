"""The Mamba block token by token in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch

B, T, D, N, R = 2, 23, 32, 16, 2


def silu(x):
    return x / (1 + np.exp(-x))


def reference(mixer, x, segment_ids):
    """Algorithm 2 and figure 3, one token after the other."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)
    weights = [layer.kernel[...] for layer in (p.into, p.selection, p.step, p.out)]
    into, selection, step, out = weights
    taps, A = p.conv.kernel[...], -np.exp(p.A_log[...])
    tail, h, ys = np.zeros((B, 4, 2 * D)), np.zeros((B, 2 * D, N)), []
    for t in range(T):
        if t and segment_ids[t] != segment_ids[t - 1]:
            tail, h = 0 * tail, 0 * h
        u, z = np.split(x[:, t] @ into, 2, -1)
        tail = np.concatenate([u[:, None], tail[:, :-1]], 1)  # newest first, as the taps are
        u = silu(np.sum(taps * tail, 1) + p.conv.bias[...])
        low_rank, B_t, C_t = np.split(u @ selection, [R, R + N], -1)
        delta = np.log1p(np.exp(low_rank @ step + p.step_bias[...]))
        h = np.exp(delta[..., None] * A) * h + (delta * u)[..., None] * B_t[:, None]
        y = np.sum(C_t[:, None] * h, -1) + p.D[...] * u
        ys.append((y * silu(z)) @ out)
    return np.stack(ys, 1)


@pytest.mark.parametrize("ids", [None, np.repeat([1, 2, 1], [7, 9, 7])])
def test_block_equals_algorithm_2(build, ids):
    mixer = build("mamba")
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    context = None if ids is None else arch.Context(segment_ids=np.broadcast_to(ids, (B, T)))
    expected = reference(mixer, x.astype(np.float64), np.ones(T) if ids is None else ids)
    actual = jax.jit(lambda m, x, c: m(x, c))(mixer, x, context)
    # Products of five factors, each a sum of at most 64 terms: about 5 · √64 · 6e-8.
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_initial_values():
    mixer = arch.build("mamba", D, rngs=nnx.Rngs(0))
    step = jax.nn.softplus(mixer.step_bias[...])
    assert step.min() >= 0.999e-3
    assert step.max() <= 0.1001
    np.testing.assert_allclose(jnp.exp(mixer.A_log[...])[0], np.arange(1, N + 1), rtol=1e-6)
    assert mixer.step.kernel.shape == (R, 2 * D)
    assert mixer.channel_mixing


def test_the_state_is_fixed():
    mixer = arch.build("mamba", D, rngs=nnx.Rngs(0))
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == 4 * 2 * D * (N + 3)
