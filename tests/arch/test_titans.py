"""Titans' variants: what surrounds the memory, in float64 and with dense attention.

The memory itself is held to its equations in test_neural_memory.py, and taken from there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch
from arch.nn.neural_memory import read, remember

B, T, D, H, N_P = 2, 23, 32, 2, 3
K = D // H


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def rms_norm(norm, x):
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-5) * norm.scale[...]


def unit(x):
    return x / np.sqrt(np.sum(x**2, -1, keepdims=True) + 1e-6)


def turned(x, positions):
    """Rotary positions of x [..., S, H, K]: pair i by the angle m 10000^(−2i/K)."""
    angle = positions[:, None, None] * 10_000.0 ** (-np.arange(0, K, 2) / K)
    z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([z.real, z.imag], -1).reshape(x.shape)


def attend(layers, x, sees):
    """Softmax attention over all of x [B, S, D] under sees [S, S], positions counted along x."""
    q, k, v = (
        (x @ layer.kernel[...]).reshape(B, -1, H, K)
        for layer in (layers.query, layers.key, layers.value)
    )
    positions = np.arange(x.shape[1])
    scores = np.einsum("bthk,bshk->bhts", turned(q, positions), turned(k, positions)) / np.sqrt(K)
    weights = np.where(sees, np.exp(scores), 0)
    weights = weights / weights.sum(-1, keepdims=True)
    return np.einsum("bhts,bshk->bthk", weights, v).reshape(x.shape)


def double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def inputs(seed=0, length=T):
    return np.asarray(jax.random.normal(jax.random.key(seed), (B, length, D)))


def with_prompt(p, x):
    return np.concatenate([np.broadcast_to(p.persistent.tokens[...], (B, N_P, D)), x], axis=1)


def close(actual, expected):
    # As in the tests of the other mixers: sums of at most 32 terms in a few stages, in the memory
    # with factors below one, and norms that divide by what is well above zero.
    np.testing.assert_allclose(actual, expected, atol=5e-5 * np.abs(expected).max())


def forward(mixer, x):
    return jax.jit(lambda m, x: m(x))(mixer, jnp.asarray(x))


def test_the_memory_is_told_of_each_token_as_section_4_4_says(build):
    memory = build("titans_lmm", num_heads=H).memory
    p, x = double(memory), inputs()
    _, tokens = memory.tokens(memory.conv.initial_state(B), jnp.asarray(x))
    rows = np.pad(x @ p.qkv.kernel[...], [(0, 0), (3, 0), (0, 0)])
    conv = sum(p.conv.kernel[...][j] * rows[:, 3 - j :][:, :T] for j in range(4)) + p.conv.bias[...]
    q, k, v = np.moveaxis(silu(conv).reshape(B, T, 3, H, K), 2, 0)
    eta, theta, alpha = np.split(sigmoid(x @ p.gates.kernel[...] + p.gate_bias[...]), 3, -1)
    for a, b in zip(tokens, (unit(q), unit(k), v, eta, theta, alpha), strict=True):
        close(a, b)


def test_memory_alone_is_normalised_gated_and_mapped(build):
    mixer = build("titans_lmm", num_heads=H)
    p, x = double(mixer), inputs()
    _, y = mixer.memory.extend(mixer.memory.initial_state(B), jnp.asarray(x))
    y = rms_norm(p.norm, double(y)).reshape(B, T, D) * silu(x @ p.gate.kernel[...])
    close(forward(mixer, x), y @ p.out.kernel[...])


def gated(p, y, m):
    return rms_norm(p.attention_norm, y) * silu(rms_norm(p.memory_norm, m)) @ p.out.kernel[...]


def test_memory_as_a_gate_attends_to_a_window_and_the_prefix(build):
    mixer = build("titans_mag", num_heads=H, window=6, num_persistent=N_P)
    p, x = double(mixer), inputs()
    whole = with_prompt(p, x)
    _, m = mixer.memory.extend(mixer.memory.initial_state(B), jnp.asarray(whole, jnp.float32))
    t = np.arange(N_P + T)
    sees = (t <= t[:, None]) & ((t > t[:, None] - 6) | (t < N_P))
    y = attend(p, whole, sees)
    expected = gated(p, y, double(m).reshape(y.shape))[:, N_P:]
    close(forward(mixer, x), expected)


def test_memory_as_a_layer_is_followed_by_a_window(build):
    mixer = build("titans_mal", num_heads=H, window=6, num_persistent=N_P)
    p, x = double(mixer), inputs()
    whole = with_prompt(p, x)
    y = rms_norm(p.norm, whole + double(mixer.memory(jnp.asarray(whole, jnp.float32))))
    t = np.arange(N_P + T)
    o = attend(p.attention, y, (t <= t[:, None]) & (t > t[:, None] - 6))
    close(forward(mixer, x), (o @ p.attention.out.kernel[...])[:, N_P:])


def test_memory_as_a_context_segment_by_segment(build):
    C = 6
    mixer = build("titans_mac", num_heads=H, segment=C, num_persistent=N_P)
    p, x = double(mixer), inputs()
    memory, tail = mixer.memory.empty(B), mixer.memory.conv.initial_state(B)
    os = []
    for start in range(0, T, C):
        S = x[:, start : start + C]
        n = S.shape[1]
        q = unit(silu((S @ p.retrieve.kernel[...]).reshape(B, n, H, K)))
        h = read(memory["weights"], jnp.asarray(q, jnp.float32).swapaxes(1, 2))
        h = double(h).swapaxes(1, 2).reshape(S.shape)
        # The retrieved part is as long as a segment, also where the segment is the last.
        h = np.pad(h, [(0, 0), (0, C - n), (0, 0)])
        whole = np.concatenate([with_prompt(p, h), S], axis=1)
        i, j = np.arange(whole.shape[1])[:, None] - N_P - C, np.arange(whole.shape[1])
        sees = (j < N_P) | ((j - N_P) % C <= i)
        y = S + attend(p, whole, sees)[:, N_P + C :] @ p.attended.kernel[...]
        tail, tokens = mixer.memory.tokens(tail, jnp.asarray(y, jnp.float32))
        memory, m = remember(memory, tokens, C)
        os.append(gated(p, y, double(m).reshape(y.shape)))
    close(forward(mixer, x), np.concatenate(os, axis=1))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("titans_mac", {"segment": 6}),
        ("titans_mag", {"window": 6, "chunk_size": 5, "num_heads": 2}),
        ("titans_mal", {"window": 6, "chunk_size": 5, "memory_depth": 1}),
    ],
)
def test_parts_that_straddle_borders(build, name, options):
    mixer, x = build(name, **options), jnp.asarray(inputs())
    extend = jax.jit(lambda m, s, x: m.extend(s, x))
    state, start, ys = mixer.initial_state(B, T), 0, []
    for length in (4, 4, 1, 4, 4, 1, 1, 4):
        state, y = extend(mixer, state, x[:, start : start + length])
        ys.append(y)
        start += length
    close(jnp.concatenate(ys, axis=1), forward(mixer, x))


@pytest.mark.parametrize("name", ["titans_mac", "titans_mag", "titans_mal"])
def test_the_state_is_fixed(build, name):
    mixer = build(name)
    assert arch.state_bytes(mixer, 100) == arch.state_bytes(mixer, 10**6)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("titans_lmm", {"memory_depth": 0}, "memory_depth is 0"),
        ("titans_lmm", {"num_heads": 5}, "num_heads is 5"),
        ("titans_mac", {"segment": 0}, "segment is 0"),
        ("titans_mag", {"num_heads": 32}, "is 1, expected an even number"),
        ("titans_mag", {"num_persistent": 0}, "num_persistent is 0"),
    ],
)
def test_impossible_options_are_refused(build, name, options, words):
    with pytest.raises(ValueError, match=words):
        build(name, **options)
