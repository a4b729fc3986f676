"""Sparse and local attention: which token each output depends on, cell by cell, and the cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch

B, T, D = 2, 19, 8
STRIDE, SUMMARY = 4, 2


def strided_1(i, j, stride=STRIDE):
    """A_i^(1) = {t, t + 1, …, i} with t = max(0, i − ℓ), of section 4.3."""
    return max(0, i - stride) <= j <= i


def strided_2(i, j, stride=STRIDE):
    """A_i^(2) = {j : (i − j) mod ℓ = 0}."""
    return j <= i and (i - j) % stride == 0


def fixed_1(i, j, stride=STRIDE):
    """A_i^(1) = {j : ⌊j / ℓ⌋ = ⌊i / ℓ⌋}."""
    return j <= i and j // stride == i // stride


def fixed_2(i, j, stride=STRIDE, summary=SUMMARY):
    """A_i^(2) = {j : j mod ℓ ∈ {t, t + 1, …, ℓ}} with t = ℓ − c; and i itself."""
    return j == i or (j <= i and stride - summary <= j % stride <= stride)


def dependence(mixer, length=T):
    """[T, T] bool: whether any channel of y_i changes with any channel of x_j."""
    x = jax.random.normal(jax.random.key(0), (1, length, D))
    jacobian = jax.jit(jax.jacrev(lambda x: mixer(x)))(x)[0, :, :, 0]
    return np.any(np.asarray(jacobian) != 0, axis=(1, 3))


def cells(*sets, length=T):
    return np.array([[any(s(i, j) for s in sets) for j in range(length)] for i in range(length)])


@pytest.mark.parametrize(
    ("name", "options", "sets"),
    [
        ("sparse_strided", {}, (strided_1, strided_2)),
        ("sparse_strided", {"num_heads": 2, "heads": "split"}, (strided_1, strided_2)),
        ("sparse_fixed", {"summary": SUMMARY}, (fixed_1, fixed_2)),
        (
            "sparse_fixed",
            {"num_heads": 2, "heads": "split", "summary": SUMMARY},
            (fixed_1, fixed_2),
        ),
        ("block_local", {"block": STRIDE}, (fixed_1,)),
        ("sliding_window", {"window": STRIDE + 1}, (strided_1,)),
    ],
)
def test_an_output_depends_on_the_cells_of_its_pattern(build, name, options, sets):
    """max_length = 16, so that the default ℓ = √M is the tests' stride."""
    mixer = build(name, D, max_length=STRIDE**2, **options)
    np.testing.assert_array_equal(dependence(mixer), cells(*sets))


@pytest.mark.parametrize(
    ("name", "options", "sets"),
    [
        ("sparse_strided", {}, (strided_1, strided_2)),
        ("sparse_fixed", {"summary": SUMMARY}, (fixed_1, fixed_2)),
    ],
)
def test_split_heads_see_one_pattern_each(build, name, options, sets):
    for half, pattern in enumerate(sets):
        mixer = build(name, D, num_heads=4, heads="split", stride=STRIDE, **options)
        # Only this half of the heads reaches the output.
        rows = (jnp.arange(D) // (D // 2) == half)[:, None]
        mixer.out.kernel = nnx.Param(jnp.where(rows, mixer.out.kernel[...], 0))
        np.testing.assert_array_equal(dependence(mixer), cells(pattern))


def softmax(scores, visible):
    weights = np.where(visible, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("heads", ["merged", "split"])
@pytest.mark.parametrize(
    ("name", "sets"),
    [("sparse_strided", (strided_1, strided_2)), ("sparse_fixed", (fixed_1, fixed_2))],
)
def test_equals_dense_softmax(build, name, sets, heads):
    options = {"summary": SUMMARY} if name == "sparse_fixed" else {}
    mixer = build(
        name, D, num_heads=2, heads=heads, stride=STRIDE, positions="none", num_layers=3, **options
    )
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    q, k, v = (
        (x.astype(np.float64) @ np.asarray(layer.kernel[...], np.float64)).reshape(B, T, 2, D // 2)
        for layer in (mixer.query, mixer.key, mixer.value)
    )
    o = np.zeros_like(q)
    for h in range(2):
        visible = cells(*sets) if heads == "merged" else cells(sets[h])
        scores = np.einsum("btk,bsk->bts", q[:, :, h], k[:, :, h]) / np.sqrt(D // 2)
        o[:, :, h] = softmax(scores, visible) @ v[:, :, h]
    expected = o.reshape(B, T, D) @ np.asarray(mixer.out.kernel[...], np.float64)
    actual = jax.jit(lambda m, x: m(x))(mixer, x)
    # Sums of at most 19 terms in three stages, each a few units of 6e-8.
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_the_residual_path_starts_small():
    """W_O of a model of N layers starts 1/√(2N) as large as `attention`'s (section 5.2)."""
    models = [
        arch.Backbone(name, D, num_layers=8, vocab_size=11, max_length=16, rngs=nnx.Rngs(0))
        for name in ("sparse_strided", "attention")
    ]
    small, plain = (model.runs[0][0].mixer.out.kernel[...] for model in models)
    np.testing.assert_allclose(4 * small, plain, rtol=1e-6)


def test_defaults_follow_the_paper(build):
    assert build("sparse_fixed", D, max_length=128**2).stride == 128
    assert build("sparse_fixed", D, max_length=128**2).summary == 8
    assert build("sparse_fixed", D, max_length=1024**2).summary == 8
    assert build("sparse_fixed", D, max_length=40).summary == 1


def test_a_block_bounds_the_state(build):
    mixer = build("block_local", D, block=5)
    assert mixer.initial_state(1, 1000)["keys"].shape == (1, 1, 4, D)
    assert arch.state_bytes(mixer, 1000) == arch.state_bytes(mixer, 4)


@pytest.mark.parametrize("max_length", [3, 4, 5, 6])
def test_state_shorter_than_the_block(build, max_length):
    mixer = build("block_local", D, block=5)
    x = jax.random.normal(jax.random.key(0), (B, max_length, D))
    state, parts = mixer.initial_state(B, max_length), []
    extend = jax.jit(lambda s, x: mixer.extend(s, x))
    for t in range(max_length):
        state, y = extend(state, x[:, t : t + 1])
        parts.append(y)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), mixer(x), atol=1e-6)


def test_blocks_are_counted_from_the_start_of_a_document(build):
    """Ids 1, 2, 1 of 7, 9 and 3 tokens: 19 in all, and no block of 4 crosses a border."""
    mixer = build("block_local", D, block=STRIDE)
    lengths = (7, 9, 3)
    ids = jnp.repeat(jnp.array([1, 2, 1]), jnp.array(lengths), total_repeat_length=T)[None]
    x = jax.random.normal(jax.random.key(0), (1, T, D))
    jacobian = jax.jacrev(lambda x: mixer(x, arch.Context(segment_ids=ids)))(x)[0, :, :, 0]
    expected = np.zeros((T, T), bool)
    for start, length in zip((0, 7, 16), lengths, strict=True):
        end = start + length
        expected[start:end, start:end] = cells(fixed_1, length=length)
    np.testing.assert_array_equal(np.any(np.asarray(jacobian) != 0, axis=(1, 3)), expected)
