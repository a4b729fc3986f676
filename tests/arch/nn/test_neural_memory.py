"""Titans' memory token by token in float64, with `jax.grad` of its inner loss."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch
from arch.nn.neural_memory import NeuralMemory, Tokens, read, remember
from pallas_kernels import gated_delta_rule

B, T, H, K = 2, 23, 2, 4

# float32 against float64: a layer's product has at most 8 terms, a gradient passes through six such
# products, and the weights gather 23 gradients, every error of which enters the gradients that
# follow: about 8 · 6 · 23 roundings of 6e-8 if none cancels, on values of order one.
TOLERANCE = 8 * 6 * 23 * 6e-8


def draw(seed=0, length=T, theta=0.1):
    """Tokens whose gates cover what they can be, among them forgetting all and nothing."""
    rng = np.random.default_rng(seed)
    q, k, v = rng.standard_normal((3, B, length, H, K))
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    eta, alpha = rng.uniform(0, 0.9, (2, B, length, H))
    theta = theta * rng.uniform(0, 1, (B, length, H))
    alpha *= rng.random((B, length, H)) < 0.7
    alpha[:, length // 2, 0], eta[:, length // 3, 1] = 1, 0
    return Tokens(q, k, v, eta, theta, alpha)


def weights_of(depth, seed=1):
    rng = np.random.default_rng(seed)
    widths = [K, *[2 * K] * (depth - 1), K]
    return [rng.standard_normal((B, H, i, o)) / np.sqrt(i) for i, o in itertools.pairwise(widths)]


def state_of(weights):
    return {
        "anchor": weights,
        "weights": weights,
        "surprise": jax.tree.map(jnp.zeros_like, weights),
        "position": jnp.zeros((), jnp.int32),
    }


def single(x):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), x)


def network(weights, x):
    """The memory as the paper describes it: an MLP, SiLU between its layers."""
    for W in weights[:-1]:
        x = x @ W
        x = x / (1 + jnp.exp(-x))
    return x @ weights[-1]


def literal(weights, tokens, chunk_size):
    """Equations 13 to 15 for one sequence and head, ∇ℓ at the memory where the chunk began."""

    def inner_loss(weights, k, v):
        return jnp.sum((network(weights, k) - v) ** 2)

    def step(carry, token):
        (start, weights, surprise), (t, token) = carry, token
        start = jax.tree.map(lambda a, b: jnp.where(t % chunk_size == 0, a, b), weights, start)
        gradient = jax.grad(inner_loss)(start, token.k, token.v)
        surprise = [
            token.eta * S - token.theta * g for S, g in zip(surprise, gradient, strict=True)
        ]
        weights = [(1 - token.alpha) * W + S for W, S in zip(weights, surprise, strict=True)]
        return (start, weights, surprise), network(weights, token.q)

    carry = weights, weights, [jnp.zeros_like(W) for W in weights]
    steps = jnp.arange(len(tokens.q)), tokens
    (_, weights, surprise), y = jax.lax.scan(step, carry, steps)
    return y, weights, surprise


def reference(weights, tokens, chunk_size):
    """`literal` for every sequence and head, in float64."""
    with jax.enable_x64(True):
        weights, tokens = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (weights, tokens))
        heads = jax.vmap(lambda w, x: literal(w, x, chunk_size), (0, 1), (1, 0, 0))
        out = jax.jit(jax.vmap(heads, (0, 0), (0, 0, 0)))(weights, tokens)
        return jax.tree.map(np.asarray, out)


def close(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * max(1, np.abs(b).max()))


@pytest.mark.parametrize("chunk_size", [1, 5, 32])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_equals_the_recurrence_with_gradients_of_the_inner_loss(depth, chunk_size):
    weights, tokens = weights_of(depth), draw()
    y, last, surprise = reference(weights, tokens, chunk_size)
    run = jax.jit(remember, static_argnums=2)
    state, actual = run(state_of(single(weights)), single(tokens), chunk_size)
    close([actual, state["weights"], state["surprise"]], [y, last, surprise])
    assert state["position"] == T % chunk_size


@pytest.mark.parametrize(
    "lengths", [[1] * T, [4, 1, 1, 13, 4], [5, 5, 13], [6, 17], [1, 21, 1]], ids=str
)
def test_any_partition_gives_the_same_memory(lengths):
    weights, tokens = single(weights_of(2)), single(draw())
    expected, y = remember(state_of(weights), tokens, 5)
    state, start, ys = state_of(weights), 0, []
    run = jax.jit(remember, static_argnums=2)
    for length in lengths:
        part = jax.tree.map(lambda x, i=start, n=length: x[:, i : i + n], tokens)
        state, y_part = run(state, part, 5)
        ys.append(y_part)
        start += length
    close([jnp.concatenate(ys, 1), state], [y, expected])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_outer_gradients_equal_those_of_the_recurrence(depth):
    weights, tokens, chunk_size = weights_of(depth), draw(), 5
    probe = np.random.default_rng(2).standard_normal((B, T, H, K))

    def outer(form):
        def loss(weights, tokens):
            y, last = form(weights, tokens)
            return jnp.sum(probe * y) + sum(jnp.sum(W**2) for W in last)

        return jax.jit(jax.grad(loss, argnums=(0, 1)))

    def parallel(weights, tokens):
        state, y = remember(state_of(weights), tokens, chunk_size)
        return y, state["weights"]

    def recurrent(weights, tokens):
        heads = jax.vmap(lambda w, x: literal(w, x, chunk_size)[:2], (0, 1), (1, 0))
        return jax.vmap(heads)(weights, tokens)

    actual = outer(parallel)(*single((weights, tokens)))
    with jax.enable_x64(True):
        double = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (weights, tokens))
        expected = jax.tree.map(np.asarray, outer(recurrent)(*double))
    # A gate that is exactly 0 or 1 lies at the border of what a decay can be: its logarithm, by
    # which the products are taken, has no gradient there.
    inside = [tokens.eta > 0, tokens.alpha < 1]
    for i, (a, b) in enumerate(zip(*map(jax.tree.leaves, (actual, expected)), strict=True)):
        where = {len(weights) + 3: inside[0], len(weights) + 5: inside[1]}.get(i, True)
        # Backward the sums run over the tokens once more.
        error = np.where(where, np.asarray(a) - b, 0)
        np.testing.assert_allclose(error, 0, atol=10 * TOLERANCE * np.abs(b).max())


def test_a_matrix_without_momentum_and_forgetting_is_the_delta_rule():
    """M ← M − θ ∇|M k − v|² = M (I − 2θ k kᵀ) + 2θ v kᵀ: β = 2θ."""
    weights, tokens = single(weights_of(1)), single(draw(theta=0.5))
    zero = jnp.zeros_like(tokens.eta)
    state, y = remember(state_of(weights), tokens._replace(eta=zero, alpha=zero), 1)
    o, S = gated_delta_rule(
        *tokens[:3], 2 * tokens.theta, None, weights[0], scale=1.0, implementation="reference"
    )
    close([y, state["weights"]], [o, [S]])


def test_a_new_memory_answers_nothing():
    memory = NeuralMemory(
        8,
        rngs=nnx.Rngs(0),
        num_heads=2,
        memory_depth=3,
        expansion=2,
        conv_size=4,
        chunk_size=4,
    )
    assert [W.shape for W in memory.initial] == [(2, 4, 8), (2, 8, 8), (2, 8, 4)]
    weights = memory.empty(1)["weights"]
    np.testing.assert_array_equal(read(weights, jnp.ones((1, 2, 3, 4))), 0)


def test_the_state_is_fixed(build):
    mixer = build("titans_lmm", num_heads=2, memory_depth=3, expansion=2)
    size = arch.state_bytes(mixer, 10)
    assert size == arch.state_bytes(mixer, 10**6)
    weights = 2 * (16 * 32 + 32 * 32 + 32 * 16)
    assert size == 4 * (3 * weights + 1 + 3 * 3 * 32)
