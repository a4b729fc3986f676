"""Attention to earlier n-grams, head by head, from the mixing matrices of a trained model."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import arch
from arch.model import attribution
from arch.model.layer_pattern import layer_list
from tasks.generators import ngrams

ORDERS = (1, 2, 3)
_SEQUENCES = 16  # of the test set: some hundred rows for each head


@dataclasses.dataclass(frozen=True)
class Head:
    """One head of one layer, and the tokens that it attends to.

    Attributes:
      model: the architecture's name in the leaderboard.
      layer: from 1.
      mixer: its architecture.
      head: from 1.
      weight: for n = 1, 2, 3 the mean share on tokens that followed the current n-gram.
      uniform: the same of a head that looks everywhere alike.
      tokens: the first sequence up to the last token at which the model is judged, [L].
      example: M of it, rows normalised over s < t, [L, L].
    """

    model: str
    layer: int
    mixer: str
    head: int
    weight: tuple[float, ...]
    uniform: tuple[float, ...]
    tokens: np.ndarray
    example: np.ndarray


def followers(tokens: jax.Array, n: int) -> jax.Array:
    """[t, s], s < t: do the n tokens before s equal the last n tokens at t? [T, T] bool."""
    after = jnp.roll(ngrams.occurrences(tokens, n), 1, axis=1)
    return after & jnp.tri(tokens.shape[0], k=-1, dtype=bool)


def shares(
    M: jax.Array, tokens: jax.Array, counted: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums over rows for each order, [3] each: the weight, the uniform weight, the rows.

    M: [T, T], rows normalised over s < t; tokens: [T]; counted: [T] bool.
    """
    found = jnp.stack([followers(tokens, n) for n in ORDERS])
    rows = counted & found.any(-1)
    past = jnp.maximum(jnp.arange(tokens.shape[0]), 1)
    return (
        jnp.sum(rows * jnp.sum(M * found, -1), -1),
        jnp.sum(rows * found.sum(-1) / past, -1),
        rows.sum(-1),
    )


def normalised(M: jax.Array) -> jax.Array:
    """Rows that sum to 1 over s < t; a row that sees nothing of the past stays zero."""
    M = jnp.tril(M, -1)
    total = M.sum(-1, keepdims=True)
    return M / jnp.where(total > 0, total, 1)


def probe(model: arch.Backbone, task: Any, config: dict[str, Any], name: str) -> Iterator[Head]:
    """Every head of every layer of a model on the first sequences of the test set."""
    batch = task.eval_batch(0, _SEQUENCES, "test")
    judged = jnp.zeros(batch.inputs.shape).at[jnp.arange(_SEQUENCES)[:, None], batch.loss_positions]
    counted = judged.add(batch.weights) > 0
    shown = 1 + int(np.flatnonzero(counted[0])[-1])

    @jax.jit
    def looks_at(mixer: Any, x: jax.Array, tokens: jax.Array, keys: jax.Array) -> Any:
        def one(inputs: tuple) -> tuple:
            x, tokens, counted, key = inputs
            context = arch.Context(tokens=tokens[None])
            M = normalised(attribution.mixing_matrix(mixer, x[None], context, key))
            return M, shares(M, tokens, counted)

        M, sums = jax.lax.map(one, (x, tokens, counted, keys))
        return M[0], jax.tree.map(lambda a: a.sum(0), sums)

    settings = config["model"]
    names = layer_list(settings["mixer"], settings["num_layers"], settings["mixer_options"])
    keys = jax.random.split(jax.random.key(0), _SEQUENCES)
    layers = zip(names, attribution.layers(model, batch.inputs), strict=True)
    for layer, ((mixer_name, _), (block, x)) in enumerate(layers, 1):
        h = block.mixer_norm(x)
        for head, mixer in enumerate(attribution.heads(block.mixer), 1):
            example, (weight, uniform, rows) = looks_at(mixer, h, batch.inputs, keys)
            rows = np.maximum(rows, 1)
            yield Head(
                name,
                layer,
                mixer_name,
                head,
                tuple(map(float, weight / rows)),
                tuple(map(float, uniform / rows)),
                np.asarray(batch.inputs[0, :shown]),
                np.asarray(example[:shown, :shown]),
            )
