"""Hyena and BaseConv against direct convolutions in float64."""

import jax
import numpy as np
import pytest

import arch

B, T, D, M = 2, 23, 32, 40


def convolve(u, taps):
    """y_t = Σ_{j ≤ t} taps_j ⊙ u_{t−j}, by the definition; u [B, T, D], taps [L, D]."""
    y = np.zeros_like(u)
    for t in range(u.shape[1]):
        for j in range(min(t + 1, len(taps))):
            y[:, t] += taps[j] * u[:, t - j]
    return y


def float64(mixer):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)


def implicit_filters(filters, order):
    """Section 3.3: positional encoding, sine network, exponential window. [T, order, D]."""
    t = np.arange(T)[:, None] / M
    waves = np.exp(-2j * np.pi * t * np.linspace(1e-4, 15, 16))
    h = np.concatenate([t, waves.real, waves.imag], -1)
    for i, layer in enumerate(filters.layers):
        h = h @ layer.kernel[...] + layer.bias[...]
        h = np.sin(h) if i + 1 < len(filters.layers) else h
    window = 1e-2 ** (t * np.linspace(1 / 1.5, 1 / 0.3, D)) + 0.05
    return h.reshape(T, order, D) * window[:, None]


@pytest.mark.parametrize("order", [2, 3])
def test_hyena_equals_direct_convolution(build, order):
    mixer = build("hyena", order=order)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    p = float64(mixer)
    projections = x.astype(np.float64) @ p.into.kernel[...] + p.into.bias[...]
    projections = convolve(projections, p.conv.kernel[...]) + p.conv.bias[...]
    z, *gates = np.split(projections, order + 1, -1)
    h = implicit_filters(p.filters, order)
    for n, gate in enumerate(gates):
        z = gate * (convolve(z, h[:, n]) + p.skip[n] * z)
    expected = z @ p.out.kernel[...] + p.out.bias[...]
    actual = jax.jit(lambda m, x: m(x))(mixer, x)
    # Sums of up to 64 float32 terms and a product a convolution, 6e-8 each in the worst case, and
    # sine layers that do not magnify what enters them (ω = 1, weights of norm about 1).
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["hyena", "base_conv"])
def test_longer_than_max_length(build, name):
    mixer = build(name, **({"width": None} if name == "base_conv" else {}))
    x = np.zeros((B, M + 1, D), np.float32)
    with pytest.raises(ValueError, match="41 tokens, expected at most max_length 40"):
        mixer(x)
    with pytest.raises(ValueError, match="max_length is 40, expected at least 41"):
        mixer.initial_state(B, M + 1)


@pytest.mark.parametrize("width", [3, None])
def test_base_conv_equals_direct_convolution(build, width):
    mixer = build("base_conv", width=width)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    p, x64 = float64(mixer), x.astype(np.float64)
    taps = p.conv.kernel[...] if width else p.conv.kernel[...].T
    expected = x64 @ p.gate.kernel[...] + p.gate.bias[...]
    expected *= convolve(x64, taps) + p.conv.bias[...]
    actual = jax.jit(lambda m, x: m(x))(mixer, x)
    # One product of two sums of at most 32 terms.
    np.testing.assert_allclose(actual, expected, atol=5e-6 * np.abs(expected).max())
    assert mixer.uses_fft == (width is None)


def test_state_is_the_past_where_the_filter_is_long(build):
    bytes_of = {n: arch.state_bytes(build("hyena", max_length=n), n) for n in (16, 32)}
    assert bytes_of[32] - bytes_of[16] == 2 * 16 * D * 4  # two histories
    short = build("base_conv")
    assert arch.state_bytes(short, 10) == arch.state_bytes(short, 10**6) == 4 * 2 * D
