"""Based against the sum over all pairs of tokens in float64."""

import jax
import numpy as np
import pytest
from flax import nnx

import arch
from arch.based import taylor_features

B, T, D = 2, 23, 32


def reference(mixer, x, num_heads, width, segment_ids=None):
    """Equation 2 as weights: each pair of tokens has 1 + s + s²/2 with s = q · k / √K."""
    q, k, v = (
        (x @ np.asarray(layer.kernel[...], np.float64)).reshape(B, T, num_heads, -1)
        for layer in (mixer.query, mixer.key, mixer.value)
    )
    s = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(width)
    visible = np.tril(np.ones((T, T), bool))
    if segment_ids is not None:
        document = np.cumsum(np.diff(segment_ids, prepend=segment_ids[0]) != 0)
        visible &= document[:, None] == document
    weights = np.where(visible, 1 + s + s**2 / 2, 0)
    weights /= weights.sum(-1, keepdims=True)
    o = np.einsum("bhts,bshv->bthv", weights, v).reshape(B, T, D)
    return o @ np.asarray(mixer.out.kernel[...], np.float64)


@pytest.mark.parametrize(("num_heads", "width"), [(1, 16), (4, 3)])
def test_equals_the_weighted_mean(build, num_heads, width):
    mixer = build("based", num_heads=num_heads, feature_width=width)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    expected = reference(mixer, x.astype(np.float64), num_heads, width)
    actual = jax.jit(lambda m, x: m(x))(mixer, x)
    # φ(q)·φ(k) sums 153 terms whose parts 1, s, s²/2 cancel to no less than ½, about 1e-6; the
    # mean over 23 positive weights and the sum over 32 channels keep that relative size.
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_a_document_starts_from_nothing(build):
    mixer = build("based")
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    ids = np.repeat([1, 2, 1], [7, 9, 7])
    context = arch.Context(segment_ids=np.broadcast_to(ids, (B, T)))
    expected = reference(mixer, x.astype(np.float64), 1, 16, ids)
    actual = jax.jit(lambda m, x, c: m(x, c))(mixer, x, context)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("width", [1, 2, 16])
def test_features_are_the_taylor_series(width):
    q, k = np.asarray(2 * jax.random.normal(jax.random.key(width), (2, 50, width)))
    s = np.sum(q.astype(np.float64) * k, -1) / np.sqrt(width)
    phi_q, phi_k = taylor_features(q), taylor_features(k)
    assert phi_q.shape == (50, (width + 1) * (width + 2) // 2)
    # Rounding is relative to the sum of the terms' sizes, |φ(q)| · |φ(k)|.
    bound = 1e-6 * np.sum(np.abs(phi_q * phi_k), -1)
    actual = np.sum(np.asarray(phi_q, np.float64) * phi_k, -1)
    assert np.all(np.abs(actual - (1 + s + s**2 / 2)) <= bound)


def test_the_state_is_fixed(build):
    mixer = build("based", num_heads=4)
    expected = 4 * (4 * 153 * (D // 4 + 1) + 1)
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == expected


def test_the_hybrid_of_the_paper_is_a_pattern():
    pattern = ["base_conv", "based", "base_conv", "sliding_window", "base_conv"]
    model = arch.Backbone(
        pattern, D, num_layers=5, vocab_size=50, max_length=T, rngs=nnx.Rngs(0), norm="rms"
    )
    tokens = jax.random.randint(jax.random.key(0), (B, T), 0, 50)
    state, prompt = model.extend(model.initial_state(B, T), tokens[:, :9])
    _, rest = model.extend(state, tokens[:, 9:])
    expected = np.asarray(model(tokens))
    actual = np.concatenate([prompt, rest], 1)
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())
