"""Linear attention against softmax-like attention with its similarity, in float64."""

import jax
import numpy as np

import arch

B, T, D, H = 2, 23, 32, 2
K = D // H


def attend(mixer, x, segment_ids):
    """Equation 3 with sim(q, k) = φ(q)·φ(k) (eq. 4 and 7), all pairs at once."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)
    q, k, v = ((x @ layer.kernel[...]).reshape(B, T, H, K) for layer in (p.query, p.key, p.value))
    q, k = (np.where(y > 0, y + 1, np.exp(np.minimum(y, 0))) for y in (q, k))
    document = np.cumsum(np.diff(segment_ids, prepend=segment_ids[0]) != 0)
    seen = np.tril(document[:, None] == document)
    weights = np.einsum("bthk,bshk->bhts", q, k) * seen
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhts,bshk->bthk", weights, v).reshape(B, T, D) @ p.out.kernel[...]


# Positive weights from sums of at most 23 · 16 terms, then sums of 32: (√368 + √32) · 6e-8 is
# 1.5e-6; a factor of three for the 1e-6 beside the normaliser and for sums that cancel.
TOLERANCE = 5e-6


def test_is_attention_with_a_feature_map(build):
    mixer = build("linear_attention", num_heads=H)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    for ids in (np.ones(T, int), np.repeat([1, 2, 1], [7, 9, 7])):
        expected = attend(mixer, x.astype(np.float64), ids)
        context = arch.Context(segment_ids=np.broadcast_to(ids, (B, T)))
        actual = jax.jit(lambda m, x, c: m(x, c))(mixer, x, context)
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE * np.abs(expected).max())


def test_a_first_token_sees_its_own_value(build):
    """y_1 = v_1 whatever the query and the key: the weights are normalised."""
    mixer = build("linear_attention", num_heads=H)
    x = jax.random.normal(jax.random.key(0), (B, 1, D))
    expected = mixer.out(mixer.value(x))
    np.testing.assert_allclose(mixer(x), expected, atol=TOLERANCE * np.abs(expected).max())


def test_the_state_is_fixed(build):
    mixer = build("linear_attention", num_heads=H)
    expected = 4 * (H * K * (K + 1) + 1)
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == expected
