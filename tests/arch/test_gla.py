"""Gated linear attention token by token in float64."""

import jax
import numpy as np
import pytest

import arch

B, T, D, H = 2, 23, 32, 2
K, V = D // 2 // H, D // H


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(mixer, x, segment_ids=None):
    """Equation 3 with the gates of section 4.4, one token after the other."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)
    S, ys = np.zeros((B, H, K, V)), []
    tails = [np.zeros((B, 4, width)) for width in (D // 2, D // 2, D)]
    for t in range(T):
        x_t = x[:, t]
        begins = segment_ids is not None and t and segment_ids[t] != segment_ids[t - 1]
        qkv = [x_t @ layer.kernel[...] for layer in (p.query, p.key, p.value)]
        for i, conv in enumerate(p.convs):
            past = tails[i][:, :-1] * (not begins)
            tails[i] = np.concatenate([qkv[i][:, None], past], 1)
            y = np.sum(conv.kernel[...] * tails[i], 1) + conv.bias[...]
            qkv[i] = y * sigmoid(y)
        q, k, v = (y.reshape(B, H, -1) for y in qkv)
        logits = x_t @ p.decay_down.kernel[...] @ p.decay_up.kernel[...] + p.decay_up.bias[...]
        alpha = sigmoid(logits).reshape(B, H, K) ** (1 / 16)
        if begins:
            alpha = 0 * alpha
        S = alpha[..., None] * S + k[..., None] * v[:, :, None]
        o = np.einsum("bhk,bhkv->bhv", q, S) / np.sqrt(K)
        o = o / np.sqrt(np.mean(o**2, -1, keepdims=True) + 1e-5) * p.norm.scale[...]
        gate = x_t @ p.gate.kernel[...] + p.gate.bias[...]
        ys.append((o.reshape(B, D) * gate * sigmoid(gate)) @ p.out.kernel[...])
    return np.stack(ys, 1)


@pytest.mark.parametrize("conv_size", [None, 4])
def test_equals_the_recurrence(build, conv_size):
    mixer = build("gla", num_heads=H, conv_size=conv_size)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    expected = reference(mixer, x.astype(np.float64))
    actual = jax.jit(lambda m, x: m(x))(mixer, x)
    # Sums of at most 32 terms in four stages, divided by an rms of o that is well above zero.
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("conv_size", [None, 4])
def test_a_document_starts_from_nothing(build, conv_size):
    mixer = build("gla", num_heads=H, conv_size=conv_size)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    ids = np.repeat([1, 2, 1], [7, 9, 7])
    context = arch.Context(segment_ids=np.broadcast_to(ids, (B, T)))
    expected = reference(mixer, x.astype(np.float64), ids)
    actual = jax.jit(lambda m, x, c: m(x, c))(mixer, x, context)
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


def test_the_state_is_fixed(build):
    mixer = build("gla", num_heads=H)
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == 4 * (H * K * V + 1)
