"""Orchid against dense Fourier matrices in float64, and the symmetry that it is built on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch import Context

B, D = 2, 8
KINDS = ("magnitude", "correlation")
LENGTHS = (16, 19)  # the highest frequency of an even length has a place of its own


def inputs(length):
    return np.asarray(jax.random.normal(jax.random.key(0), (B, length, D)))


def around(conv, x):
    """y_t = Σ_j w_j x_{(t + 1 − j) mod T} + b for three taps."""
    y, length = np.zeros_like(x), x.shape[1]
    for t in range(length):
        for j in range(3):
            y[:, t] += conv.kernel[...][j] * x[:, (t + 1 - j) % length]
    return y + conv.bias[...]


def layer_norm(norm, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * norm.scale[...] + norm.bias[...]


def conditioned_kernel(network, v, kind):
    length = v.shape[1]
    frequency, time = np.arange(length // 2 + 1), np.arange(length)
    dft = np.exp(-2j * np.pi * np.outer(frequency, time) / length) / np.sqrt(length)
    spectra = [
        np.einsum("ft,btd->bfd", dft, layer_norm(norm, around(conv, v)))
        for conv, norm in zip(network.convs, network.norms, strict=True)
    ]
    if kind == "magnitude":
        parts = [np.abs(spectra[0])]
    else:
        product = spectra[0].conj() * spectra[1]
        parts = [product.real, product.imag]
    conv = network.frequency_conv
    H = np.zeros((B, len(frequency), 2, D))
    for f in frequency:
        for j in range(3):
            if 0 <= f + j - 1 < len(frequency):
                for i, part in enumerate(parts):
                    H[:, f] += conv.kernel[...][j, i] * part[:, f + j - 1, None]
    H = layer_norm(conv.norm, (H + conv.bias[...]).reshape(B, len(frequency), 2 * D))
    H = H[..., :D] + 1j * H[..., D:]
    # A real signal: every frequency but 0 and T/2 stands for its negative as well.
    twice = np.where((frequency == 0) | (2 * frequency == length), 1, 2)
    wave = np.exp(2j * np.pi * np.outer(time, frequency) / length) * twice / length
    return np.einsum("tf,bfd->btd", wave, H).real


def reference(mixer, x, kind):
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)
    projections, length = x @ p.into.kernel[...] + p.into.bias[...], x.shape[1]
    x_0, x_1, v = np.split(around(p.conv, projections), 3, axis=-1)
    h = conditioned_kernel(p.conditioned, projections[..., 2 * D :], kind)
    h = h + np.asarray(mixer.fixed(length)[0].T, np.float64)
    z, y = x_1 * v, np.zeros_like(v)
    for t in range(length):
        for j in range(length):
            y[:, t] += h[:, j] * z[:, (t - j) % length]
    return (x_0 * (y + p.skip[...] * z)) @ p.out.kernel[...] + p.out.bias[...]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_equations(build, kind, length):
    mixer, x = build("orchid", D, conditioning=kind), inputs(length)
    expected = reference(mixer, x.astype(np.float64), kind)
    actual = jax.jit(lambda m, x: m(x))(mixer, x)
    # A dozen sums of at most 24 terms in a row, and LayerNorm over numbers that are not small.
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_conditioned_kernel_does_not_see_a_shift(build, kind, length):
    network, x = build("orchid", D, conditioning=kind).conditioned, inputs(length)
    network = jax.jit(lambda x, network=network: network(x))
    h = network(x)
    for shift in (1, 7, length - 1):
        # The phase of a shift is rounded: about √T · 6e-8 in each of the T frequencies.
        shifted = network(np.roll(x, shift, axis=1))
        np.testing.assert_allclose(shifted, h, atol=1e-5 * jnp.abs(h).max())
    other = network(inputs(length)[:, ::-1])
    assert jnp.abs(other - h).max() > 1e-2 * jnp.abs(h).max()  # it does see the input


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_of_the_input_shifts_the_output(build, kind):
    mixer, x = build("orchid", D, conditioning=kind), inputs(19)
    forward = jax.jit(lambda x: mixer(x))
    y = np.asarray(forward(x))
    for shift in (1, 7, 18):
        shifted = forward(np.roll(x, shift, axis=1))
        np.testing.assert_allclose(shifted, np.roll(y, shift, axis=1), atol=2e-5 * np.abs(y).max())


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_matters(build, kind):
    mixer, x = build("orchid", D, conditioning=kind), inputs(19)
    gradients = jax.jit(jax.grad(lambda m: jnp.sum(m(x) ** 2)))(mixer)
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.all(np.isfinite(gradient)), jax.tree_util.keystr(path)
        assert np.any(np.asarray(gradient) != 0), jax.tree_util.keystr(path)


def test_the_first_output_sees_the_last_input(build):
    mixer, x = build("orchid", D), inputs(19)
    assert not mixer.causal
    changed = mixer(jnp.asarray(x).at[:, -1].add(1.0))
    assert jnp.abs(changed - mixer(x))[:, 0].max() > 1e-3


def test_a_longer_sequence_is_refused(build):
    with pytest.raises(ValueError, match="19 tokens, expected at most max_length 16"):
        build("orchid", D, max_length=16)(inputs(19), Context())
