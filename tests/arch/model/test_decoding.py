"""Every causal architecture, trained for a moment, decodes what its parallel form would choose."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import arch
from arch.model.decoding import greedy

VOCAB_SIZE, PERIOD, PROMPT, DECODED = 12, 5, 11, 16
LENGTH = PROMPT + DECODED
STEPS = 60


def periodic(key, batch_size):
    """Random words of PERIOD tokens, repeated: what comes next is in the context."""
    words = jax.random.randint(key, (batch_size, PERIOD), 0, VOCAB_SIZE)
    return jnp.tile(words, (1, -(-LENGTH // PERIOD)))[:, :LENGTH]


@jax.jit
def trained(model):
    optimizer = optax.adam(1e-2)
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)

    def loss(parameters, tokens):
        logits = nnx.merge(graph, parameters, rest)(tokens[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean()

    def step(carry, key):
        parameters, state = carry
        value, gradient = jax.value_and_grad(loss)(parameters, periodic(key, 16))
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(parameters, updates), state), value

    keys = jax.random.split(jax.random.key(0), STEPS)
    (parameters, _), losses = jax.lax.scan(step, (parameters, optimizer.init(parameters)), keys)
    return nnx.merge(graph, parameters, rest), losses


@pytest.mark.slow  # five minutes: each is trained
@pytest.mark.parametrize("name", [name for name in arch.names() if arch.get(name).causal])
def test_decoding_by_extend_equals_rerunning_the_parallel_form(name):
    model = arch.Backbone(
        name, 32, num_layers=2, vocab_size=VOCAB_SIZE, max_length=LENGTH, rngs=nnx.Rngs(0)
    )
    model, losses = trained(model)
    assert np.all(np.isfinite(losses)), losses
    assert losses[-5:].mean() < losses[:5].mean()
    prompt = periodic(jax.random.key(1), 4)[:, :PROMPT]
    decoded = jax.jit(greedy, static_argnums=2)(model, prompt, DECODED)

    forward = jax.jit(lambda model, tokens: model(tokens))
    tokens = jnp.zeros((4, LENGTH), jnp.int32).at[:, :PROMPT].set(prompt)
    for t in range(PROMPT, LENGTH):  # what stands after t is not seen: the model is causal
        following = jnp.argmax(forward(model, tokens)[:, t - 1], axis=-1)
        tokens = tokens.at[:, t].set(following)
    np.testing.assert_array_equal(decoded, tokens[:, PROMPT:])


def test_nothing_to_decode():
    model = arch.Backbone("gru", 8, num_layers=1, vocab_size=4, max_length=8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="num_tokens is 0, expected at least 1"):
        greedy(model, jnp.zeros((1, 3), jnp.int32), 0)
