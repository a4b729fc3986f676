"""Attention against a dense softmax in float64, its cache, and its window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch
from arch.nn.rotary import BASE

B, T, D = 2, 19, 32


def reference(mixer, x, num_heads, num_kv_heads, rotary, window, causal=True):
    """Equation 1 of the paper for each head, a whole [T, T] matrix at a time."""
    x = np.asarray(x, np.float64)
    width = D // num_heads

    def heads(layer, count):
        return (x @ np.asarray(layer.kernel[...], np.float64)).reshape(B, T, count, width)

    q, k, v = (
        heads(layer, count)
        for layer, count in (
            (mixer.query, num_heads),
            (mixer.key, num_kv_heads),
            (mixer.value, num_kv_heads),
        )
    )
    if rotary:  # a pair of channels is a complex number, turned by e^{i m θ}
        theta = BASE ** (-np.arange(0, width, 2) / width)
        turn = np.exp(1j * np.arange(T)[:, None, None] * theta)

        def rotate(y):
            z = (y[..., 0::2] + 1j * y[..., 1::2]) * turn
            return np.stack([z.real, z.imag], -1).reshape(y.shape)

        q, k = rotate(q), rotate(k)
    out = np.zeros((B, T, num_heads, width))
    distance = np.arange(T)[:, None] - np.arange(T)
    for h in range(num_heads):
        g = h * num_kv_heads // num_heads
        scores = np.einsum("btk,bsk->bts", q[:, :, h], k[:, :, g]) / np.sqrt(width)
        if causal:
            scores[:, (distance < 0) | (distance >= (window or T))] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out[:, :, h] = np.einsum("bts,bsv->btv", weights, v[:, :, g])
    return out.reshape(B, T, D) @ np.asarray(mixer.out.kernel[...], np.float64)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (B, T, D))


@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "positions", "window"),
    [(1, 1, "rotary", None), (4, 2, "none", None), (4, 1, "rotary", 5), (2, 2, "rotary", 1)],
)
def test_equals_dense_softmax(build, x, num_heads, num_kv_heads, positions, window):
    mixer = build(
        "attention",
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        positions=positions,
        window=window,
    )
    expected = reference(mixer, x, num_heads, num_kv_heads, positions == "rotary", window)
    # Scores of size ~3 carry ~√32 · 6e-8 · 3 ≈ 1e-6, and the weights that relative error.
    error = np.abs(jax.jit(lambda m, x: m(x))(mixer, x) - expected).max()
    assert error < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_both_ways_equals_dense_softmax(build, x, positions):
    """Of the whole row, the tolerance as above; and with padding, which sees and is seen by none of
    the others, the same at the tokens before it.
    """
    mixer = build("attention", num_heads=4, positions=positions, causal=False)
    forward = jax.jit(lambda m, x, c: m(x, c))
    expected = reference(mixer, x, 4, 4, positions == "rotary", None, causal=False)
    assert np.abs(forward(mixer, x, None) - expected).max() < 1e-5 * np.abs(expected).max()
    noise = jax.random.normal(jax.random.key(1), (B, 6, D))
    ids = jnp.broadcast_to(jnp.arange(T + 6) < T, (B, T + 6)).astype(jnp.int32)
    padded = forward(mixer, jnp.concatenate([x, noise], 1), arch.Context(segment_ids=ids))
    assert np.abs(padded[:, :T] - expected).max() < 1e-5 * np.abs(expected).max()


def test_both_ways_has_neither_window_nor_state(build):
    with pytest.raises(ValueError, match="window is 5, expected None with causal=False"):
        build("attention", window=5, causal=False)
    mixer = build("attention", causal=False)
    assert not mixer.causal
    with pytest.raises(ValueError, match="Attention sees the future with these options"):
        mixer.initial_state(B, T)


@pytest.mark.parametrize("name", ["sliding_window", "block_local"])
def test_a_window_is_always_causal(build, name):
    with pytest.raises(ValueError, match="has no option 'causal'"):
        build(name, causal=False)


def test_the_window_bounds_the_state(build):
    mixer = build("attention", window=5)
    assert arch.state_bytes(mixer, 1000) == arch.state_bytes(mixer, 5)
    assert arch.state_bytes(mixer, 2) < arch.state_bytes(mixer, 5)
    assert mixer.initial_state(1, 1000)["keys"].shape == (1, 1, 4, 32)


@pytest.mark.parametrize("max_length", [3, 4, 5])
def test_state_shorter_than_the_window(build, x, max_length):
    mixer = build("attention", window=5)
    state, parts, x = mixer.initial_state(B, max_length), [], x[:, :max_length]
    extend = jax.jit(lambda s, x: mixer.extend(s, x))
    for t in range(max_length):
        state, y = extend(state, x[:, t : t + 1])
        parts.append(y)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), jax.jit(mixer.__call__)(x), atol=1e-6)


def test_a_full_cache_raises_or_gives_nan(build, x):
    mixer = build("attention")
    with pytest.raises(ValueError, match="19 tokens, expected at most the 8"):
        mixer.extend(mixer.initial_state(B, 8), x)
    extend = jax.jit(lambda s, x: mixer.extend(s, x))
    state, y = extend(mixer.initial_state(B, 8), x[:, :6])
    assert np.all(np.isfinite(y))
    with pytest.raises(ValueError, match="10 tokens, expected at most the 8"):
        mixer.extend(state, x[:, :4])
    assert np.all(np.isnan(extend(state, x[:, :4])[1]))  # a traced length cannot raise
