"""The blocks of a backbone in order: runs of equal units of layers, each scanned over its repeats.

Letters: B batch, T time, D width.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import AuxiliaryLoss, Context, State

_Keys = Sequence[jax.Array | None]  # for each run the keys of its layers, [repeats, unit]


def apply(
    runs: Any,
    keys: _Keys,
    x: jax.Array,
    context: Context,
    padding: jax.Array | None,
    *,
    remat: bool,
) -> tuple[jax.Array, list[jax.Array]]:
    """Apply all blocks to x [B, T, D]; return the result and the layers' auxiliary losses.

    padding: as `Block.__call__` takes it.
    """

    def unit_body(x: jax.Array, layers: Any) -> tuple[jax.Array, nnx.State]:
        unit, keys = layers
        for i, block in enumerate(unit):
            x = block(x, context, rng=None if keys is None else keys[i], padding=padding)
        return x, nnx.state(unit, AuxiliaryLoss)

    losses = []
    for layers in zip(runs, keys, strict=True):
        body = jax.checkpoint(unit_body) if remat else unit_body
        x, stacked = jax.lax.scan(body, x, layers)
        losses += jax.tree.leaves(stacked)
    return x, losses


def extend(
    runs: Any, keys: _Keys, states: Sequence[State], x: jax.Array, context: Context
) -> tuple[list[State], jax.Array]:
    """Apply the recurrent form of all blocks to x [B, T, D]; return the new states and the result.

    states: of each run a list over the unit, stacked over its repeats.
    """

    # States are carried, not scanned over: a layer's part is replaced in place, where a scan
    # stacks all of them anew. For a cache of keys that would be most of the time of one token.
    def unit_body(carry: tuple[jax.Array, list[State]], layers: Any) -> tuple[Any, None]:
        (x, states), (unit, keys, layer) = carry, layers
        for i, block in enumerate(unit):
            rng = None if keys is None else keys[i]
            own = jax.tree.map(lambda leaf: _at(leaf, layer), states[i])
            own, x = block.extend(own, x, context, rng=rng)
            states[i] = jax.tree.map(
                lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new, layer, 0),
                states[i],
                own,
            )
        return (x, states), None

    found = []
    for run, run_keys, own in zip(runs, keys, states, strict=True):
        layers = jnp.arange(jax.tree.leaves(run)[0].shape[0])
        (x, own), _ = jax.lax.scan(unit_body, (x, list(own)), (run, run_keys, layers))
        found.append(own)
    return found, x


def _at(leaf: jax.Array, layer: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(leaf, layer, 0, keepdims=False)
