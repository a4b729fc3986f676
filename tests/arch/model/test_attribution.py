"""What a mixer's output depends on, by differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch
from arch.model import attribution

T, D = 9, 8
TOKENS = jnp.asarray([[0, 1, 2, 0, 1, 2, 1, 2, 0]])
CONTEXT = arch.Context(tokens=TOKENS)
X = jax.random.normal(jax.random.key(0), (1, T, D))


def test_it_estimates_the_norm_of_the_jacobian(build):
    mixer = build("attention", D, num_heads=2)
    J = jax.jacrev(lambda x: mixer(x, CONTEXT))(X)[0, :, :, 0]
    exact = jnp.sum(jnp.square(J), axis=(1, 3))
    keys = jax.random.split(jax.random.key(1), 64)
    M = jax.vmap(lambda key: attribution.mixing_matrix(mixer, X, CONTEXT, key))(keys)
    # The mean of 64 · 8 squares of normals, of relative deviation √2 at most: √2 / √512 = 0.06.
    np.testing.assert_allclose(jnp.square(M).mean(0), exact, rtol=0.3, atol=1e-12)


@pytest.mark.parametrize("name", ["attention", "gla", "mamba", "lstm"])
def test_the_future_does_not_count(build, name):
    M = attribution.mixing_matrix(build(name, D), X, CONTEXT, jax.random.key(0))
    assert M.shape == (T, T)
    np.testing.assert_array_equal(jnp.triu(M, 1), 0)
    assert jnp.all(jnp.diagonal(M) > 0)


def test_ngram_heads_look_where_they_say(build):
    """At 4 the tokens 0 1 of places 0 and 1 have come back: after them stands place 2."""
    M = attribution.mixing_matrix(build("ngram", D, orders=(2,)), X, CONTEXT, jax.random.key(0))
    looked_at = [np.flatnonzero(row[:t]).tolist() for t, row in enumerate(np.asarray(M))]
    assert looked_at == [[], [], [], [], [2], [3], [], [3, 6], [4]]


def test_heads_add_up(build):
    mixer = build("attention", D, num_heads=4)
    parts = [head(X, CONTEXT) for head in attribution.heads(mixer)]
    assert len(parts) == 4
    # Sums of eight products, in another order.
    np.testing.assert_allclose(sum(parts), mixer(X, CONTEXT), rtol=1e-5, atol=1e-6)
    assert mixer.out.kernel[...].any(axis=1).all()  # the mixer itself is left alone


def test_what_cannot_be_taken_apart_is_one_head(build):
    mixer = build("lstm", D)
    assert list(attribution.heads(mixer)) == [mixer]


def test_layers_are_those_of_the_model():
    model = arch.Backbone(
        ["gla", "ngram"],
        D,
        num_layers=4,
        vocab_size=3,
        max_length=T,
        channel_mixer="mlp",
        rngs=nnx.Rngs(0),
    )
    blocks = list(attribution.layers(model, TOKENS))
    assert [type(block.mixer).__name__ for block, _ in blocks] == ["GLA", "NgramHeads"] * 2
    block, x = blocks[-1]
    logits = model.final_norm(block(x, CONTEXT)) @ model.embedding[...].T
    np.testing.assert_allclose(logits, model(TOKENS), rtol=1e-4, atol=1e-5)
