"""DeltaNet and Gated DeltaNet token by token in float64."""

import jax
import numpy as np
import pytest
from flax import nnx

import arch

B, T, D, H = 2, 23, 32, 2
WIDTHS = {"deltanet": (16, 16), "gated_deltanet": (12, 24)}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def reference(name, mixer, x, segment_ids):
    """Equation 10 of Gated DeltaNet (without its gates: section 2.2 of DeltaNet)."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)
    K, V = WIDTHS[name]
    S, ys = np.zeros((B, H, V, K)), []
    tails = [np.zeros((B, 4, H * width)) for width in (K, K, V)]
    for t in range(T):
        x_t, begins = x[:, t], t and segment_ids[t] != segment_ids[t - 1]
        qkv = [x_t @ layer.kernel[...] for layer in (p.query, p.key, p.value)]
        for i, conv in enumerate(p.convs):
            past = tails[i][:, :-1] * (not begins)
            tails[i] = np.concatenate([qkv[i][:, None], past], 1)
            qkv[i] = np.sum(conv.kernel[...] * tails[i], 1) + conv.bias[...]
        q, k, v = (silu(y).reshape(B, H, -1) for y in qkv)
        q, k = (y / np.sqrt(np.sum(y**2, -1, keepdims=True) + 1e-6) for y in (q, k))
        beta = sigmoid(x_t @ p.beta.kernel[...])[..., None, None]
        alpha = np.ones((B, H, 1, 1))
        if name == "gated_deltanet":
            step = np.log1p(np.exp(x_t @ p.decay.step.kernel[...] + p.decay.step_bias[...]))
            alpha = np.exp(-step * np.exp(p.decay.A_log[...]))[..., None, None]
        if begins:
            alpha = 0 * alpha
        outer = np.einsum("bhi,bhj->bhij", k, k)
        S = S @ (alpha * (np.eye(K) - beta * outer)) + beta * v[..., None] * k[:, :, None]
        o = np.einsum("bhvk,bhk->bhv", S, q)
        o = o / np.sqrt(np.mean(o**2, -1, keepdims=True) + 1e-5) * p.norm.scale[...]
        o = o.reshape(B, H * V)
        if name == "gated_deltanet":
            o = o * silu(x_t @ p.gate.kernel[...])
        ys.append(o @ p.out.kernel[...])
    return np.stack(ys, 1)


# Sums of at most 48 terms in six stages, 6 · √48 · 6e-8 = 2.5e-6 of their terms. β|k|² < 1, so that
# no step magnifies an error; where o is small the norm does, tenfold at most in 23 tokens.
TOLERANCE = 2.5e-5


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("conv_size", [None, 4])
def test_equals_the_recurrence(build, name, conv_size):
    mixer = build(name, num_heads=H, conv_size=conv_size)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    ids = np.repeat([1, 2, 1], [7, 9, 7])
    context = arch.Context(segment_ids=np.broadcast_to(ids, (B, T)))
    expected = reference(name, mixer, x.astype(np.float64), ids)
    actual = jax.jit(lambda m, x, c: m(x, c))(mixer, x, context)
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "message"), [("deltanet", "d_model 32"), ("gated_deltanet", "24")]
)
def test_heads_must_divide_the_width(name, message):
    with pytest.raises(ValueError, match=f"num_heads is 5, expected a divisor of .*{message}"):
        arch.build(name, D, rngs=nnx.Rngs(0), num_heads=5)


def test_gated_deltanet_takes_three_quarters_of_the_width():
    with pytest.raises(ValueError, match="d_model is 30, expected a multiple of 4"):
        arch.build("gated_deltanet", 30, rngs=nnx.Rngs(0))
    # 6 D² in matrices (q, k: ¾; v, gate, out: 1½), and what is of the order of D.
    D = 1024
    mixer = jax.eval_shape(lambda: arch.build("gated_deltanet", D, rngs=nnx.Rngs(0)))
    size = sum(leaf.size for leaf in jax.tree.leaves(mixer))
    assert 0 < size - 6 * D**2 < 30 * D


@pytest.mark.parametrize(("name", "numbers"), [("deltanet", 3 * 3 * D), ("gated_deltanet", 9 * D)])
def test_the_state_is_fixed(build, name, numbers):
    mixer = build(name, num_heads=H)
    K, V = WIDTHS[name]
    expected = 4 * (H * K * V + numbers + 1)
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == expected
