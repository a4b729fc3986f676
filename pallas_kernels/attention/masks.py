"""Rules that say which key a query may see.

A rule, unlike an array, lets a backend skip what has nothing in it. Another rule needs only the two
methods of `Mask`. The rules that `parts.parts` names are computed as it splits them, where
sequences are long enough: whoever changes one changes both, and the tests hold them together.
"""

import dataclasses
import sys

import jax
import numpy as np


class Mask:
    """Base class; instances are hashable, and take numpy arrays as well as jax's."""

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """True where position `query` may see position `key`; the arrays broadcast."""
        raise TypeError(f"{type(self).__name__} must define visible(query, key)")

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """A range of keys, [start, stop), that holds all that queries first … last may see."""
        del first
        return 0, last + 1


@dataclasses.dataclass(frozen=True)
class Full(Mask):
    """Every query sees every key."""

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """As `Mask.visible`."""
        return np.ones(np.broadcast_shapes(query.shape, key.shape), bool)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """As `Mask.reach`."""
        del first, last
        return 0, sys.maxsize


@dataclasses.dataclass(frozen=True)
class Causal(Mask):
    """A query sees itself and what came before."""

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """As `Mask.visible`."""
        return key <= query


@dataclasses.dataclass(frozen=True)
class Window(Mask):
    """A query sees the last `size` positions, itself included."""

    size: int

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(
                f"Window(size={self.size}): a window holds the query itself, so size must be >= 1"
            )

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """As `Mask.visible`."""
        return (key <= query) & (key > query - self.size)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """As `Mask.reach`."""
        return first - self.size + 1, last + 1


@dataclasses.dataclass(frozen=True)
class PrefixWindow(Mask):
    """The last `size` positions, oneself included, and always the first `prefix`.

    Sliding-window attention with persistent tokens (Titans, arXiv 2501.00663, section 4.2).
    """

    prefix: int
    size: int

    def __post_init__(self):
        if self.prefix < 0 or self.size < 1:
            raise ValueError(f"{self}: prefix must be >= 0 and size, with the query itself, >= 1")

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """As `Mask.visible`."""
        return (key <= query) & ((key > query - self.size) | (key < self.prefix))


@dataclasses.dataclass(frozen=True)
class BlockLocal(Mask):
    """A query sees itself and what came before in its own block of `size` positions."""

    size: int

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"BlockLocal(size={self.size}): a block holds at least one position")

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """As `Mask.visible`."""
        return (key <= query) & (key >= query - query % self.size)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """As `Mask.reach`."""
        return first - first % self.size, last + 1


@dataclasses.dataclass(frozen=True)
class Column(Mask):
    """A query sees itself and every position a multiple of `stride` before it.

    The second pattern of the Sparse Transformer's strided attention (arXiv 1904.10509, section
    4.3); the first is `Window(stride + 1)`, and `Strided(stride)` merges the two in one head.
    """

    stride: int

    def __post_init__(self):
        _check_stride(self)

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """As `Mask.visible`."""
        return (key <= query) & ((query - key) % self.stride == 0)


@dataclasses.dataclass(frozen=True)
class Strided(Mask):
    """The last `stride` positions, and every position a multiple of `stride` back.

    Sparse Transformer (arXiv 1904.10509), section 4.3; both sets in one head ("merged").
    """

    stride: int

    def __post_init__(self):
        _check_stride(self)

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """As `Mask.visible`."""
        delay = query - key
        return (delay >= 0) & ((delay < self.stride) | (delay % self.stride == 0))


@dataclasses.dataclass(frozen=True)
class Summary(Mask):
    """A query sees itself and, before it, the last `summary` positions of every block.

    The second pattern of the Sparse Transformer's fixed attention (arXiv 1904.10509, section 4.3);
    the first is `BlockLocal(stride)`, and `Fixed(stride, summary)` merges the two in one head.
    Itself is no part of the paper's pattern, but without it the first positions would see nothing.
    """

    stride: int
    summary: int

    def __post_init__(self):
        _check_summary(self)

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """As `Mask.visible`."""
        summary = key % self.stride >= self.stride - self.summary
        return (key <= query) & (summary | (key == query))


@dataclasses.dataclass(frozen=True)
class Fixed(Mask):
    """The query's own block, and the last `summary` positions of every block before it.

    Sparse Transformer (arXiv 1904.10509), section 4.3; both sets in one head ("merged").
    """

    stride: int
    summary: int

    def __post_init__(self):
        _check_summary(self)

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """As `Mask.visible`."""
        summary = key % self.stride >= self.stride - self.summary
        return (key <= query) & (summary | (key >= query - query % self.stride))


def _check_stride(rule: Column | Strided) -> None:
    if rule.stride < 1:
        raise ValueError(f"{rule}: the stride must be >= 1")


def _check_summary(rule: Summary | Fixed) -> None:
    if not 1 <= rule.summary <= rule.stride:
        raise ValueError(f"{rule}: the summary is a part of the block, so 1 <= summary <= stride")
