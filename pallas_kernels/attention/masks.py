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


@dataclasses.dataclass(frozen=True)
class BlockLocal:
    """A query sees itself and what came before in its own block of `size` positions."""

    size: int

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"BlockLocal(size={self.size}): a block holds at least one position")

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Whether position `query` may see position `key`; the arrays broadcast."""
        return (key <= query) & (key // self.size == query // self.size)


@dataclasses.dataclass(frozen=True)
class Strided:
    """The last `stride` positions, and every position a multiple of `stride` back.

    Sparse Transformer (arXiv 1904.10509), section 4.2; both sets in one head ("merged").
    """

    stride: int

    def __post_init__(self):
        if self.stride < 1:
            raise ValueError(f"Strided(stride={self.stride}): the stride must be >= 1")

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Whether position `query` may see position `key`; the arrays broadcast."""
        delay = query - key
        return (delay >= 0) & ((delay < self.stride) | (delay % self.stride == 0))


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The query's own block, and the last `summary` positions of every block before it.

    Sparse Transformer (arXiv 1904.10509), section 4.2; both sets in one head ("merged").
    """

    stride: int
    summary: int

    def __post_init__(self):
        if not 1 <= self.summary <= self.stride:
            raise ValueError(
                f"Fixed(stride={self.stride}, summary={self.summary}): the summary is a part of "
                "the block, 1 <= summary <= stride"
            )

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Whether position `query` may see position `key`; the arrays broadcast."""
        same_block = key // self.stride == query // self.stride
        summary = key % self.stride >= self.stride - self.summary
        return (key <= query) & (same_block | summary)


Mask = Full | Causal | Window | BlockLocal | Strided | Fixed
