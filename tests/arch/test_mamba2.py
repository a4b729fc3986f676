"""The Mamba-2 block token by token in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch

B, T, D, E, N = 2, 23, 32, 64, 128


def silu(x):
    return x / (1 + np.exp(-x))


def reference(mixer, u, heads):
    """Equation 2 with a scalar A for each head, in the block of figure 6 (right)."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)
    taps, A = p.conv.kernel[...], -np.exp(p.decay.A_log[...])
    tail, h = np.zeros((B, 4, E + 2 * N)), np.zeros((B, heads, N, E // heads))
    ys = []
    for t in range(T):
        z, xBC = u[:, t] @ p.gate.kernel[...], u[:, t] @ p.into.kernel[...]
        tail = np.concatenate([xBC[:, None], tail[:, :-1]], 1)  # newest first, as the taps are
        xBC = silu(np.sum(taps * tail, 1) + p.conv.bias[...])
        x, B_t, C_t = np.split(xBC, [E, E + N], -1)
        x = x.reshape(B, heads, -1)
        delta = np.log1p(np.exp(u[:, t] @ p.decay.step.kernel[...] + p.decay.step_bias[...]))
        h = np.exp(delta * A)[..., None, None] * h
        h += np.einsum("bh,bn,bhp->bhnp", delta, B_t, x)
        y = np.einsum("bn,bhnp->bhp", C_t, h) + p.D[...][:, None] * x
        y = y.reshape(B, E) * silu(z)
        y = y / np.sqrt(np.mean(y**2, -1, keepdims=True) + 1e-5) * p.norm.scale[...]
        ys.append(y @ p.out.kernel[...])
    return np.stack(ys, 1)


@pytest.mark.parametrize("heads", [1, 4])
def test_block_equals_the_recurrence(build, heads):
    mixer = build("mamba2", head_width=E // heads)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    expected = reference(mixer, x.astype(np.float64), heads)
    actual = jax.jit(lambda m, x: m(x))(mixer, x)
    # Products of five factors, each a sum of at most 128 terms: about 5 · √128 · 6e-8; twice that
    # for the root mean square that divides.
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_initial_values():
    mixer = arch.build("mamba2", 256, rngs=nnx.Rngs(0))
    step = jax.nn.softplus(mixer.decay.step_bias[...])
    assert step.min() >= 0.999e-3
    assert step.max() <= 0.1001
    rate = jnp.exp(mixer.decay.A_log[...])
    assert rate.min() >= 0.999
    assert rate.max() <= 16.01
    assert rate.shape == (512 // 64,)
    assert mixer.channel_mixing


def test_size_of_the_published_model():
    """mamba2-130m: width 768, 24 layers, 50,288 tokens (padded to 16s), tied: 128,989,632."""

    def model():
        return arch.Backbone(
            "mamba2",
            768,
            num_layers=24,
            vocab_size=50_288,
            max_length=2048,
            norm="rms",
            rngs=nnx.Rngs(0),
        )

    size = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model)))
    assert size == 128_989_632


def test_the_state_is_fixed():
    mixer = arch.build("mamba2", D, rngs=nnx.Rngs(0))
    expected = 4 * (3 * (E + 2 * N) + E * N + 1)
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == expected


def test_heads_must_divide_the_inner_width():
    message = "head_width is 24, expected a divisor of the inner width expand · d_model = 64, such"
    with pytest.raises(ValueError, match=message):
        arch.build("mamba2", D, rngs=nnx.Rngs(0), head_width=24)
