"""Retention token by token in float64, with complex numbers as the paper derives it."""

import jax
import numpy as np

import arch

B, T, D, H = 2, 23, 32, 2
K, V = D // H, 2 * D // H
GAMMA = 1 - 2.0 ** (-5 - np.arange(H))


def silu(x):
    return x / (1 + np.exp(-x))


def reference(mixer, x, segment_ids):
    """Equations 1 to 8, with the channel pairs of Q and K as complex numbers."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)
    theta = 10_000.0 ** (-np.arange(0, K, 2) / K)
    S, ys = np.zeros((B, H, K // 2, V), complex), []
    for n in range(T):
        q, k, v = (
            (x[:, n] @ layer.kernel[...]).reshape(B, H, -1) for layer in (p.query, p.key, p.value)
        )
        turn = np.exp(1j * n * theta)
        q, k = ((y[..., 0::2] + 1j * y[..., 1::2]) * turn for y in (q, k))
        kept = n > 0 and segment_ids[n] == segment_ids[n - 1]
        S = kept * GAMMA[:, None, None] * S + np.conj(k)[..., None] * v[:, :, None]
        o = np.einsum("bhk,bhkv->bhv", q, S).real / np.sqrt(K)
        o = (o - o.mean(-1, keepdims=True)) / np.sqrt(o.var(-1, keepdims=True) + 1e-5)
        o = o * p.norm.scale[...] + p.norm.bias[...]
        gate = silu(x[:, n] @ p.gate.kernel[...])
        ys.append((gate * o.reshape(B, 2 * D)) @ p.out.kernel[...])
    return np.stack(ys, 1)


def test_equals_the_recurrence(build):
    mixer = build("retnet", num_heads=H)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    for ids in (np.ones(T, int), np.repeat([1, 2, 1], [7, 9, 7])):
        expected = reference(mixer, x.astype(np.float64), ids)
        context = arch.Context(segment_ids=np.broadcast_to(ids, (B, T)))
        actual = jax.jit(lambda m, x, c: m(x, c))(mixer, x, context)
        # Sums of at most 64 terms in four stages, divided by a spread of o well above zero.
        np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


def test_heads_forget_at_the_rates_of_the_paper(build):
    """With no more keys, the state of head h shrinks by γ_h = 1 − 2^{−5−h} at every token."""
    mixer = build("retnet", num_heads=H)
    x = jax.random.normal(jax.random.key(0), (1, 1, D))
    before, _ = mixer.extend(mixer.initial_state(1, 1), x)
    after, _ = mixer.extend(before, 0 * x)
    before, after = (np.linalg.norm(state["memory"]["S"], axis=(2, 3)) for state in (before, after))
    ratio = after / before
    np.testing.assert_allclose(ratio[0], GAMMA, rtol=1e-5)


def test_the_state_is_fixed(build):
    mixer = build("retnet", num_heads=H)
    expected = 4 * (H * K * V + 2)
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == expected
