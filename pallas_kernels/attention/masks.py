"""Rules that say which key a query may see.

A rule, unlike an array, lets a backend skip the blocks that have nothing in them.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Full:
    """Every query sees every key."""

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Whether position `query` may see position `key`; the arrays broadcast."""
        return jnp.ones(jnp.broadcast_shapes(query.shape, key.shape), bool)


@dataclasses.dataclass(frozen=True)
class Causal:
    """A query sees itself and what came before."""

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Whether position `query` may see position `key`; the arrays broadcast."""
        return key <= query


@dataclasses.dataclass(frozen=True)
class Window:
    """A query sees the last `size` positions, itself included."""

    size: int

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(
                f"Window(size={self.size}): a window holds the query itself, so size must be >= 1"
            )

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Whether position `query` may see position `key`; the arrays broadcast."""
        return (key <= query) & (key > query - self.size)


Mask = Full | Causal | Window
